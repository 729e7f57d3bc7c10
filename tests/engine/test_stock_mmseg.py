"""mmseg's own, unmodified ``tools/train.py`` and ``tools/test.py`` on an unmodified config."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import killing
import mmseg
import pytest
from mistakes import check_mistake

from mm_tuning_plugin.cli.common.environment import installed_version

TOOLS = Path(mmseg.__file__).parent / '.mim' / 'tools'


# mmseg's own test.py reads mmengine's checkpoints by torch's default, which refuses them from
# torch 2.6 on: on the original stack it can read none, of whatever run, unless torch is told so.
TRUSTED = {} if installed_version('onedl-mmengine') else {'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD': '1'}


def run(script, *argv):
    """In a process of its own, which imports nothing before the script does."""
    if not (TOOLS / script).is_file():
        pytest.skip(f'this distribution of mmseg carries no {script}')
    command = [sys.executable, str(TOOLS / script), *map(str, argv)]
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def run_forked(log, script, *argv):
    """The same script in a forked process; its exit status and what it printed."""

    def call():
        os.environ.update(TRUSTED)
        sys.argv = [script, *map(str, argv)]
        runpy.run_path(str(TOOLS / script), run_name='__main__')
        return 0

    return killing.ended(killing.started(call, log)), log.read_text()


def test_one_option_turns_a_config_into_both_stages_and_it_stays_testable(toy_cfg, tmp_path):
    toy_cfg.pop('mix_and_match')
    config, work_dir = tmp_path / 'users_config.py', tmp_path / 'run'
    toy_cfg.dump(config)
    before = config.read_text()
    done = run(
        'train.py', config, '--work-dir', work_dir, '--cfg-options',
        'runner_type=mm_tuning_plugin.MixAndMatchRunner', 'mix_and_match.max_iters=3',
        'mix_and_match.images_per_batch=4', 'mix_and_match.retrieval_images=2',
        'mix_and_match.size_range=16,32',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert config.read_text() == before
    assert (work_dir / 'tuning' / 'tuned_backbone.pth').is_file()
    assert (work_dir / 'tuning' / 'iter_3.pth').is_file()
    assert (work_dir / 'iter_4.pth').is_file()
    said = done.stdout + done.stderr
    assert 'stage 1 of 2' in said and 'stage 2 of 2' in said

    log = tmp_path / 'test.log'
    status, said = run_forked(log, 'test.py', work_dir / 'users_config.py', work_dir / 'iter_4.pth')
    assert status == 0, said[-2000:]
    assert 'mIoU' in said

    status, said = run_forked(
        tmp_path / 'wrong.log', 'train.py', config, '--work-dir', work_dir, '--cfg-options',
        'runner_type=mm_tuning_plugin.MixAndMatchRunner', 'mix_and_match.max_iter=3',
    )  # fmt: skip
    assert status != 0
    check_mistake(said.strip().splitlines()[-1], 'mix_and_match.max_iter', remedy='max_iters')
