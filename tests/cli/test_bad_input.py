"""A user's mistake: one line that names the thing, exit status 2, no traceback.

The commands run in this process, as their entry points do, so that many mistakes fit into a
minute; one of each kind of ending also runs as a process.
"""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from commands import fails, works
from mmengine.config import Config

from mm_tuning_plugin.cli.run import run

ROOT = Path(__file__).parents[2]


def first(folder):
    return sorted(folder.iterdir())[0]


def test_no_such_config(capfd):
    assert 'nowhere.py: no such file' in fails(capfd, 'nowhere.py')


def test_a_config_that_is_none(capfd, tmp_path):
    (tmp_path / 'bad.py').write_text('a = (')
    assert 'bad.py: cannot be read as a config' in fails(capfd, tmp_path / 'bad.py')
    (tmp_path / 'empty.py').write_text('')
    assert 'model: None found' in fails(capfd, tmp_path / 'empty.py')
    (tmp_path / 'config.txt').write_text('hello')
    assert 'cannot be read as a config' in fails(capfd, tmp_path / 'config.txt')


def test_a_config_that_imports_what_is_not_installed(capfd, tmp_path):
    (tmp_path / 'a.py').write_text("custom_imports = dict(imports='mmnothing.models')\n")
    last = fails(capfd, tmp_path / 'a.py')
    assert last.endswith(
        'a.py: it imports mmnothing, which is not installed; expected it beside mmseg: '
        'pip install mmnothing'
    )


def test_a_head_of_a_package_that_is_not_installed_is_told_before_tuning(capfd, project):
    config, _ = project
    with open(config, 'a') as file:
        file.write("\nmodel['decode_head']['loss_decode'] = [dict(type='mmnothing.DiceLoss')]\n")
    last = fails(capfd, config)
    assert 'model.decode_head.loss_decode.0: a type of mmnothing found, which is not' in last
    assert not (config.parent / 'work' / 'tuning').exists()


def test_data_root_missing(capfd, project):
    config, data = project
    shutil.rmtree(data)
    line = fails(capfd, config)
    assert str(data) in line and 'expected an existing folder' in line


def test_data_root_empty(capfd, project):
    config, data = project
    shutil.rmtree(data)
    data.mkdir()
    assert str(data) in fails(capfd, config)
    (data / 'img' / 'train').mkdir(parents=True)
    (data / 'ann' / 'train').mkdir(parents=True)
    assert str(data) in fails(capfd, config)


def test_a_label_map_is_missing(capfd, project):
    config, data = project
    path = first(data / 'ann' / 'train')
    path.unlink()
    assert f'{path}: no such file' in fails(capfd, config)


def test_a_label_map_of_another_size(capfd, project):
    config, data = project
    path = first(data / 'ann' / 'train')
    cv2.imwrite(str(path), np.zeros((32, 64), np.uint8))
    line = fails(capfd, config)
    assert f'{path}: label map of 64 x 32' in line and 'expected 64 x 64' in line


def test_label_values_beyond_the_classes(capfd, project):
    config, data = project
    path = first(data / 'ann' / 'train')
    cv2.imwrite(str(path), np.full((64, 64), 17, np.uint8))
    line = fails(capfd, config)
    assert f'{path}: label values 17 found, expected 0 to 7' in line


def test_all_images_wholly_ignored(capfd, project):
    config, data = project
    for path in (data / 'ann' / 'train').iterdir():
        cv2.imwrite(str(path), np.full((64, 64), 255, np.uint8))
    assert 'all 8 images are wholly ignored' in fails(capfd, config)


@pytest.mark.parametrize('content', [b'', b'not an image', None])
@pytest.mark.parametrize('kind', ['img', 'ann'])
def test_an_unreadable_image_is_named(capfd, project, content, kind):
    config, data = project
    path = first(data / kind / 'train')
    path.write_bytes(path.read_bytes()[:20] if content is None else content)
    line = fails(capfd, config)
    assert first(data / 'img' / 'train').name in line and 'cannot be read' in line


