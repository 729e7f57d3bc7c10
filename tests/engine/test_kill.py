"""Killed at any moment and resumed, a run ends with the very weights of an uninterrupted one."""

import copy
import functools
import json
import os
import random
import signal

import pytest

import killing

KILLS = int(os.environ.get('MM_TUNING_KILLS', '3'))


@pytest.fixture(params=[0, 2], ids=['no worker', '2 workers'])
def cfg(toy_cfg, request):
    toy_cfg.mix_and_match.update(max_iters=5, nodes='patches', size_range=(16, 32), patch_size=32)
    toy_cfg.train_cfg.update(max_iters=5, val_interval=2)
    toy_cfg.train_dataloader.num_workers = request.param
    pipeline = toy_cfg.train_dataloader.dataset.pipeline
    pipeline.insert(-1, dict(type='PhotoMetricDistortion'))
    toy_cfg.model.decode_head.dropout_ratio = 0.5
    return toy_cfg


def in_folder(cfg, folder, resume=False):
    cfg = copy.deepcopy(cfg)
    cfg.work_dir, cfg.resume = str(folder), resume
    return cfg


def test_killed_at_events(cfg, tmp_path):
    seen = tmp_path / 'events.json'

    def count():
        events = killing.at_event(-1, killing.kill)
        plain = os._exit
        os._exit = lambda status: (seen.write_text(json.dumps(events)), plain(status))

    status, log = killing.forked(in_folder(cfg, tmp_path / 'whole'), count)
    assert status == 0, log
    expected = killing.results(in_folder(cfg, tmp_path / 'whole'))
    total = len(json.loads(seen.read_text()))
    draws = random.Random(5)
    for number in draws.sample(range(1, total), KILLS):
        run = functools.partial(in_folder, cfg, tmp_path / f'killed {number}')
        status, log = killing.forked(run(), lambda n=number: killing.at_event(n, killing.kill))
        assert status == -signal.SIGKILL, log
        status, log = killing.forked(run(resume=True))
        assert status == 0, log
        assert not killing.differing(killing.results(run()), expected), f'{number} of {total}'
