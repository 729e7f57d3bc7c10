"""Weights that fit after a change of size: position embeddings, bias tables, the stem's channels.

Legend: T extra tokens (class, distillation), L positions, D channels, H heads, S side of a table.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_POSITIONS = ('pos_embed', 'absolute_pos_embed')
_BIAS_TABLE = 'relative_position_bias_table'


class Tokens(NamedTuple):
    """How positions are laid out on both sides.

    Attributes:
        found: Extra tokens in front of the file's positions.
        expected: Extra tokens in front of the backbone's positions.
        grid: (rows, columns) of the backbone's positions, if known; None: a square.
        square: Whether the file's grid is a square for sure.
    """

    found: int
    expected: int
    grid: tuple[int, int] | None
    square: bool = False


def backbone_grid(backbone: nn.Module) -> tuple[int, int] | None:
    """(rows, columns) of patches that a backbone was built for, from its own attributes."""
    size, patch = getattr(backbone, 'img_size', None), getattr(backbone, 'patch_size', None)
    if isinstance(size, int):
        size = (size, size)
    if isinstance(patch, (tuple, list)) and patch:
        patch = patch[0]
    if not isinstance(size, (tuple, list)) or len(size) != 2 or not isinstance(patch, int):
        return None
    return int(size[0]) // patch, int(size[1]) // patch


def resized(name: str, value: Tensor, target: Tensor, stem: bool, tokens: Tokens) -> Tensor | None:
    """A file's tensor made to fit a backbone's of another shape, where that has a meaning.

    Args:
        name: The backbone's name of the tensor.
        value: The file's tensor.
        target: The backbone's tensor.
        stem: Whether it belongs to the first stage: only there may channels change.
        tokens: How positions are laid out.

    Returns:
        A tensor of the shape of `target`, or None if the two don't fit.
    """
    last = name.rsplit('.', 1)[-1]
    fitting = None
    if value.shape != target.shape or _may_differ(tokens):
        if last in _POSITIONS and value.ndim == target.ndim == 3:
            fitting = resize_positions(value, target, tokens)
        elif last == _BIAS_TABLE and value.ndim == target.ndim == 2:
            fitting = resize_bias_table(value, target, tokens.grid)
        elif stem and value.ndim == target.ndim == 4:
            fitting = resize_channels(value, target)
    return value if fitting is None and value.shape == target.shape else fitting


def _may_differ(tokens: Tokens) -> bool:
    """Whether grids may differ though their counts are equal: 4 x 4 in the file, 2 x 8 here."""
    return tokens.square and tokens.grid is not None and tokens.grid[0] != tokens.grid[1]


def resize_positions(value: Tensor, target: Tensor, tokens: Tokens) -> Tensor | None:
    """Interpolates absolute positions bicubically; the class token's own position is kept.

    Args:
        value: (1, T + L, D) of the file, its grid square.
        target: (1, T' + L', D) of the backbone.
        tokens: T, T' and the backbone's grid. A position of the class token that the file lacks
            keeps the backbone's value; a distillation token's is dropped.

    Returns:
        (1, T' + L', D), or None if the grids are not rectangles or D differs.

    As mmseg's ``VisionTransformer.resize_pos_embed``, MAE and transformers: bicubic,
    ``align_corners=False``. DINO and DINOv2 add 0.1 to the size, timm takes another cubic kernel
    and smooths where it shrinks: on smooth positions of unit size that differs by less than 0.05.
    """
    side = math.isqrt(max(value.shape[1] - tokens.found, 0))
    rows, columns = tokens.grid or (0, 0)
    if rows * columns != target.shape[1] - tokens.expected:
        rows = columns = math.isqrt(max(target.shape[1] - tokens.expected, 0))
    fits = (
        side > 0
        and side * side == value.shape[1] - tokens.found
        and rows > 0
        and rows * columns == target.shape[1] - tokens.expected
        and value.shape[2] == target.shape[2]
    )
    if not fits:
        return None
    extra = target[:, : tokens.expected].to(value.device, torch.float32, copy=True)  # (1, T', D)
    kept = min(tokens.found, tokens.expected)
    extra[:, :kept] = value[:, :kept]
    flat = value[:, tokens.found :].float()  # (1, L, D)
    grid = flat.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if (rows, columns) != (side, side):
        grid = _bicubic(grid, (rows, columns))
    return torch.cat((extra, grid.flatten(2).transpose(1, 2)), dim=1)


def resize_bias_table(
    value: Tensor, target: Tensor, grid: tuple[int, int] | None = None
) -> Tensor | None:
    """Interpolates a table of relative positions bicubically.

    Args:
        value: (S*S + E, H) of the file; E = 3 entries for the class token in BEiT, 0 in Swin.
        target: (S'*R' + E, H) of the backbone.
        grid: (rows, columns) of the backbone's positions, if it tells and the table is one over
            all of them: S' = 2 rows - 1, R' = 2 columns - 1. Else the table is square.

    Returns:
        (S'*R' + E, H), or None where the file's table is not square, the sizes don't agree or H
        differs.

    Swin interpolates bicubically, as here (``align_corners=False``), transformers bilinearly. The
    original BEiT keeps the step of near offsets and spreads far ones geometrically (cubic splines);
    on a smooth table of unit size from 14 to 20 patches that differs by up to 0.25.
    """
    for extra in (0, 3):
        old = math.isqrt(max(value.shape[0] - extra, 0))
        side = math.isqrt(max(target.shape[0] - extra, 0))
        new = (2 * grid[0] - 1, 2 * grid[1] - 1) if grid and extra else (side, side)
        fits = old * old + extra == value.shape[0] and new[0] * new[1] + extra == target.shape[0]
        if fits and old and min(new) > 0 and value.shape[1] == target.shape[1]:
            table = value[: old * old].float().T.reshape(1, -1, old, old)  # (1, H, S, S)
            if new != (old, old):
                table = _bicubic(table, new)
            return torch.cat((table[0].flatten(1).T, value[old * old :].float()))
    return None


def _bicubic(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, D, h, w) -> (1, D, *size); of a tensor on 'meta' the shape, without torch's detour."""
    if maps.is_meta:
        return maps.new_empty((*maps.shape[:2], *size))
    return F.interpolate(maps, size, mode='bicubic', align_corners=False)


def resize_channels(value: Tensor, target: Tensor) -> Tensor | None:
    """Changes the input channels of a stem's kernel between colour and grey.

    Args:
        value: (D, 3, k, k) or (D, 1, k, k).
        target: (D, 1, k, k) or (D, 3, k, k).

    Returns:
        3 -> 1: the sum, equal on images whose three channels are equal. 1 -> 3: repeated and
        divided by 3, equal to the grey kernel on the mean of the channels. None for other shapes.
    """
    if value.shape[0] != target.shape[0] or value.shape[2:] != target.shape[2:]:
        return None
    if (value.shape[1], target.shape[1]) == (3, 1):
        return value.sum(dim=1, keepdim=True)
    if (value.shape[1], target.shape[1]) == (1, 3):
        return value.repeat(1, 3, 1, 1) / 3
    return None
