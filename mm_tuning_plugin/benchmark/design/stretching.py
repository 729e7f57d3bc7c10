"""Stretch a schedule to another length, with all intervals and milestones that depend on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from mmengine.config import Config

from mm_tuning_plugin.config_types import base_type

# Arguments of schedulers that are iterations or numbers of iterations.
MOMENTS = ('begin', 'end', 'milestones', 'T_max', 'step_size', 'total_steps', 'periods')
# Such arguments of hooks: those of mmengine and mmseg, and common names elsewhere.
OF_HOOKS = (
    'begin', 'end', 'begin_iter', 'end_iter', 'start_iter', 'stop_iter', 'save_begin',
    'milestones', 'warmup_iters', 'num_last_iters',
)  # fmt: skip
# Schedulers whose ``gamma`` is a factor per iteration.
BY_ITERATION = ('ExponentialLR', 'ExponentialMomentum', 'ExponentialParamScheduler')
NEVER = 10**9  # mmengine's value of ``end`` for a scheduler without an end


def stretch_schedule(cfg: Config, iterations: int) -> None:
    """Stretch a config's schedule, in place, so that it lasts `iterations` with the same shape.

    The intervals of validation and checkpoints are stretched too. Values in epochs stay as they
    are, as more iterations are more epochs; schedulers that mmengine converts from epochs to
    iterations are stretched.
    """
    loop = cfg['train_cfg']
    factor = iterations / loop['max_iters']

    def scale(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [scale(item) for item in value]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return max(1, round(value * factor)) if number and 0 < value < NEVER else value  # -1: never

    for scheduler in _schedulers(cfg.get('param_scheduler')):
        if scheduler.get('by_epoch', True) and not scheduler.get('convert_to_iter_based'):
            continue
        _scale_keys(scheduler, MOMENTS, scale)
        if base_type(scheduler) in BY_ITERATION:
            scheduler['gamma'] = scheduler['gamma'] ** (1 / factor)
    loop['val_interval'] = scale(loop.get('val_interval', 1000))
    if loop.get('val_begin', 1) > 1:
        loop['val_begin'] = scale(loop['val_begin'])
    if loop.get('dynamic_intervals'):
        loop['dynamic_intervals'] = scale(loop['dynamic_intervals'])
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint')
    if checkpoint is not None:
        checkpoint['interval'] = scale(checkpoint.get('interval', -1))
    for hook in _hooks(cfg):
        if not hook.get('by_epoch', False):
            _scale_keys(hook, OF_HOOKS, scale)
    loop['max_iters'] = iterations


def _schedulers(found: Any) -> Iterator[MutableMapping[str, Any]]:
    """All schedulers: one, some, or some for each of several optimizers."""
    if isinstance(found, MutableMapping) and 'type' in found:
        yield found
    elif isinstance(found, (Mapping, list, tuple)):
        for part in found.values() if isinstance(found, Mapping) else found:
            yield from _schedulers(part)


def _hooks(cfg: Config) -> Iterator[MutableMapping[str, Any]]:
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
    yield from (hook for hook in hooks if isinstance(hook, MutableMapping))


def _scale_keys(
    config: MutableMapping[str, Any], keys: tuple[str, ...], scale: Callable[[Any], Any]
) -> None:
    for key in keys:
        if key in config:
            config[key] = scale(config[key])
