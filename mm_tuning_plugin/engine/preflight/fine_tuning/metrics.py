"""Metrics, built and dropped, and what they will be called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import EVALUATOR, METRICS
from mmseg.evaluation import IoUMetric

from mm_tuning_plugin.engine.preflight.fine_tuning.registered import (
    build,
    check_arguments,
    find,
    items,
    mistake,
    written_aside,
)
from mm_tuning_plugin.errors import UserError


def check_evaluator(place: str, config: object) -> set[str] | None:
    """Build the metrics of an evaluator.

    Args:
        place: Its name in the config.
        config: It.

    Returns:
        The names of all values that it will give; None where that is not known.

    Raises:
        UserError: A metric cannot be built, or computes nothing.
    """
    if config is None or isinstance(config, Evaluator):
        return None
    if isinstance(config, Mapping) and 'metrics' in config:
        called = find(place, EVALUATOR, {'type': 'Evaluator', **config})
        check_arguments(place, called, config)
        config, place = config['metrics'], f'{place}.metrics'
    names: set[str] | None = set()
    for at, item in items(place, config):
        own = None
        if isinstance(item, Mapping):
            with written_aside(item) as given:
                own = _names_of(at, build(at, METRICS, given))
        names = None if names is None or own is None else names | own
    return names


def _names_of(place: str, metric: object) -> set[str] | None:
    """What mmseg's IoUMetric computes; of another metric nothing is known.

    Raises:
        UserError: It computes nothing of the kind.
    """
    computes = IoUMetric.total_area_to_metrics
    if getattr(type(metric), 'total_area_to_metrics', None) is not computes or metric.format_only:
        return None
    areas = torch.ones(2)
    try:
        found = computes(*[areas] * 4, metric.metrics, metric.nan_to_num, metric.beta)
    except Exception as error:
        raise mistake(f'{place}.iou_metrics', 'a metric', error) from error
    names = {name if name == 'aAcc' else f'm{name}' for name in found}
    return {f'{metric.prefix}/{name}' if metric.prefix else name for name in names}


def check_best(hooks: Sequence[tuple[str, Hook]], names: set[str] | None) -> None:
    """By which value mmengine's own hook chooses the best checkpoint.

    Args:
        hooks: Places and hooks.
        names: Of all values that validation gives; None: unknown.

    Raises:
        UserError: Validation does not give such a value.
    """
    for place, hook in hooks:
        if names is None or not isinstance(hook, CheckpointHook) or not hook.save_best:
            continue
        for wanted in hook.key_indicators:
            if wanted != 'auto' and wanted not in names:
                raise UserError(
                    f'{place}.save_best',
                    f'{wanted!r} found',
                    f'expected one of {", ".join(sorted(names))}',
                )
