"""MSCAN, the encoder of SegNeXt: the official names, which mmseg shares but for one."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .rules import Naming, Tensors, rename_all


def official_mscan(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """SegNeXt's own names: its depthwise convolution is a module around mmseg's."""
    return rename_all(tensors, lambda n: n.replace('.mlp.dwconv.dwconv.', '.mlp.dwconv.'))


RANK = 9
NAMINGS = (Naming('official MSCAN', official_mscan),)
