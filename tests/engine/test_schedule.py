"""The learning rate of stage one, iteration by iteration."""

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS

from mm_tuning_plugin.engine import derive_tuning_config

LR = 0.4


def rates(toy_cfg, optimizer, iterations):
    """The rate of each iteration, from the schedulers of the derived config."""
    toy_cfg.optim_wrapper.optimizer = dict(type=optimizer, lr=LR)
    toy_cfg.mix_and_match.update(max_iters=iterations)
    derived = derive_tuning_config(toy_cfg)
    given = derived.optim_wrapper.optimizer
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=given.lr)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(config, optimizer=optimizer))
        for config in derived.param_scheduler
    ]
    found = []
    for _ in range(iterations):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return found


def test_adamw_warms_up_over_a_tenth_and_falls_linearly_to_zero(toy_cfg):
    found = rates(toy_cfg, 'AdamW', 100)
    assert found[0] == pytest.approx(LR / 1000)
    rise = torch.tensor(found[:10]).diff()
    assert torch.allclose(rise, rise.mean(), rtol=1e-3) and rise.mean() > 0
    fall = torch.tensor(found[10:]).diff()
    assert found[10] == pytest.approx(LR)
    assert torch.allclose(fall, fall.mean(), rtol=1e-3)
    assert found[-1] == pytest.approx(0, abs=1e-6)


def test_the_warm_up_takes_1500_iterations_at_most(toy_cfg):
    toy_cfg.optim_wrapper.optimizer = dict(type='AdamW', lr=LR)
    toy_cfg.mix_and_match.update(max_iters=80000)
    warm_up, decay = derive_tuning_config(toy_cfg).param_scheduler
    assert (warm_up.begin, warm_up.end) == (0, 1500)
    assert (decay.begin, decay.end) == (1500, 80000)


def test_sgd_takes_a_tenth_of_the_rate_after_three_quarters(toy_cfg):
    found = rates(toy_cfg, 'SGD', 40)
    assert found == pytest.approx([0.01] * 30 + [0.001] * 10)
