"""MobileNetV2: torchvision's numbered blocks to mmseg's layers.

MobileNetV3 is not here: mmseg's pads strided convolutions as TensorFlow does, torchvision's on both
sides, so that the same weights compute something else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .rules import Naming, Tensors

BLOCKS = (1, 2, 3, 4, 3, 3, 1)  # of each layer, in every width
_PLACES = [(layer + 1, block) for layer, count in enumerate(BLOCKS) for block in range(count)]
_STEM = re.compile(r'features\.0\.([01])\.(\w+)')
_PAIR = re.compile(r'features\.(\d+)\.conv\.(\d)\.([01])\.(\w+)')  # convolution, norm, activation
_LAST = re.compile(r'features\.(\d+)\.conv\.(\d)\.(\w+)')  # the projection and its norm
_KIND = ('conv', 'bn')


def numbered_mobilenet_v2(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """``features.1 .. features.17`` to ``layer1.0 .. layer7.0``; the classifier's 18 stays."""
    return {_named(name): tensor for name, tensor in tensors.items()}


def _named(name: str) -> str:
    stem, pair, last = (pattern.fullmatch(name) for pattern in (_STEM, _PAIR, _LAST))
    if stem:
        return f'conv1.{_KIND[int(stem.group(1))]}.{stem.group(2)}'
    found = pair or last
    if not found or not 1 <= int(found.group(1)) <= len(_PLACES):
        return name
    layer, block = _PLACES[int(found.group(1)) - 1]
    part = int(found.group(2))
    if pair:
        kind, leaf = _KIND[int(pair.group(3))], pair.group(4)
    else:  # the projection comes after one pair in the first block, after two in the others
        pairs = 1 if layer == 1 else 2
        kind, leaf, part = _KIND[part - pairs], found.group(3), pairs
    return f'layer{layer}.{block}.conv.{part}.{kind}.{leaf}'


NAMINGS = (Naming('torchvision MobileNetV2', numbered_mobilenet_v2),)
