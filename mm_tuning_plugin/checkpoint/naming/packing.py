"""One tensor where another project has several, or one of another rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .rules import Tensors


def pack(tensors: Mapping[str, Tensor], parts: Sequence[str], whole: str) -> Tensors:
    """Concatenates tensors along their first dimension if all parts exist.

    Args:
        tensors: By name.
        parts: What sets the names of the parts apart, in the order in which they are stacked:
            ('.q.', '.k.', '.v.').
        whole: The part of the name of the whole: '.qkv.'.

    Returns:
        ``a.q.weight`` (D, D), ``a.k.weight`` (D, D), ``a.v.weight`` (D, D) as ``a.qkv.weight``
        (3D, D). Other tensors, and a part without its siblings, are unchanged.
    """
    packed: Tensors = dict(tensors)
    for name in tensors:
        if parts[0] not in name:
            continue
        names = [name.replace(parts[0], part) for part in parts]
        found = [packed[part] for part in names if part in packed]
        title = name.replace(parts[0], whole)
        if len(found) < len(parts) or len({tensor.shape[1:] for tensor in found}) > 1:
            continue
        if title in packed:
            continue
        for part in names:
            del packed[part]
        packed[title] = torch.cat(found)
    return packed


def pointwise(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Matrices as kernels of 1x1 convolutions or the reverse, as the backbone has them.

    Args:
        tensors: By the backbone's names.
        targets: The backbone's own tensors.

    Returns:
        (E, D) as (E, D, 1, 1) where the backbone has a kernel, (E, D, 1, 1) as (E, D) where it has
        a matrix. Other tensors are unchanged.
    """
    shaped: Tensors = dict(tensors)
    for name, tensor in tensors.items():
        wanted = targets.get(name, tensor)
        if (tensor.ndim, wanted.ndim) == (2, 4) and wanted.shape[2:] == (1, 1):
            shaped[name] = tensor[:, :, None, None]
        elif (tensor.ndim, wanted.ndim) == (4, 2) and tensor.shape[2:] == (1, 1):
            shaped[name] = tensor[:, :, 0, 0]
    return shaped
