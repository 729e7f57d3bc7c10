"""The first steps of both stages, with all that is measured against their length kept whole."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, LOOPS
from mmengine.runner import IterBasedTrainLoop

from mm_tuning_plugin.cli.common.environment import installed_version
from mm_tuning_plugin.inspection.short_run import ShortRun

SEEN = []


@HOOKS.register_module()
class LateHook(Hook):
    """Begins late, as hooks of users do, and notes what it sees of a run until then."""

    def __init__(self, begin, by_epoch):
        self.begin, self.by_epoch = begin, by_epoch

    def before_train(self, runner):
        assert self.begin < (runner.max_epochs if self.by_epoch else runner.max_iters)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        SEEN.append(runner.optim_wrapper.get_lr()['lr'][0])

    def after_val_epoch(self, runner, metrics=None):
        SEEN.append('validated')

    def after_train(self, runner):
        SEEN.append('ended')


@LOOPS.register_module()
class LoopOfAUser(IterBasedTrainLoop):
    """A training loop that no other stands in for."""


def by_epoch(cfg):
    """6 epochs of 4 iterations."""
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    cfg.train_cfg = dict(
        type='EpochBasedTrainLoop', max_epochs=6, val_begin=3, val_interval=6,
        dynamic_intervals=[(5, 1)],
    )  # fmt: skip
    cfg.log_processor.by_epoch = cfg.default_hooks.logger.log_metric_by_epoch = True
    cfg.default_hooks.checkpoint = dict(
        type='CheckpointHook', interval=6, save_begin=3, save_best='mIoU'
    )
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.5, begin=0, end=3),
        dict(type='CosineAnnealingLR', begin=3, T_max=3),
    ]
    cfg.custom_hooks = [
        dict(type='EMAHook', begin_epoch=4),
        dict(type='EarlyStoppingHook', monitor='mIoU', patience=1),
        dict(type='LateHook', begin=5, by_epoch=True),
    ]
    return [0.005, 0.005]


def by_iteration(cfg):
    """2000 iterations of a loop of the user's own."""
    cfg.train_cfg = dict(
        type='LoopOfAUser', max_iters=2000, val_begin=1000, val_interval=2000,
        dynamic_intervals=[(1500, 100)],
    )  # fmt: skip
    cfg.default_hooks.checkpoint.update(interval=2000, save_begin=1000)
    if installed_version('onedl-mmengine'):  # the original cannot read what it is to publish
        cfg.default_hooks.checkpoint.published_keys = ['meta']
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.5, by_epoch=False, begin=0, end=1001),
        dict(type='PolyLR', by_epoch=False, begin=1500),
        dict(type='MultiStepLR', by_epoch=False, milestones=[1800]),
    ]
    cfg.custom_hooks = [
        dict(type='EMAHook', begin_iter=1500),
        dict(type='LateHook', begin=450, by_epoch=False),
    ]
    cfg.mix_and_match.keep_hooks = ['LateHook']  # of 500 iterations of stage one
    return [0.005, pytest.approx(0.005 + 0.005 / 1000)]


@pytest.mark.parametrize('written', [by_epoch, by_iteration])
def test_two_steps_are_the_first_two_of_the_whole_run(toy_cfg, written):
    rates = written(toy_cfg)
    toy_cfg.mix_and_match.update(max_iters=500, checkpoint_interval=100, retrieval_images=2)
    SEEN.clear()
    ShortRun.from_cfg(toy_cfg).train()
    stages = json.loads(Path(toy_cfg.work_dir, 'stages.json').read_text())
    assert [stage['iterations'] for stage in stages.values()] == [2, 2]
    assert 'mIoU' in stages['fine_tuning']['metrics']
    tuning = ['validated', 0.01, 0.01, 'validated', 'ended']
    assert [*tuning[: 5 * (written is by_iteration)], *rates, 'validated', 'ended'] == SEEN
    checkpoint = torch.load(f'{toy_cfg.work_dir}/iter_2.pth', weights_only=False)
    assert checkpoint['meta']['iter'] == 2 and checkpoint['optimizer']['state']
    assert Path(toy_cfg.work_dir, 'tuning', 'tuned_backbone.pth').is_file()
    assert bool(list(Path(toy_cfg.work_dir).glob('best_mIoU_*'))) == (written is by_epoch)


def test_a_run_that_is_shorter_ends_by_itself(toy_cfg):
    toy_cfg.mix_and_match = dict(enabled=False)
    toy_cfg.train_cfg.update(max_iters=1, val_interval=1)
    run = ShortRun.from_cfg(toy_cfg)
    run.train()
    assert run.stages['fine_tuning']['iterations'] == 1
