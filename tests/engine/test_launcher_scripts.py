"""mmseg's own launcher scripts and its own train.py, unmodified: the commands of the docs, run.

Two ranks on the CPU each, through both stages to the end.
"""

import itertools
import shutil
from pathlib import Path

import cv2
import mmseg
import numpy as np
import pytest
from launching import documented, events, free_port, start, told, with_probe, without

from mm_tuning_plugin.datasets.samplers import SeededInfiniteSampler

TOOLS = Path(mmseg.__file__).parent / '.mim' / 'tools'
ITERS = 2
# Runs what follows its own options once a task, as Slurm does; says what it was asked for.
SRUN = """#!/bin/bash
echo "srun $*" > "$FAKE_SLURM/asked"
while [[ $1 == -* ]]; do
    case $1 in
        -p) shift ;;
        --ntasks=*) tasks=${1#*=} ;;
    esac
    shift
done
for ((task = 0; task < tasks; task++)); do
    SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NTASKS=$tasks SLURM_NODELIST='node[3-4]' "$@" &
    started+=($!)
done
for process in "${started[@]}"; do wait "$process" || failed=1; done
exit ${failed:-0}
"""
SCONTROL = """#!/bin/bash
[[ $* == 'show hostname node[3-4]' ]] && printf '127.0.0.1\\nnode4\\n'
"""


@pytest.fixture
def project(toy_cfg, tmp_path):
    """A short project; what turns it into a two-stage run is given on the command line."""
    cfg = with_probe(toy_cfg)
    without(cfg, 'val', 'test')
    cfg.mix_and_match.update(max_iters=ITERS, images_per_batch=2)
    cfg.train_cfg.max_iters = ITERS
    cfg.work_dir = str(tmp_path / 'run')
    cfg.env_cfg = dict(dist_cfg=dict(backend='nccl'))  # as every config of mmseg says
    return cfg


def launch(script, cfg, folder, words, **variables):
    """Run the command of the docs, in the folder that holds mmseg's ``tools``."""
    if not (TOOLS / script).is_file():
        pytest.skip(f'this distribution of mmseg carries no {script}')
    config = folder / 'config.py'
    cfg.dump(config)
    words = {**words, 'CONFIG.py': config, 'WORK_DIR': cfg.work_dir}
    command = documented(f'tools/{script}', words)
    variables = {'PROBE': folder, 'PROBE_WATCH': cfg.work_dir, **variables}
    done = start(command, cwd=TOOLS.parent, **variables)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def check_finished(cfg, folder):
    """Both ranks went through both stages with the same weights; the main rank alone wrote."""
    run, ranks = Path(cfg.work_dir), told(folder)
    assert (run / 'tuning' / 'tuned_backbone.pth').is_file()
    assert (run / f'iter_{ITERS}.pth').is_file()
    ends = [[tuple(event.items()) for event in events(ranks[rank], 'end')] for rank in (0, 1)]
    assert ends[0] == ends[1] and len(ends[0]) == 2
    assert not [event for event in ranks[1] if 'path' in event]


def test_slurm_train(project, tmp_path):
    commands = tmp_path / 'bin'
    commands.mkdir()
    for name, text in (('srun', SRUN), ('scontrol', SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    words = {'GPUS=8': 'GPUS=2', 'GPUS_PER_NODE=8': 'GPUS_PER_NODE=2'}
    variables = dict(MASTER_PORT=free_port(), FAKE_SLURM=tmp_path, first=commands)
    said = launch('slurm_train.sh', project, tmp_path, words, **variables)
    check_finished(project, tmp_path)
    asked = (tmp_path / 'asked').read_text()
    assert '--ntasks=2' in asked and 'python -u tools/train.py' in asked
    assert '--launcher=slurm' in asked
    assert said.count('2 CPU ranks') == 1


def spoil_labels(cfg, tmp_path):
    """Which label maps the two ranks read first; rank 1 finds nothing, then what rank 0 never sees.

    Returns:
        The name of the image without usable labels.
    """
    data = tmp_path / 'data'
    shutil.copytree(cfg.train_dataloader.dataset.data_root, data)
    cfg.train_dataloader.dataset.data_root = str(data)
    paths = sorted((data / 'ann' / 'train').iterdir())
    sampler = SeededInfiniteSampler(paths, seed=cfg.randomness.seed)
    read = [paths[index] for index in itertools.islice(sampler, 4)]  # two a step, in rank order
    ones_and_twos = np.repeat(np.uint8([1, 2]), 32)[:, None].repeat(64, 1)
    for path, labels in zip(read, (0, 255, 0, ones_and_twos)):
        cv2.imwrite(str(path), np.zeros((64, 64), np.uint8) + np.uint8(labels))
    return read[1].stem


def test_dist_train_and_what_only_the_other_rank_sees(project, tmp_path):
    image = spoil_labels(project, tmp_path)
    said = launch('dist_train.sh', project, tmp_path, {'.py 8': '.py 2'}, PORT=free_port())
    check_finished(project, tmp_path)
    assert f'{image}.jpg: ' in said
    assert 'iteration 1: 1 of 2 ranks' in said and '1 of 2 batches' in said
    names = project.train_dataloader.dataset.metainfo.classes
    assert f': {", ".join(names[3:])}\n' in said