@pytest.mark.parametrize('arm', [[], ['--no-tuning']])
def test_checkpoints_that_are_none(capfd, project, tmp_path, arm):
    config, _ = project
    line = fails(capfd, config, '--ssl-checkpoint', tmp_path / 'none.pth', *arm)
    assert 'none.pth' in line and 'no such file' in line
    (tmp_path / 'text.pth').write_text('hello')
    assert 'text.pth' in fails(capfd, config, '--ssl-checkpoint', tmp_path / 'text.pth', *arm)
    (tmp_path / 'void.pth').write_bytes(b'')
    assert 'void.pth' in fails(capfd, config, '--ssl-checkpoint', tmp_path / 'void.pth', *arm)
    torch.save({'state_dict': {'a.b': torch.ones(3)}}, tmp_path / 'other.pth')
    assert 'other.pth' in fails(capfd, config, '--ssl-checkpoint', tmp_path / 'other.pth', *arm)


@pytest.mark.parametrize(
    ('option', 'line'),
    [
        ('nodes_per_image=0', 'mix_and_match.nodes_per_image: 0 found, expected an integer'),
        ('max_iters=0', 'mix_and_match.max_iters: 0 found, expected an integer from 1'),
        ('size_range=256,64', 'mix_and_match.size_range: [256, 64] found'),
        (
            'max_iter=5',
            'mix_and_match.max_iter: no such option; the nearest known one is max_iters',
        ),
        ('recipe=best', "mix_and_match.recipe: 'best' found"),
        ('background_index=8', 'mix_and_match.background_index: 8 found, expected less than 8'),
        ('tuned_backbone=none.pth', 'none.pth: no such file'),
    ],
)
def test_options_that_are_wrong(capfd, project, option, line):
    config, _ = project
    assert line in fails(capfd, config, '--cfg-options', f'mix_and_match.{option}')


@pytest.mark.parametrize('arm', [[], ['--no-tuning']])
def test_parts_of_the_model_that_do_not_exist(capfd, project, arm):
    config, _ = project
    line = fails(capfd, config, *arm, '--cfg-options', 'model.backbone.type=ResNot')
    assert "model.backbone: type 'ResNot' found" in line
    line = fails(capfd, config, *arm, '--cfg-options', 'model.backbone.depht=18')
    assert 'model.backbone: ResNet' in line and 'depht' in line


def test_a_work_dir_that_is_a_file(capfd, project, tmp_path):
    (tmp_path / 'file').write_text('')
    assert 'work_dir' in fails(capfd, project[0], '--work-dir', tmp_path / 'file')


@pytest.mark.parametrize('command', ['benchmark', 'demo'])
def test_results_that_cannot_be_written(capfd, tmp_path, command):
    import importlib

    entry_of = importlib.import_module(f'mm_tuning_plugin.cli.{command}').entry
    (tmp_path / 'file').write_text('')
    plan = [str(ROOT / 'configs' / 'benchmarks' / 'camvid_cpu.py')]
    argv = [*(plan if command == 'benchmark' else []), '--work-dir', str(tmp_path / 'file' / 'x')]
    assert entry_of(argv) == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('error: --work-dir: ')


def test_a_launcher_that_did_not_launch(capfd, project, monkeypatch):
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)
    line = fails(capfd, project[0], '--launcher', 'pytorch')
    assert "launcher: 'pytorch' found" in line


def test_cfg_options_that_lead_nowhere(capfd, project):
    config, _ = project
    assert 'expected KEY=VALUE' in fails(capfd, config, '--cfg-options', 'abc')
    assert '--cfg-options' in fails(capfd, config, '--cfg-options', 'log_level.x.y=3')


def test_load_from_is_refused(capfd, project):
    config, _ = project
    line = fails(capfd, config, '--cfg-options', 'load_from=x.pth')
    assert 'load_from' in line and 'mix_and_match.checkpoint' in line


