"""Which dimension of a backbone's feature maps holds the channels.

mmseg expects (B, C, H, W). timm's Swin, for example, returns (B, H, W, C). A shape alone does not
show the difference.
Shape legend: B images, C channels, (H, W) cells of a map.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.models.outputs import run_probe

FIRST = 1  # the dimension of channels that mmseg reads
FORMATS = {'NCHW': FIRST, 'NHWC': 3}  # timm's names
# Sizes of further images, relative to the first. A small one is cheap; larger ones help with
# coarse maps and with backbones that refuse small images.
OTHER_SIDES = ((0.75, 0.5), (1.5, 2.0), (2.0, 3.0))


def channel_dims(backbone: nn.Module, image: Tensor, maps: Sequence[Tensor]) -> list[int]:
    """The dimension of each map that holds its channels.

    Height and width change with the image's size, so an image of another size shows which they
    are. If the backbone accepts one size only, its shapes decide, and timm's own information.

    Args:
        backbone: Its modes, weights and random state do not change.
        image: (1, C, H, W) of a size that it accepts.
        maps: Its outputs for that image in evaluation mode.

    Returns:
        1 for (B, C, H, W), 3 for (B, H, W, C), 2 for (B, H, C, W).

    Raises:
        UserError: All dimensions of a map change with the image's size, so none holds channels.
    """
    shapes = [tuple(level.shape) for level in maps]
    follow = _following(backbone, image, shapes)
    for shape, dims in zip(shapes, follow):
        if len(dims) == 3:
            height, width = image.shape[-2:]
            raise UserError(
                'model.backbone',
                f'{type(backbone).__name__} gives {shape} for an image of {height} x {width}, '
                'and every length follows the size of images',
                'expected feature maps (B, C, H, W) with as many channels for every size',
            )
    told, channels = told_by_timm(backbone, len(maps))
    size = tuple(image.shape[-2:])
    return [
        channel_dim(shape, size, dims, number, told)
        for shape, dims, number in zip(shapes, follow, channels)
    ]


def channel_dim(
    shape: Sequence[int],
    size: Sequence[int],
    follow: Collection[int] = (),
    channels: int | None = None,
    told: int | None = None,
) -> int:
    """Find the dimension of a map that holds channels.

    Args:
        shape: Of the map, (B, and three more).
        size: (H, W) of the images, pixels.
        follow: Dimensions that are known to change with the size of images.
        channels: Number of channels; None: not known.
        told: The dimension that the network itself declares; None: unknown.

    Returns:
        If two dimensions follow the image, the third. Else the first or the last one, decided by,
        in this order: the number of channels, the proportions of the image, `told`; at last the
        first.

    Examples:
        >>> channel_dim((1, 8, 4, 96), size=(64, 32))
        3
    """
    if len(follow) == 2:
        return next(dim for dim in (1, 2, 3) if dim not in follow)
    possible = [dim for dim in FORMATS.values() if dim not in follow]
    possible = [dim for dim in possible if shape[dim] == channels] or possible
    errors = {dim: _distortion([n for i, n in enumerate(shape) if i not in (0, dim)], size)
              for dim in possible}  # fmt: skip
    possible = [dim for dim in possible if errors[dim] == min(errors.values())]
    return told if told in possible else possible[0]


def told_by_timm(backbone: nn.Module, number: int) -> tuple[int | None, list[int | None]]:
    """The dimension of channels and their numbers, as timm states them.

    Only for mmseg's own wrapper, which returns timm's maps unchanged: a user's may permute them.
    """
    network: Any = getattr(backbone, 'timm_model', None)
    told = FORMATS.get(getattr(getattr(network, 'output_fmt', None), 'value', ''))
    info: Any = getattr(network, 'feature_info', None)
    channels = info.channels() if hasattr(info, 'channels') else []
    return told, list(channels) if len(channels) == number else [None] * number


def bring_forward(level: Tensor, dim: int) -> Tensor:
    """View a map with its channels in `dim` as (B, C, H, W)."""
    return level if dim == FIRST else level.movedim(dim, FIRST)


def layout_name(dim: int) -> str:
    """The layout of a map with its channels in `dim`, as text: '(B, H, W, C)'."""
    letters = ['H', 'W']
    letters.insert(dim - 1, 'C')
    return f'(B, {", ".join(letters)})'


def _distortion(cells: Sequence[int], size: Sequence[int]) -> float:
    """How much the proportions of a grid differ from those of an image (H, W), in [0, 1]."""
    down, right = cells[0] / size[0], cells[1] / size[1]
    return abs(down - right) / max(down, right)


@torch.no_grad()
def _following(
    backbone: nn.Module, image: Tensor, shapes: Sequence[tuple[int, ...]]
) -> list[set[int]]:
    """The dimensions of each map that change with the image's size, as far as sizes can vary."""
    follow: list[set[int]] = [set() for _ in shapes]
    for down, right in OTHER_SIDES:
        sides = (max(1, int(image.shape[-2] * down)), max(1, int(image.shape[-1] * right)))
        try:
            with torch.random.fork_rng(devices=[]):
                others = run_probe(backbone, image.new_zeros(*image.shape[:2], *sides), False)
        except Exception:  # a size that it does not accept
            continue
        if len(others) != len(shapes):
            continue
        for dims, shape, other in zip(follow, shapes, others):
            dims.update(dim for dim in (1, 2, 3) if shape[dim] != other.shape[dim])
        if all(len(dims) >= 2 for dims in follow):
            break
    return follow
