"""Looking at the data before anything is trained: errors come in seconds, not in hours."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope
from mmengine.utils import is_abs
from mmseg.registry import DATASETS

from mm_tuning_plugin.config_types import ConfigMap, name_of
from mm_tuning_plugin.datasets.label_values import IGNORE
from mm_tuning_plugin.datasets.wrappers import load_sample, random_state
from mm_tuning_plugin.engine.common.messages import warn
from mm_tuning_plugin.engine.config.dataset_tree import leaf_datasets
from mm_tuning_plugin.engine.config.derive_pipelines import (
    has_early_moves,
    moving_warnings,
    tuning_pipeline,
    validation_pipeline,
    with_pipeline,
)
from mm_tuning_plugin.engine.preflight.data_files import (
    Reader,
    check_files,
    list_items,
    missing_root,
)
from mm_tuning_plugin.engine.preflight.split_file import wrong_encoding
from mm_tuning_plugin.errors import UserError

SAMPLES_READ = 64


def check_data(
    dataset: ConfigMap,
    check: ConfigMap | None,
    scope: str = 'mmseg',
    where: str = 'train_dataloader.dataset',
    samples: int = SAMPLES_READ,
    train: ConfigMap | None = None,
) -> list[dict]:
    """Build a data set, look for its files, read a part of it.

    Every file must exist that its loader opens, see `files.check_files`; `samples` images with
    their labels, evenly spaced, are read and checked. If none of these has a usable label, the
    others are read until one has.

    Args:
        dataset: The user's config of the data set.
        check: Config of the transform `CheckLabels`; None: of images without labels.
        scope: The config's ``default_scope``.
        where: Its place in the config.
        samples: How many are read.
        train: The training data set, if `dataset` is that of validation; see `pipelines`.

    Returns:
        What the data set says of each image (``img_path``, ``seg_map_path``), and from which
        ``storage`` it is read, if that is not the local disk.

    Raises:
        UserError: No image, a missing or unreadable file, a label map that does not fit its image
            or the classes, no usable label at all.
    """
    fit = train is not None and has_early_moves(train)

    def derive(steps: Sequence[ConfigMap]) -> list[dict]:
        if train is None:
            derived = tuning_pipeline(steps, (), check or {}, {})
        else:
            derived = validation_pipeline(steps, (), check or {}, {}, fit)
        return derived[:-3] if check is None else derived[:-2]

    for line in moving_warnings(dataset, where) if train is None else ():
        warn(line)
    config = with_pipeline(dataset, derive)
    # There is no Runner yet that sets the default scope.
    with random_state(0), DefaultScope.overwrite_default_scope(scope):
        built, items = build_dataset(config, where, samples)
        chosen = np.linspace(0, len(built) - 1, min(samples, len(built)), dtype=int).tolist()
        rest = sorted(set(range(len(built))) - set(chosen))
        if check is None:
            for index in chosen:
                load_sample(built, index)
            return items
        usable = [_is_usable(built, index) for index in chosen]
        if not any(usable) and not any(_is_usable(built, index) for index in rest):
            raise UserError(
                where,
                f'every pixel of all {len(built)} images is ignored',
                'expected labels of at least one class, so check ignore_index and '
                'reduce_zero_label',
            )
    return items


def missing_packages(config: object, place: str = '') -> Iterator[tuple[str, str]]:
    """Yield the places where a config names types of packages that are not installed.

    Args:
        config: Nested configs; a type's package is its scope, as in 'mmdet.DiceLoss'.
        place: Of it, in dotted words.

    Yields:
        Dotted place and name of the package.
    """
    if isinstance(config, Mapping):
        package = name_of(config.get('type')).scope.split('.')[0]
        if package.isidentifier() and importlib.util.find_spec(package) is None:
            yield place, package
    parts = config.items() if isinstance(config, Mapping) else ()
    if isinstance(config, (list, tuple)):
        parts = enumerate(config)
    for key, part in parts:
        yield from missing_packages(part, f'{place}.{key}')


def build_dataset(
    config: ConfigMap, where: str, samples: int = SAMPLES_READ
) -> tuple[BaseDataset, list[dict]]:
    """Build a data set and look for its files; unprefixed types are meant in the current scope.

    Args:
        config: The data set.
        where: Its place in the config.
        samples: Most samples that are loaded to see whether files that are not found are needed.

    Returns:
        The data set, and its information on each image; see `list_items`.

    Raises:
        UserError: It cannot be built, it is empty, or a file is missing.
    """
    root = config.get('data_root')
    try:
        built = DATASETS.build(config)
        count = len(built)
        items = list_items(built)
    except UserError:
        raise
    except Exception as error:  # data sets of the user's can raise anything
        _refuse_missing_root(config)
        reason = f'{type(error).__name__}: {error}'.splitlines()[0]
        kind = config.get('type')
        raise UserError(
            where,
            f'{kind} in {root!r} cannot be built: {reason}',
            _encoding(config, error) or 'correct its arguments or its files',
        ) from error
    if not count:
        _refuse_missing_root(config)
        raise UserError(
            where,
            f'no image found in {root!r}',
            'expected at least one, so check data_prefix, ann_file and img_suffix',
        )
    check_files(built, items, samples)
    return built, items


def _refuse_missing_root(config: ConfigMap) -> None:
    """Report a missing data folder if that may be the cause of another error."""
    for leaf in leaf_datasets(config):
        root, prefixes = leaf.get('data_root'), leaf.get('data_prefix')
        below = prefixes.values() if isinstance(prefixes, Mapping) else [prefixes]
        if not isinstance(root, str) or all(isinstance(p, str) and is_abs(p) for p in below):
            continue  # mmengine joins whole paths to no root
        local = Reader(leaf.get('backend_args')).storage(root) is None
        if local and root and not os.path.isdir(root):
            raise missing_root(root)


def _encoding(config: ConfigMap, error: Exception) -> str:
    """Return the remedy for a split file that is not UTF-8; empty for other mistakes."""
    if not isinstance(error, UnicodeDecodeError):
        return ''
    files = [
        os.path.join(leaf.get('data_root') or '', leaf['ann_file'])
        for leaf in leaf_datasets(config)
        if isinstance(leaf.get('ann_file'), str)
    ]
    found = next(filter(wrong_encoding, files), None)
    return f'save {found}, which is UTF-16, as UTF-8 without byte-order mark' if found else ''


def _is_usable(dataset: BaseDataset, index: int) -> bool:
    return bool((load_sample(dataset, index)['gt_seg_map'] != IGNORE).any())
