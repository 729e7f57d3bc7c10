"""Reading what stage one needs out of a user's mmseg config.

Nothing here builds or changes anything: every function takes (part of) a config and returns a
plain value, or refuses the config in one line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.fileio import list_from_file

from mm_tuning_plugin.config_types import base_type, class_of, full_type
from mm_tuning_plugin.engine.kinds import (
    CONFIG,
    INTEGER,
    NAMES,
    SOME_CONFIGS,
    require,
    shown,
    steps_of,
)
from mm_tuning_plugin.errors import UserError

REFUSED_MODELS = {
    'MultimodalEncoderDecoder': 'it has no backbone of its own (SAN)',
    'DepthEstimator': 'it estimates depth and has no classes',
    'SiamEncoderDecoder': 'it detects change between two images',
}
# Transforms of change detection: two images of one place make one sample.
PAIRING_TRANSFORMS = ('LoadMultipleRSImageFromFile', 'ConcatCDInput')
REFUSED_BACKBONES = {
    'VPD': "it is the network of a text-to-image model, built from that model's weights and from "
    'embeddings of prompts, and no self-supervised backbone',
}
KNOWN_PREPROCESSORS = ('mmseg.SegDataPreProcessor',)
# These accept images of their own img_size only: mmseg's, then mmpretrain's.
FIXED_SIZE_BACKBONES = ('BEiT', 'MAE', 'BEiTViT', 'LeViT', 'RepMLPNet')


class Normalisation(NamedTuple):
    """What the user's preprocessor does to pixels: see `NodeDataPreprocessor`."""

    mean: list[float] | None
    std: list[float] | None
    swap_channels: bool
    seg_pad_val: int


