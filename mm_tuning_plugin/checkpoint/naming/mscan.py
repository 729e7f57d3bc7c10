"""MSCAN (SegNeXt): the original's depthwise convolution lies one module deeper than mmseg's."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .rules import Naming, Tensors


def official_mscan(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """``mlp.dwconv.dwconv`` to ``mlp.dwconv``; all other names are shared."""
    return {
        name.replace('.mlp.dwconv.dwconv.', '.mlp.dwconv.'): tensor
        for name, tensor in tensors.items()
    }


NAMINGS = (Naming('official MSCAN', official_mscan),)
