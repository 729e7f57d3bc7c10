"""Data sets inside wrappers, and the names of their classes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from mmengine.fileio import list_from_file

from mm_tuning_plugin.config_types import ConfigMap, class_of
from mm_tuning_plugin.engine.config.entry_types import (
    CONFIG,
    NAMES,
    SOME_CONFIGS,
    require,
    shown,
)
from mm_tuning_plugin.errors import UserError


def leaf_datasets(config: ConfigMap) -> Iterator[ConfigMap]:
    """Yield the data sets inside any number of wrappers.

    Raises:
        UserError: One of them is not the config of a data set.
    """
    if not isinstance(config, Mapping) or 'type' not in config:
        raise UserError('dataset', f'{shown(config)} found', 'expected the config of a data set')
    if config.get('datasets') is not None:
        require('dataset.datasets', config['datasets'], SOME_CONFIGS)
        for part in config['datasets']:
            yield from leaf_datasets(part)
    elif isinstance(config.get('dataset'), Mapping):
        yield from leaf_datasets(config['dataset'])
    else:
        yield config


def dataset_classes(dataset: Mapping[str, object]) -> Sequence[str] | None:
    """Return the class names of the first data set, from its config or else from its class.

    Raises:
        UserError: The type of the data set is not registered.
    """
    from mmseg.registry import DATASETS

    leaf = next(leaf_datasets(dataset))
    names = _named_classes(leaf)
    if names is not None:
        return names
    known = class_of(leaf, DATASETS, 'mmseg')
    if known is None:
        raise UserError(
            'dataset.type',
            f'no data set of type {leaf["type"]!r} is registered with mmseg',
            'correct the name, or import its module by custom_imports',
        )
    found: Sequence[str] | None = getattr(known, 'METAINFO', {}).get('classes')
    return found


def _named_classes(leaf: ConfigMap) -> Sequence[str] | None:
    """Return the class names in a data set's config: a list, or a file with one name per line."""
    metainfo = leaf.get('metainfo') or {}
    require('dataset.metainfo', metainfo, CONFIG)
    names = metainfo.get('classes')
    if isinstance(names, str):
        with contextlib.suppress(Exception):  # no such file: refused below
            names = list_from_file(names)
    require('dataset.metainfo.classes', names, NAMES)
    return names