def read_model(cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model, if stage one can tune it.

    Raises:
        UserError: No model, no backbone, or a task without pixel classes.
    """
    model = cfg.get('model')
    if not isinstance(model, Mapping):
        raise UserError(f'model: {shown(model)} found, expected the config of a segmentor')
    kind = base_type(model)
    if kind in REFUSED_MODELS:
        raise UserError(f'model: {kind} cannot be tuned: {REFUSED_MODELS[kind]}')
    if not isinstance(model.get('backbone'), Mapping):
        raise UserError(f'model: {kind} has no backbone, expected a segmentor with one')
    backbone = base_type(model['backbone'])
    if backbone in REFUSED_BACKBONES:
        raise UserError(
            f'model.backbone: {backbone} cannot be tuned: {REFUSED_BACKBONES[backbone]}'
        )
    return model


def read_head(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """The decode head; the last one of a cascade.

    Raises:
        UserError: There is none.
    """
    head = model.get('decode_head')
    if isinstance(head, Sequence) and not isinstance(head, str) and head:
        head = head[-1]
    if not isinstance(head, Mapping):
        raise UserError(
            f'model.decode_head: {shown(head)} found, expected the config of a decode head'
        )
    return head


def find_key(config: Any, key: str) -> Any:
    """The value of the outermost `key` in nested configs; None where there is none."""
    level = [config]
    while level:
        for item in level:
            if isinstance(item, Mapping) and item.get(key) is not None:
                return item[key]
        level = [child for item in level for child in _children(item)]
    return None


def _children(item: Any) -> list[Any]:
    if isinstance(item, Mapping):
        return list(item.values())
    if isinstance(item, (list, tuple)):
        return list(item)
    return []


def read_levels(model: Mapping[str, Any]) -> list[int] | None:
    """Which of the backbone's outputs the decode head reads; None: all of them.

    Of a cascade, those that any of its heads reads: PointRend's last one, for instance, refines by
    the first level what another head has found in all four.

    Raises:
        UserError: There is no decode head.
    """
    read_head(model)
    heads = model['decode_head']
    levels: list[int] = []
    for head in heads if isinstance(heads, Sequence) else [heads]:
        own = _levels_of(head)
        if own is None:
            return None
        levels += [level for level in own if level not in levels]
    return levels


def _levels_of(head: Mapping[str, Any]) -> list[int] | None:
    index = find_key(head, 'in_index')
    if index is None:
        # mmseg's default is the last output, but heads with a list of channels read them all.
        several = isinstance(find_key(head, 'in_channels'), (list, tuple))
        return None if several else [-1]
    return list(index) if isinstance(index, (list, tuple)) else [index]


def read_fixed_size(backbone: Mapping[str, Any]) -> list[int] | None:
    """(H, W) of the only images that a backbone accepts; None where it accepts any."""
    kind = base_type(backbone)
    if kind == 'TIMMBackbone':
        loose = backbone.get('dynamic_img_size') or not backbone.get('strict_img_size', True)
        if loose or backbone.get('img_size') is None:
            return None
    elif kind not in FIXED_SIZE_BACKBONES:
        return None
    side = backbone.get('img_size', 224)
    return [side, side] if isinstance(side, int) else list(side)


def read_normalisation(cfg: Mapping[str, Any]) -> Normalisation:
    """Mean, std and channel order.

    Raises:
        UserError: The preprocessor is of an unknown type.
    """
    config = cfg['model'].get('data_preprocessor') or cfg.get('data_preprocessor')
    if config is None:
        return Normalisation(None, None, False, 255)
    if config.get('type') is not None and full_type(config, 'mmseg') not in KNOWN_PREPROCESSORS:
        raise UserError(
            f'data_preprocessor: {config["type"]} found, expected SegDataPreProcessor: how another '
            'one normalises images cannot be read from its config'
        )
    mean, std = config.get('mean'), config.get('std')
    return Normalisation(
        mean=None if mean is None else [float(value) for value in mean],
        std=None if std is None else [float(value) for value in std],
        swap_channels=bool(config.get('bgr_to_rgb') or config.get('rgb_to_bgr')),
        seg_pad_val=255 if config.get('seg_pad_val') is None else config['seg_pad_val'],
    )


def leaf_datasets(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The data sets under any nest of wrappers.

    Raises:
        UserError: Something in the nest is no config of a data set.
    """
    if not isinstance(config, Mapping) or 'type' not in config:
        raise UserError(f'dataset: {shown(config)} found, expected the config of a data set')
    if config.get('datasets') is not None:
        require('dataset.datasets', config['datasets'], SOME_CONFIGS)
        for part in config['datasets']:
            yield from leaf_datasets(part)
    elif isinstance(config.get('dataset'), Mapping):
        yield from leaf_datasets(config['dataset'])
    else:
        yield config


def refuse_pairs(dataset: Mapping[str, Any]) -> None:
    """Refuse data of change detection, whose samples are two images each.

    Raises:
        UserError: A transform joins two images.
    """
    for leaf in leaf_datasets(dataset):
        for step in steps_of(leaf):
            if base_type(step) in PAIRING_TRANSFORMS:
                raise UserError(
                    f'train_dataloader: {base_type(step)} found, expected transforms of one image: '
                    'change between two images cannot be tuned'
                )


def read_classes(cfg: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Number of classes and their names.

    The head says the number; where it does not (Mask2Former's kin), the data set's names do.
    Nameless classes are called by their numbers.

    Raises:
        UserError: Neither knows.
    """
    from mmseg.registry import DATASETS

    leaf = next(leaf_datasets(cfg['train_dataloader']['dataset']))
    names = _named_classes(leaf)
    if names is None:
        known = class_of(leaf, DATASETS, 'mmseg')
        if known is None:
            raise UserError(f'dataset: no data set type {leaf["type"]!r} is registered with mmseg')
        names = getattr(known, 'METAINFO', {}).get('classes')
    number = find_key(read_head(cfg['model']), 'num_classes')
    if number is None and names is None:
        raise UserError(
            'num_classes: found in neither the decode head nor the metainfo of the data set'
        )
    require('num_classes', number, INTEGER)
    number = len(names) if number is None else number
    if not 1 <= number <= 255:
        raise UserError(f'num_classes: {number} found, expected 1 to 255')
    names = list(names or [])[:number]
    return number, names + [f'class {i}' for i in range(len(names), number)]


def _named_classes(leaf: Mapping[str, Any]) -> Sequence[str] | None:
    """The classes that a data set's config names, itself or in a file, one a line, as mmengine."""
    metainfo = leaf.get('metainfo') or {}
    require('dataset.metainfo', metainfo, CONFIG)
    names = metainfo.get('classes')
    if isinstance(names, str) and os.path.isfile(names):
        names = list_from_file(names)
    require('dataset.metainfo.classes', names, NAMES)
    return names


def read_background(given: Any, class_names: Sequence[str]) -> int | None:
    """Apply the rule of the background class: see option ``background_index``.

    Raises:
        UserError: The index given is none of the classes.
    """
    if given == 'auto':
        return 0 if class_names[0].lower() == 'background' else None
    if given is not None and given >= len(class_names):
        raise UserError(
            f'mix_and_match.background_index: {given} found, expected less than '
            f'{len(class_names)}, the number of classes'
        )
    return given