def test_amp_without_an_accelerator(capfd, project):
    if torch.cuda.is_available():
        pytest.skip('there is an accelerator')
    assert '--amp: no accelerator found' in fails(capfd, project[0], '--amp')


def test_a_work_dir_with_another_fingerprint(capfd, project, tmp_path):
    config, _ = project
    run = [config, '--work-dir', tmp_path / 'run']
    works(capfd, *run)
    changed = ['--cfg-options', 'mix_and_match.max_iters=2']
    line = fails(capfd, *run, *changed)
    assert 'max_iters was 1 and is now 2' in line and '--overwrite' in line
    works(capfd, *run, '--overwrite', *changed)


def test_warned_of_but_not_stopped(capfd, project):
    """An image without usable labels, a class that never occurs, a batch without triplets."""
    config, data = project
    paths = sorted((data / 'ann' / 'train').iterdir())
    for path in paths[:-1]:
        cv2.imwrite(str(path), np.full((64, 64), 255, np.uint8))
    cv2.imwrite(str(paths[-1]), np.zeros((64, 64), np.uint8))
    said = works(
        capfd, config, '--cfg-options', 'mix_and_match.max_iters=2',
        'mix_and_match.images_per_batch=8',
    )  # fmt: skip
    assert 'an image without usable labels' in said
    assert 'a batch without triplets: 1 classes among its nodes' in said
    assert '2 of 2 batches had no triplets' in said
    assert 'never occurred among the nodes of tuning: ground, field' in said


def test_a_worker_says_the_same_line(capfd, project, monkeypatch):
    """An image that turns bad after the check: the line comes out of the loading process."""
    config, data = project
    path = first(data / 'img' / 'train')
    from mm_tuning_plugin.engine import runner

    plain = runner.check_data

    def check_then_spoil(*args, **kwargs):
        items = plain(*args, **kwargs)
        path.write_bytes(b'gone')
        return items

    monkeypatch.setattr(runner, 'check_data', check_then_spoil)
    line = fails(
        capfd, config, '--cfg-options', 'train_dataloader.num_workers=1',
        'mix_and_match.images_per_batch=8',
    )  # fmt: skip
    assert f'{path}: the image or its label map cannot be read' in line


def run_process(*argv, **env):
    return subprocess.run(
        [sys.executable, *map(str, argv)],
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1', **env},
        check=False,
    )


def test_as_a_process(project, forked_processes):
    """By an interpreter of its own: tests/test_mim_layout.py."""
    config, _ = project
    done = run_process(
        ROOT / 'tools' / 'train.py', config, '--cfg-options', 'mix_and_match.max_iters=0'
    )
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith('error: mix_and_match.max_iters: 0')


