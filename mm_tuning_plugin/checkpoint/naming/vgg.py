"""VGG: torchvision's numbered layers to mmpretrain's, where convolution and norm are one module."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .rules import Naming, Tensors

_LAYER = re.compile(r'features\.(\d+)\.(\w+)')
_MODULE = re.compile(r'features\.(\d+)\.conv\.weight')


def numbered_vgg(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Torchvision's ``features.N``: the k-th convolution goes to mmpretrain's k-th.

    A norm is the layer after its convolution. Layers without parameters count on both sides, but
    not the same ones, so positions are matched by order.
    """
    modules = sorted(int(m.group(1)) for m in map(_MODULE.fullmatch, targets) if m)
    layers = {
        int(m.group(1))
        for m, tensor in ((_LAYER.fullmatch(name), t) for name, t in tensors.items())
        if m and m.group(2) == 'weight' and tensor.ndim == 4
    }
    number = dict(zip(sorted(layers), modules))
    named: Tensors = {}
    for name, tensor in tensors.items():
        found = _LAYER.fullmatch(name)
        if found:
            layer = int(found.group(1))
            if layer in number:
                name = f'features.{number[layer]}.conv.{found.group(2)}'
            elif layer - 1 in number:
                name = f'features.{number[layer - 1]}.bn.{found.group(2)}'
        named[name] = tensor
    return named


NAMINGS = (Naming('torchvision VGG', numbered_vgg),)
