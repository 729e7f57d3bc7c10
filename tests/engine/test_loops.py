"""Both of mmengine's loops, with samplers that end and workers that stay, taken up to the bit."""

import os
import signal

import killing
import pytest
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from mm_tuning_plugin.engine.resume.loops import (
    ResumableEpochLoop,
    ResumableIterLoop,
    with_resumable_loop,
)
from mm_tuning_plugin.engine.resume.runner import ResumableRunner

LOOPS = {
    'epochs': dict(type='EpochBasedTrainLoop', max_epochs=3, val_interval=1),
    'iterations': dict(type='IterBasedTrainLoop', max_iters=6, val_interval=4),
}
WORKERS = {
    'no worker': dict(num_workers=0, persistent_workers=False),
    'new workers': dict(num_workers=2, persistent_workers=False),
    'workers that stay': dict(num_workers=2, persistent_workers=True),
}


@pytest.fixture(params=LOOPS)
def cfg(toy_cfg, request):
    """Fine-tuning alone, 4 batches a pass of a sampler that ends; dropout and colours."""
    toy_cfg.mix_and_match = dict(enabled=False)
    toy_cfg.train_cfg = dict(LOOPS[request.param])
    toy_cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    by_epoch = request.param == 'epochs'
    toy_cfg.default_hooks.checkpoint.update(by_epoch=by_epoch, interval=1 if by_epoch else 3)
    toy_cfg.default_hooks.logger.log_metric_by_epoch = by_epoch
    toy_cfg.log_processor.by_epoch = by_epoch
    toy_cfg.train_dataloader.dataset.pipeline.insert(-1, dict(type='PhotoMetricDistortion'))
    toy_cfg.model.decode_head.dropout_ratio = 0.5
    return toy_cfg


def at_iteration(number, act):
    """Act as iteration `number` begins."""
    plain = Runner.call_hook

    def call_hook(self, name, **kwargs):
        if name == 'before_train_iter' and self.iter == number:
            act()
        plain(self, name, **kwargs)

    Runner.call_hook = call_hook


def ask():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize('workers', WORKERS)
def test_killed_between_passes_and_stopped_within_one(cfg, tmp_path, workers, monkeypatch):
    monkeypatch.setattr('time.sleep', lambda seconds: None)  # mmengine's, between two passes
    cfg.train_dataloader.update(WORKERS[workers])
    whole = killing.in_folder(cfg, tmp_path / 'whole')
    status, log = killing.forked(whole)
    assert status == 0, log
    expected = killing.results(whole)
    # after the first checkpoint (one batch beyond a whole pass, or within the first pass)
    status, log = killing.forked(cfg, lambda: at_iteration(5, killing.kill))
    assert status == -signal.SIGKILL, log
    cfg.resume = True
    # then a signal in the middle of a pass
    status, log = killing.forked(cfg, lambda: at_iteration(5, ask))
    assert status == 128 + signal.SIGTERM, log
    status, log = killing.forked(cfg)
    assert status == 0, log
    assert not killing.differing(killing.results(cfg), expected)


def test_uninterrupted_our_loop_is_mmengines(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    cfg.train_dataloader.update(WORKERS['new workers'])
    found = []
    for kind in (Runner, ResumableRunner):
        run = killing.in_folder(cfg, tmp_path / kind.__name__)
        kind.from_cfg(run).train()
        found.append(killing.results(run))
    assert not killing.differing(*found)


def test_mmengines_loops_are_replaced_and_no_others():
    for kind in ('IterBasedTrainLoop', 'mmengine.IterBasedTrainLoop', IterBasedTrainLoop):
        replaced = with_resumable_loop(dict(type=kind, max_iters=3))
        assert replaced == dict(type=ResumableIterLoop, max_iters=3)
    assert with_resumable_loop(dict(by_epoch=True, max_epochs=1)) == dict(
        type=ResumableEpochLoop, max_epochs=1
    )
    assert with_resumable_loop(dict(type=EpochBasedTrainLoop))['type'] is ResumableEpochLoop
    for other in (dict(type='MyLoop'), dict(type=ResumableIterLoop), object()):
        assert with_resumable_loop(other) == other


def test_workers_of_the_validation_that_stay_draw_their_seed_but_once(toy_cfg, tmp_path):
    """Validated at 2, kept at 3: the resumed process validates for the first time at 4."""
    toy_cfg.mix_and_match = dict(enabled=False)
    toy_cfg.train_cfg.update(max_iters=6, val_interval=2)
    toy_cfg.default_hooks.checkpoint.interval = 3
    toy_cfg.model.decode_head.dropout_ratio = 0.5
    toy_cfg.val_dataloader.update(num_workers=1, persistent_workers=True)
    whole = killing.in_folder(toy_cfg, tmp_path / 'whole')
    assert killing.forked(whole)[0] == 0
    assert killing.forked(toy_cfg, lambda: at_iteration(3, killing.kill))[0] < 0
    toy_cfg.resume = True
    assert killing.forked(toy_cfg)[0] == 0
    assert not killing.differing(killing.results(toy_cfg), killing.results(whole))