def test_no_distribution_installed(tmp_path, project):
    """An interpreter that finds no mmengine, mmcv or mmseg."""
    hide = tmp_path / 'sitecustomize.py'
    hide.write_text(
        "import sys\nfor name in ('mmengine', 'mmcv', 'mmseg'):\n    sys.modules[name] = None\n"
    )
    done = run_process(ROOT / 'tools' / 'train.py', project[0], PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    assert 'mmengine' in done.stderr.strip().splitlines()[-1]


def test_help_needs_no_stack(tmp_path):
    hide = tmp_path / 'sitecustomize.py'
    hide.write_text("import sys\nsys.modules['torch'] = sys.modules['mmengine'] = None\n")
    done = run_process(ROOT / 'tools' / 'train.py', '--help', PYTHONPATH=str(tmp_path))
    assert done.returncode == 0 and '--ssl-checkpoint' in done.stdout


def test_under_mmsegs_own_script_the_line_is_the_exceptions_message(project):
    import mmengine
    from mmseg.registry import RUNNERS

    config, _ = project
    cfg = mmengine.Config.fromfile(config)
    cfg.runner_type = 'mm_tuning_plugin.MixAndMatchRunner'
    cfg.mix_and_match.max_iters = 0
    with pytest.raises(ValueError, match=r'mix_and_match\.max_iters: 0 found') as info:
        RUNNERS.build(copy.deepcopy(cfg))
    assert '\n' not in str(info.value)


def test_nothing_to_tune(capfd, project):
    line = fails(capfd, project[0], '--cfg-options', 'model.backbone.frozen_stages=4')
    assert 'parameters of ResNet frozen found (frozen_stages=4), expected some that train' in line


def test_chunks_too_small_for_batch_norm(capfd, project):
    options = ('nodes=patches', 'size_range=[16,32]', 'patch_size=32', 'chunk_size=1')
    given = [f'mix_and_match.{option}' for option in options]
    line = fails(capfd, project[0], '--cfg-options', *given)
    assert 'mix_and_match.chunk_size: 1 found, expected more: a chunk of 1 image of 32 x 32' in line


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(param_scheduler=[dict(type='NoLR')]), "param_scheduler.0: type 'NoLR' found"),
        (dict(val_evaluator=dict(type='NoMetric')), "val_evaluator: type 'NoMetric' found"),
        (dict(train_cfg=dict(type='NoLoop', max_iters=1)), "train_cfg: type 'NoLoop' found"),
        (dict(optim_wrapper=dict(optimizer=dict(type='NoSGD'))), "type 'NoSGD' found"),
        (dict(train_dataloader=dict(sampler=dict(type='NoSampler'))), "type 'NoSampler' found"),
        (
            dict(train_dataloader=dict(persistent_workers=True)),
            'persistent_workers: True found with num_workers=0',
        ),
        (
            dict(val_dataloader=dict(dataset=dict(data_root='/nowhere'))),
            "data_root: '/nowhere' found, expected an existing folder",
        ),
        (
            dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, speed=3))),
            'optim_wrapper: ',
        ),
        (dict(custom_hooks=[dict(type='EMAHok')]), "custom_hooks.0: type 'EMAHok' found"),
    ],
)
def test_what_mmengine_builds_late_is_told_before_anything_is_tuned(capfd, project, change, words):
    path, _ = project
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(change)
    for name in ('train_cfg', 'val_evaluator'):
        if name in change:
            cfg[name] = change[name]
    cfg.mix_and_match.retrieval_images = 2
    cfg.dump(path)
    assert words in fails(capfd, path)
    assert not list(Path(cfg.work_dir).rglob('*.pth'))


def test_an_early_ctrl_c_is_one_line(capfd):
    def main(argv):
        raise KeyboardInterrupt

    assert run(main) == 130
    assert capfd.readouterr().err == 'interrupted by SIGINT: what was finished is kept\n'


def test_options_that_are_no_dict(capfd, project):
    config, _ = project
    assert 'mix_and_match: 3 found' in fails(capfd, config, '--cfg-options', 'mix_and_match=3')


@pytest.mark.parametrize('arm', [[], ['--no-tuning']])
@pytest.mark.parametrize('spoilt', ['missing', 'of another size', 'unreadable'])
def test_validation_data_are_looked_at_before_anything_is_trained(capfd, project, spoilt, arm):
    config, data = project
    path = first(data / 'ann' / 'val')
    if spoilt == 'missing':
        path.unlink()
    elif spoilt == 'unreadable':
        path.write_bytes(b'hello')
    else:
        cv2.imwrite(str(path), np.zeros((32, 64), np.uint8))
    assert str(path.stem) in fails(capfd, config, *arm)
    assert not list(Path(Config.fromfile(config).work_dir).rglob('*.pth'))


def test_a_work_dir_without_a_name(capfd, project):
    assert "--work-dir: '' found" in fails(capfd, project[0], '--work-dir', '')


def test_a_learning_rate_that_diverges_is_one_line(capfd, project):
    config, _ = project
    options = ['mix_and_match.lr=1e30', 'mix_and_match.max_iters=5']
    last = fails(capfd, config, '--cfg-options', *options)
    assert 'loss' in last and 'lower mix_and_match.lr' in last
    assert not list((config.parent / 'work').rglob('tuned_backbone.pth'))
