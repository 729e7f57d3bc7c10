"""A schedule stretched to another length keeps its shape."""

import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from mm_tuning_plugin.benchmark.design.stretching import stretch_schedule


def config(*schedulers, max_iters=100, **train_cfg):
    return Config(
        {
            'train_cfg': {'max_iters': max_iters, **train_cfg},
            'param_scheduler': [{'by_epoch': False, **scheduler} for scheduler in schedulers],
            'default_hooks': {'checkpoint': {'type': 'CheckpointHook', 'interval': 50}},
        }
    )


def learning_rates(cfg):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedulers = [
        PARAM_SCHEDULERS.build(options, default_args={'optimizer': optimizer})
        for options in copy.deepcopy(cfg.param_scheduler)
    ]
    rates = []
    for _ in range(cfg.train_cfg.max_iters):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return np.array(rates)


@pytest.mark.parametrize(
    'schedulers',
    [
        [{'type': 'PolyLR', 'power': 0.9, 'eta_min': 1e-4, 'begin': 0, 'end': 100}],
        [{'type': 'MultiStepLR', 'milestones': [25, 50, 90], 'gamma': 0.1}],
        [{'type': 'StepLR', 'step_size': 20, 'gamma': 0.5}],
        [{'type': 'ExponentialLR', 'gamma': 0.96}],
        [{'type': 'CosineAnnealingLR', 'T_max': 100, 'eta_min': 0.0}],
        [{'type': 'CosineRestartLR', 'periods': [40, 60], 'restart_weights': [1, 0.5],
          'eta_min': 0.01}],
        [{'type': 'OneCycleLR', 'eta_max': 2.0, 'total_steps': 100}],
        [{'type': 'LinearLR', 'start_factor': 0.001, 'begin': 0, 'end': 20},
         {'type': 'PolyLR', 'power': 1.0, 'begin': 20, 'end': 100}],
    ],
    ids=lambda value: '+'.join(s['type'] for s in value),
)  # fmt: skip
@pytest.mark.parametrize('factor', [1, 3])
def test_the_whole_curve_is_stretched(schedulers, factor):
    cfg = config(*schedulers)
    before = learning_rates(cfg)
    stretch_schedule(cfg, 100 * factor)
    after = learning_rates(cfg)
    assert len(after) == 100 * factor
    # a step of the old schedule is `factor` of the new one; it may fall up to one old step aside
    at = after[::factor]
    low = np.minimum(before, np.minimum(np.roll(before, 1), np.roll(before, -1)))
    high = np.maximum(before, np.maximum(np.roll(before, 1), np.roll(before, -1)))
    inside = (low - 1e-9 <= at) & (at <= high + 1e-9)
    assert inside[1:-1].all() and before.std() > 0.1


def test_moments_are_rounded_and_zero_stays():
    cfg = config(
        {'type': 'LinearLR', 'begin': 0, 'end': 10},
        {'type': 'PolyLR', 'begin': 10, 'end': 100},
        {'type': 'MultiStepLR', 'milestones': (1, 75)},
        {'type': 'CosineAnnealingLR', 'T_max': None},
        val_interval=100,
    )
    stretch_schedule(cfg, 133)
    one, two, three, four = cfg.param_scheduler
    assert (one.begin, one.end, two.begin, two.end) == (0, 13, 13, 133)
    assert list(three.milestones) == [1, 100] and four.T_max is None
    assert cfg.train_cfg.max_iters == 133
    assert cfg.train_cfg.val_interval == 133, 'at the end it stays at the end'
    assert cfg.default_hooks.checkpoint.interval == 66


def test_schedules_by_epoch_are_left_alone():
    cfg = config({'type': 'StepLR', 'step_size': 7, 'by_epoch': True})
    stretch_schedule(cfg, 200)
    assert cfg.param_scheduler[0].step_size == 7


@pytest.mark.parametrize('checkpoint', [{'type': 'CheckpointHook'},
                                        {'type': 'CheckpointHook', 'interval': -1}])  # fmt: skip
def test_a_checkpoint_hook_that_never_saves_goes_on_never_saving(checkpoint):
    cfg = config()
    cfg.default_hooks.checkpoint = checkpoint
    stretch_schedule(cfg, 300)
    assert cfg.default_hooks.checkpoint.get('interval', -1) == -1


@pytest.mark.parametrize('schedulers', [None, [], {'type': 'PolyLR', 'end': 50, 'by_epoch': False}])
def test_configs_without_much_of_a_schedule(schedulers):
    cfg = Config({'train_cfg': {'max_iters': 50}, 'param_scheduler': schedulers})
    stretch_schedule(cfg, 100)
    assert cfg.train_cfg.max_iters == 100
    assert cfg.train_cfg.val_interval == 2000, "twice mmengine's default"
    if schedulers:
        assert cfg.param_scheduler.end == 100


def test_schedulers_of_several_optimizers_and_those_that_become_iterations():
    cfg = config()
    poly = {'type': 'PolyLR', 'end': 100, 'by_epoch': False}
    cfg.param_scheduler = {
        'head': [poly, {'type': 'PolyLR', 'end': 10**9, 'by_epoch': False}],
        'backbone': {'type': 'StepLR', 'step_size': 4, 'convert_to_iter_based': True},
    }
    stretch_schedule(cfg, 300)
    head, backbone = cfg.param_scheduler.head, cfg.param_scheduler.backbone
    assert [part.end for part in head] == [300, 10**9] and backbone.step_size == 12


def test_moments_of_the_loop_and_of_hooks():
    cfg = config(val_begin=50, dynamic_intervals=[(80, 10)], val_interval=20)
    cfg.default_hooks.checkpoint.update(save_begin=10, save_last=True)
    cfg.custom_hooks = [
        {'type': 'EMAHook', 'begin_iter': 60, 'momentum': 0.1, 'update_buffers': True},
        {'type': 'EMAHook', 'begin_epoch': 2},
        {'type': 'Other', 'begin': 5, 'by_epoch': True},
        {'type': 'Other', 'begin': 5, 'end': -1, 'milestones': [7, 9]},
    ]
    stretch_schedule(cfg, 300)
    assert cfg.train_cfg.to_dict() == {
        'max_iters': 300, 'val_begin': 150, 'dynamic_intervals': [[240, 30]], 'val_interval': 60,
    }  # fmt: skip
    assert cfg.default_hooks.checkpoint.to_dict() == {
        'type': 'CheckpointHook', 'interval': 150, 'save_begin': 30, 'save_last': True,
    }  # fmt: skip
    assert [hook.to_dict() for hook in cfg.custom_hooks] == [
        {'type': 'EMAHook', 'begin_iter': 180, 'momentum': 0.1, 'update_buffers': True},
        {'type': 'EMAHook', 'begin_epoch': 2},
        {'type': 'Other', 'begin': 5, 'by_epoch': True},
        {'type': 'Other', 'begin': 15, 'end': -1, 'milestones': [21, 27]},
    ]
