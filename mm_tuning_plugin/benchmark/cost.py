"""What a training step costs, and schedules stretched to cost as much as another."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch.utils.flop_counter import FlopCounterMode

from mm_tuning_plugin.datasets.wrappers import random_state

# Iterations at which something of a scheduler happens.
MOMENTS = ('begin', 'end', 'milestones', 'T_max', 'step_size', 'total_steps', 'periods')


def training_step_flops(cfg: Config) -> int:
    """Count the floating-point operations of forward and backward on one real batch.

    Args:
        cfg: The config of a stage: ``model`` and ``train_dataloader``.

    Returns:
        FLOPs of one training step, as `torch.utils.flop_counter` counts them (matrix products and
        convolutions; a multiply-add is two).
    """
    cfg = copy.deepcopy(cfg)
    loader_cfg = cfg['train_dataloader']
    loader_cfg.update(num_workers=0, persistent_workers=False)
    for name in ('prefetch_factor', 'timeout', 'multiprocessing_context'):  # of workers only
        loader_cfg.pop(name, None)
    scope = cfg.get('default_scope', 'mmseg')
    with random_state(0), DefaultScope.overwrite_default_scope(scope):
        batch = next(iter(Runner.build_dataloader(loader_cfg, seed=0)))
        model = MODELS.build(cfg['model']).train()
        data = model.data_preprocessor(batch, True)
        counter = FlopCounterMode(display=False)
        with counter:
            losses = model(**data, mode='loss')
            loss, _ = model.parse_losses(losses)
            loss.backward()
    return int(counter.get_total_flops())


def matched_iterations(tuning: Config, fine_tuning: Config) -> int:
    """Iterations of fine-tuning alone that cost as much as both stages together.

    Args:
        tuning: Config of stage one.
        fine_tuning: Config of stage two.

    Returns:
        Iterations, rounded up.
    """
    ratio = training_step_flops(tuning) / training_step_flops(fine_tuning)
    extra = tuning['train_cfg']['max_iters'] * ratio
    return int(fine_tuning['train_cfg']['max_iters'] + -(-extra // 1))


def stretch_schedule(cfg: Config, iterations: int) -> None:
    """Stretch a config's schedule, in place, so that its whole shape lasts `iterations`.

    Validation and checkpoints move to the end alone if they were at the end, else they stretch
    with the rest.
    """
    factor = iterations / cfg['train_cfg']['max_iters']

    def scale(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [scale(item) for item in value]
        return max(1, round(value * factor)) if (value or 0) > 0 else value  # -1: never

    schedulers = cfg.get('param_scheduler') or []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        if scheduler.get('by_epoch', True):
            continue
        for key in MOMENTS:
            if key in scheduler:
                scheduler[key] = scale(scheduler[key])
    cfg['train_cfg']['val_interval'] = scale(cfg['train_cfg'].get('val_interval', 1000))
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint')
    if checkpoint is not None:
        checkpoint['interval'] = scale(checkpoint.get('interval', -1))
    cfg['train_cfg']['max_iters'] = iterations
