"""Matrices that one project holds apart and another in one: query, key and value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .rules import Tensors


def pack(tensors: Mapping[str, Tensor], parts: Sequence[str], whole: str) -> Tensors:
    """Concatenates tensors along their first dimension, wherever all parts are there.

    Args:
        tensors: By name.
        parts: What sets the names of the parts apart, in the order in which they are stacked:
            ('.q.', '.k.', '.v.').
        whole: What stands there in the name of the whole: '.qkv.'.

    Returns:
        ``a.q.weight`` (D, D), ``a.k.weight`` (D, D), ``a.v.weight`` (D, D) as ``a.qkv.weight``
        (3D, D). All else, a part without its siblings too, is unchanged.
    """
    packed: Tensors = dict(tensors)
    for name in tensors:
        if parts[0] not in name:
            continue
        names = [name.replace(parts[0], part) for part in parts]
        found = [packed[part] for part in names if part in packed]
        if len(found) < len(parts) or len({tensor.shape[1:] for tensor in found}) > 1:
            continue
        for part in names:
            del packed[part]
        packed[name.replace(parts[0], whole)] = torch.cat(found)
    return packed
