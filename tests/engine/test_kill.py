"""Killed at any moment and resumed, a run ends with the very weights of an uninterrupted one.

``MM_TUNING_KILLS=30`` tries that many moments of each kind instead of one or two.
"""

import json
import os
import random
import signal
import time

import killing
import pytest

from mm_tuning_plugin.engine.resume.checkpoint_files import damage

KILLS = int(os.environ.get('MM_TUNING_KILLS', '2'))


@pytest.fixture(params=[0, 2], ids=['no worker', '2 workers'])
def cfg(toy_cfg, request):
    """Everything random that a run can have: flips, colours, patches, dropout; and validations."""
    toy_cfg.mix_and_match.update(max_iters=5, nodes='patches', size_range=(16, 32), patch_size=32)
    toy_cfg.train_cfg.update(max_iters=5, val_interval=2)
    toy_cfg.train_dataloader.num_workers = request.param
    for part in ('val_dataloader', 'test_dataloader'):
        toy_cfg[part].update(num_workers=request.param, persistent_workers=request.param > 0)
    pipeline = toy_cfg.train_dataloader.dataset.pipeline
    pipeline.insert(-1, dict(type='PhotoMetricDistortion'))
    toy_cfg.model.decode_head.dropout_ratio = 0.5
    return toy_cfg


@pytest.fixture(scope='module')
def wholes():
    """Uninterrupted runs by the number of workers, each made once."""
    return {}


@pytest.fixture
def whole(cfg, tmp_path, wholes):
    """An uninterrupted run: (its results, its events, its seconds)."""
    workers = cfg.train_dataloader.num_workers
    if workers not in wholes:
        wholes[workers] = uninterrupted(cfg, tmp_path)
    return wholes[workers]


def uninterrupted(cfg, tmp_path):
    run, counted = killing.in_folder(cfg, tmp_path / 'whole'), tmp_path / 'events.json'

    def count():
        events = killing.at_event(-1, killing.kill)
        leave = os._exit
        os._exit = lambda status: (counted.write_text(json.dumps(events)), leave(status))

    begun = time.time()
    status, log = killing.forked(run, count)
    assert status == 0, log
    return killing.results(run), json.loads(counted.read_text()), time.time() - begun


def resumed(cfg, folder, prepare=lambda: None, after=None):
    return killing.forked(killing.in_folder(cfg, folder, resume=True), prepare, after)


def test_killed_while_something_happens(cfg, tmp_path, whole):
    expected, events, _ = whole
    draws = random.Random(len(events))
    written = [i for i, event in enumerate(events, 1) if event == 'half a checkpoint']
    others = draws.sample(range(1, len(events)), KILLS - 1)
    for number in [draws.choice(written), *others]:
        folder = tmp_path / f'killed {number}'
        status, log = killing.forked(
            killing.in_folder(cfg, folder), lambda n=number: killing.at_event(n, killing.kill)
        )
        assert status == -signal.SIGKILL, log
        assert not [path for path in folder.rglob('*.pth') if damage(path)], 'whole or not there'
        status, log = resumed(cfg, folder)
        assert status == 0, log
        found = killing.results(killing.in_folder(cfg, folder))
        assert not killing.differing(found, expected), f'killed at {number} of {len(events)}'
        assert not list(folder.rglob('*.part'))


def test_killed_at_any_time_and_killed_again(cfg, tmp_path, whole):
    expected, _, seconds = whole
    draws = random.Random(2)
    for number in range(KILLS // 2):
        folder, moments = tmp_path / f'killed {number}', [seconds * draws.random() for _ in '12']
        killing.forked(killing.in_folder(cfg, folder), after=moments[0])
        resumed(cfg, folder, after=moments[1])
        status, log = resumed(cfg, folder)
        assert status == 0, log
        found = killing.results(killing.in_folder(cfg, folder))
        assert not killing.differing(found, expected), f'killed after {moments} of {seconds} s'
