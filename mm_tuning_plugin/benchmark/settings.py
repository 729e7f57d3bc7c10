"""Settings that the benchmark makes in every config that it runs, the same for all arms."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mm_tuning_plugin.benchmark.worker.observe_hook import ObserveHook
from mm_tuning_plugin.config_types import base_type, full_type
from mm_tuning_plugin.datasets.cached import cache_loading
from mm_tuning_plugin.engine.config.initial_weights import remove_pretrained
from mm_tuning_plugin.errors import UserError

STEP_OPTIONS = 'benchmark_step'  # key of a config that holds the options of a step
RUN = 'run'
OBSERVE = f'mm_tuning_plugin.{ObserveHook.__name__}'
METRIC = 'mm_tuning_plugin.ImageIoUMetric'


def with_options(cfg: Config, options: Mapping[str, Any]) -> Config:
    """Override entries of a config, in place, by dotted names.

    Raises:
        UserError: An option does not fit the config.
    """
    try:
        cfg.merge_from_dict(dict(options))
    except (KeyError, IndexError, TypeError, AssertionError) as error:
        raise UserError(
            'cfg_options',
            f'{dict(options)} does not fit ({" ".join(str(error).split())})',
            'expected names of entries that the config has',
        ) from error
    return cfg


def comparable(cfg: Config) -> Config:
    """A copy whose arms can be compared.

    Pretrained weights of the config are removed. It validates only at the end, so that validation
    labels select nothing; it keeps one checkpoint; and it writes the areas of each image.

    Raises:
        UserError: It has no schedule in iterations, no validation, or no IoUMetric.
    """
    cfg = copy.deepcopy(cfg)
    if not (cfg.get('train_cfg') or {}).get('max_iters'):
        raise UserError(
            'train_cfg',
            f'{dict(cfg.get("train_cfg") or {})} found',
            'expected max_iters, as arms are compared by iterations',
        )
    for name in ('train_dataloader', 'val_dataloader', 'val_evaluator'):
        if not cfg.get(name):
            raise UserError(name, 'none found', 'expected one in the config of fine-tuning')
    cfg['model'] = remove_pretrained(cfg['model'])
    cfg['val_evaluator'] = _by_image(cfg['val_evaluator'])
    cfg['train_cfg'].pop('dynamic_intervals', None)
    cfg['train_cfg'].update(val_begin=1, val_interval=cfg['train_cfg']['max_iters'])
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint')
    if checkpoint is not None:
        checkpoint['max_keep_ckpts'] = 1
        checkpoint.pop('save_best', None)
    cfg.pop('runner_type', None)
    return cfg


def placed(cfg: Config, kind: str, folder: Path, cache_images: bool) -> Config:
    """A copy that writes to the folder of a step. Nothing set here changes the computation.

    Args:
        cfg: The config of the step.
        kind: The kind of step.
        folder: The folder of the step.
        cache_images: Whether its training images are kept in memory.
    """
    cfg = cache_loading(cfg) if cache_images else copy.deepcopy(cfg)
    cfg['work_dir'] = str(folder / RUN)
    cfg['custom_hooks'] = [
        *(cfg.get('custom_hooks') or []), dict(type=OBSERVE, folder=str(folder))
    ]  # fmt: skip
    if kind == 'tuning':
        cfg['mix_and_match'].setdefault('pictures', ())  # drawing takes time, which is measured
        kept = cfg['mix_and_match'].get('keep_hooks') or ()
        cfg['mix_and_match']['keep_hooks'] = [*kept, ObserveHook.__name__]
    if kind == 'fine_tuning':
        evaluators = cfg['val_evaluator']
        for item in evaluators if isinstance(evaluators, list) else [evaluators]:
            if full_type(item) == METRIC:
                item['areas_file'] = os.path.join(cfg['work_dir'], 'areas.npz')
    return cfg


def _by_image(evaluator: Any) -> Any:
    """A copy of an evaluator in which `ImageIoUMetric` replaces mmseg's IoUMetric.

    Raises:
        UserError: There is not exactly one.
    """
    single = isinstance(evaluator, Mapping)
    items = [dict(item) for item in ([evaluator] if single else evaluator)]
    found = [item for item in items if base_type(item) == 'IoUMetric']
    if len(found) != 1:
        kinds = [base_type(item) for item in items]
        raise UserError('val_evaluator', f'{kinds} found', 'expected exactly one IoUMetric')
    found[0]['type'] = METRIC
    return items[0] if single else items
