"""VGG: torchvision's numbered layers to mmpretrain's, where convolution and norm are one module."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .rules import Naming, Tensors, rename_all

_LAYER = re.compile(r'features\.(\d+)\.(\w+)')
_MODULE = re.compile(r'features\.(\d+)\.conv\.weight')


def numbered_vgg(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Torchvision's ``features.N``: the k-th convolution goes to mmpretrain's k-th.

    A norm is the layer after its convolution. Layers without parameters count on both sides, but
    not the same ones, so positions are matched by order.
    """
    modules = sorted(int(m.group(1)) for m in map(_MODULE.fullmatch, targets) if m)
    weights = {
        int(m.group(1)): tensor
        for m, tensor in ((_LAYER.fullmatch(name), t) for name, t in tensors.items())
        if m and m.group(2) == 'weight'
    }
    number = dict(zip(sorted(n for n, t in weights.items() if t.ndim == 4), modules))

    def renamed(name: str) -> str:
        found = _LAYER.fullmatch(name)
        layer = int(found.group(1)) if found else -1
        if found and layer in number:
            return f'features.{number[layer]}.conv.{found.group(2)}'
        if found and layer - 1 in number and weights[layer].shape == weights[layer - 1].shape[:1]:
            return f'features.{number[layer - 1]}.bn.{found.group(2)}'
        return name

    return rename_all(tensors, renamed)


RANK = 10
NAMINGS = (Naming('torchvision VGG', numbered_vgg),)
