"""Reading what stage one needs out of a user's mmseg config.

Nothing here builds or changes anything: every function takes (part of) a config and returns a
plain value, or refuses the config in one line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.fileio import list_from_file

from mm_tuning_plugin.config_types import base_type, class_of
from mm_tuning_plugin.engine.config.entry_types import (
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
# These accept images of their own img_size only: mmseg's, then mmpretrain's.
FIXED_SIZE_BACKBONES = ('BEiT', 'MAE', 'BEiTViT', 'LeViT', 'RepMLPNet')


def read_model(cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model, if stage one can tune it.

    Raises:
        UserError: No model, no backbone, or a task without pixel classes.
    """
    model = cfg.get('model')
    if not isinstance(model, Mapping):
        raise UserError('model', f'{shown(model)} found', 'expected the config of a segmentor')
    kind = base_type(model)
    if kind in REFUSED_MODELS:
        raise UserError(
            'model',
            f'{kind} cannot be tuned: {REFUSED_MODELS[kind]}',
            'expected a segmentor with a backbone and pixel classes',
        )
    if not isinstance(model.get('backbone'), Mapping):
        raise UserError('model', f'{kind} has no backbone', 'expected a segmentor with one')
    backbone = base_type(model['backbone'])
    if backbone in REFUSED_BACKBONES:
        raise UserError(
            'model.backbone',
            f'{backbone} cannot be tuned: {REFUSED_BACKBONES[backbone]}',
            'expected a backbone with a self-supervised start',
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
            'model.decode_head', f'{shown(head)} found', 'expected the config of a decode head'
        )
    return head


def head_key(head: Mapping[str, Any], key: str) -> Any:
    """What a decode head's config says under a key; None where it says nothing.

    A head that is made of other heads, as K-Net's is, says it in the outermost of theirs. Every
    other nested config is passed over: a loss has an ``ignore_index`` of its own, and a sampler or
    a pixel decoder can have keys of the same names as well.
    """
    level: list[Any] = [head]
    while level:
        for item in level:
            if isinstance(item, Mapping) and item.get(key) is not None:
                return item[key]
        level = [part for item in level for part in _inner_heads(item)]
    return None


def _inner_heads(item: Any) -> list[Any]:
    """The heads right inside a head, and its lists of heads."""
    if isinstance(item, Mapping):
        return [
            part
            for key, part in item.items()
            if str(key).lower().endswith(('head', 'heads')) or _is_head(part)
        ]
    return list(item) if isinstance(item, (list, tuple)) else []


def _is_head(part: Any) -> bool:
    return isinstance(part, Mapping) and base_type(part).endswith('Head')


def any_set(config: Any, key: str) -> bool:
    """Whether `key` is true anywhere in nested configs: in a backbone, or in one inside it."""
    if isinstance(config, Mapping):
        return bool(config.get(key)) or any(any_set(part, key) for part in config.values())
    return isinstance(config, (list, tuple)) and any(any_set(part, key) for part in config)


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
    index = head_key(head, 'in_index')
    if index is None:
        # mmseg's default is the last output, but heads with a list of channels read them all.
        several = isinstance(head_key(head, 'in_channels'), (list, tuple))
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


def leaf_datasets(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The data sets under any nest of wrappers.

    Raises:
        UserError: Something in the nest is no config of a data set.
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


def refuse_pairs(dataset: Mapping[str, Any]) -> None:
    """Refuse data of change detection, whose samples are two images each.

    Raises:
        UserError: A transform joins two images.
    """
    for leaf in leaf_datasets(dataset):
        for step in steps_of(leaf):
            if base_type(step) in PAIRING_TRANSFORMS:
                raise UserError(
                    'train_dataloader',
                    f'{base_type(step)} found, but change between two images cannot be tuned',
                    'expected transforms of one image',
                )


def read_classes(cfg: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Number of classes and their names.

    The head says the number; where it does not (Mask2Former's kin), the data set's names do. One
    output tells two classes apart: see `_label_values`. Nameless classes are called by their
    numbers.

    Raises:
        UserError: Neither knows.
    """
    from mmseg.registry import DATASETS

    leaf = next(leaf_datasets(cfg['train_dataloader']['dataset']))
    names = _named_classes(leaf)
    if names is None:
        known = class_of(leaf, DATASETS, 'mmseg')
        if known is None:
            raise UserError(
                'dataset.type',
                f'no data set of type {leaf["type"]!r} is registered with mmseg',
                'correct the name, or import its module by custom_imports',
            )
        names = getattr(known, 'METAINFO', {}).get('classes')
    head = read_head(cfg['model'])
    number = head_key(head, 'num_classes')
    if number is None and names is None:
        raise UserError(
            'num_classes',
            'found in neither the decode head nor the metainfo of the data set',
            'set model.decode_head.num_classes',
        )
    require('num_classes', number, INTEGER)
    number = _label_values(head, len(names) if number is None else number)
    if not 1 <= number <= 255:
        raise UserError(
            'num_classes',
            f'{number} classes found',
            'expected 1 to 255, because stage one keeps label maps in 8 bits and 255 means ignored',
        )
    names = list(names or [])[:number]
    return number, names + [f'class {i}' for i in range(len(names), number)]


def _label_values(head: Mapping[str, Any], number: int) -> int:
    """How many label values are classes, for a head of so many ``num_classes``.

    mmseg predicts 0 or 1 by a threshold where there is one output (``num_classes=1``, or
    ``out_channels=1``), and its losses take both as labels: all but the cross-entropy with a
    softmax, which fails on 1.
    """
    outputs = head_key(head, 'out_channels')
    if (number if outputs is None else outputs) != 1:
        return number
    given = head_key(head, 'loss_decode')
    losses = given if isinstance(given, (list, tuple)) else [given or dict(type='CrossEntropyLoss')]
    return 1 if any(_is_softmax(loss) for loss in losses) else max(2, number)


def _is_softmax(loss: Any) -> bool:
    known = isinstance(loss, Mapping) and base_type(loss) == 'CrossEntropyLoss'
    return known and not loss.get('use_sigmoid')


def read_ignored(cfg: Mapping[str, Any], seg_pad_val: int) -> list[int]:
    """Label values that mean "ignore": the head's, the padding's, and 255, which always does.

    Raises:
        UserError: The head's is no integer.
    """
    index = head_key(read_head(cfg['model']), 'ignore_index')
    if isinstance(index, float) and index.is_integer():
        index = int(index)  # a comparison with labels is the same
    require('model.decode_head.ignore_index', index, INTEGER)
    return sorted({255, seg_pad_val, 255 if index is None else index})


def _named_classes(leaf: Mapping[str, Any]) -> Sequence[str] | None:
    """The classes that a data set's config names, itself or in a file, one a line, as mmengine."""
    metainfo = leaf.get('metainfo') or {}
    require('dataset.metainfo', metainfo, CONFIG)
    names = metainfo.get('classes')
    if isinstance(names, str):
        with contextlib.suppress(Exception):  # no such file: the name of a kind, refused below
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
            'mix_and_match.background_index',
            f'{given} found',
            f'expected less than {len(class_names)}, the number of classes',
        )
    return given
