"""Looking at the data before anything is trained: errors come in seconds, not in hours."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.registry import (
    DATA_SAMPLERS,
    LOOPS,
    METRICS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    DefaultScope,
)
from mmseg.registry import DATASETS

from mm_tuning_plugin.config_types import class_of
from mm_tuning_plugin.datasets.labels import IGNORE
from mm_tuning_plugin.datasets.wrappers import load_sample, random_state
from mm_tuning_plugin.engine.pipelines import tuning_pipeline, with_pipeline
from mm_tuning_plugin.errors import UserError

SAMPLES_READ = 64


def check_data(
    dataset: Mapping[str, Any],
    check: Mapping[str, Any],
    scope: str = 'mmseg',
    where: str = 'train_dataloader.dataset',
    samples: int = SAMPLES_READ,
) -> list[dict]:
    """Build a data set, look for its files, read a part of it.

    Every file must exist; `samples` images with their labels, evenly spaced, are read and checked.
    If none of these has a usable label, the others are read until one has.

    Args:
        dataset: The user's config of the data set.
        check: Config of the transform `CheckLabels`.
        scope: The config's ``default_scope``.
        where: Its place in the config.
        samples: How many are read.

    Returns:
        What the data set says of each image (``img_path``, ``seg_map_path``).

    Raises:
        UserError: No image, a missing or unreadable file, a label map that does not fit its image
            or the classes, no usable label at all.
    """
    config = with_pipeline(
        dataset, lambda steps: tuning_pipeline(steps, (), check, dict(type='_'))[:-2]
    )
    # No Runner lives yet, so nothing has said in whose scope unprefixed types are meant.
    with random_state(0), DefaultScope.overwrite_default_scope(scope):
        built, items = build_dataset(config, where)
        chosen = np.linspace(0, len(built) - 1, min(samples, len(built)), dtype=int).tolist()
        rest = sorted(set(range(len(built))) - set(chosen))
        usable = [_is_usable(built, index) for index in chosen]
        if not any(usable) and not any(_is_usable(built, index) for index in rest):
            raise UserError(
                f'{where}: all {len(built)} images are wholly ignored, expected '
                'labels of at least one class; are ignore_index and reduce_zero_label right?'
            )
    return items


def check_types(cfg: Mapping[str, Any], scope: str = 'mmseg') -> None:
    """Look up what the stages will be built of, before stage one takes its hours.

    Args:
        cfg: The user's config.
        scope: Its ``default_scope``.

    Raises:
        UserError: A type that nobody registered, or a package that is not installed.
    """
    for place, package in missing_packages(cfg.get('model')):
        raise UserError(
            f'model{place}: a type of {package} found, which is not installed; expected '
            f'it beside mmseg: pip install {package}'
        )
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer')
    sampler = (cfg.get('train_dataloader') or {}).get('sampler')
    wanted = [
        ('train_cfg', LOOPS, cfg.get('train_cfg')),
        ('val_cfg', LOOPS, cfg.get('val_cfg')),
        ('optim_wrapper', OPTIM_WRAPPERS, cfg.get('optim_wrapper')),
        ('optim_wrapper.optimizer', OPTIMIZERS, optimizer),
        ('train_dataloader.sampler', DATA_SAMPLERS, sampler),
        ('val_evaluator', METRICS, cfg.get('val_evaluator')),
        ('param_scheduler', PARAM_SCHEDULERS, cfg.get('param_scheduler')),
        ('mix_and_match.augment', TRANSFORMS, (cfg.get('mix_and_match') or {}).get('augment')),
    ]
    for where, root, config in wanted:
        with root.switch_scope_and_registry(scope) as registry:
            for part in config if isinstance(config, (list, tuple)) else [config]:
                named = isinstance(part, Mapping) and part.get('type') is not None
                if named and class_of(part, registry) is None:
                    raise UserError(
                        f'{where}: type {part["type"]!r} found, expected the registered name of a '
                        f'{registry.name}'
                    )


def missing_packages(config: Any, place: str = '') -> Iterator[tuple[str, str]]:
    """Where a config names types of packages that are not installed, as mmseg's heads do mmdet's.

    Args:
        config: Nested configs; a type's package is its scope, as in 'mmdet.DiceLoss'.
        place: Of it, in dotted words.

    Yields:
        Dotted place and name of the package.
    """
    if isinstance(config, Mapping):
        kind = config.get('type')
        package = kind.split('.', 1)[0] if isinstance(kind, str) and '.' in kind else ''
        if package.isidentifier() and importlib.util.find_spec(package) is None:
            yield place, package
    parts = config.items() if isinstance(config, Mapping) else ()
    if isinstance(config, (list, tuple)):
        parts = enumerate(config)
    for key, part in parts:
        yield from missing_packages(part, f'{place}.{key}')


def build_dataset(config: Mapping[str, Any], where: str) -> tuple[Any, list[dict]]:
    """Build a data set and look for its files; unprefixed types are meant in the current scope.

    Args:
        config: The data set.
        where: Its place in the config.

    Returns:
        It, and what it says of each image.

    Raises:
        UserError: It cannot be built, it is empty, or a file is missing.
    """
    root = config.get('data_root')
    if isinstance(root, str) and not os.path.isdir(root):
        raise UserError(f'data_root: {root!r} found, expected an existing folder')
    try:
        built = DATASETS.build(config)
        count = len(built)
    except UserError:
        raise
    except Exception as error:  # data sets of the user's can raise anything
        reason = f'{type(error).__name__}: {error}'.splitlines()[0]
        kind = config.get('type')
        raise UserError(f'{where}: {kind} in {root!r} cannot be built: {reason}') from error
    if not count:
        raise UserError(
            f'{where}: no image found in {root!r}, expected at least one; are '
            'data_prefix, ann_file and img_suffix right?'
        )
    items = [built.get_data_info(i) for i in range(count)]
    _check_files(items)
    return built, items


def _check_files(items: Sequence[Mapping[str, Any]]) -> None:
    for item in items:
        if 'seg_map_path' not in item:
            raise UserError(
                f'{item.get("img_path")}: no label map named, expected one for every '
                'image; does data_prefix have seg_map_path?'
            )
        for key in ('img_path', 'seg_map_path'):
            path = item.get(key)
            if isinstance(path, str) and '://' not in path and not os.path.isfile(path):
                raise UserError(f'{path}: no such file; expected a file for {key}')


def _is_usable(dataset: Any, index: int) -> bool:
    return bool((load_sample(dataset, index)['gt_seg_map'] != IGNORE).any())
