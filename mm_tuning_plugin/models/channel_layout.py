"""Where the channels of a backbone's maps are.

mmseg reads (B, C, H, W); a Swin of timm's, for one, gives (B, H, W, C). Neither says so in a shape.
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
# Sizes at which a backbone is asked again, in the sides of the first image: a small one is cheap,
# larger ones tell of coarse maps, and where a small one is refused.
OTHER_SIDES = ((0.75, 0.5), (1.5, 2.0), (2.0, 3.0))


def channel_dims(backbone: nn.Module, image: Tensor, maps: Sequence[Tensor]) -> list[int]:
    """The dimension of each map that holds its channels.

    Height and width follow the image's size, so a second size tells, wherever the backbone takes
    one. Where it does not, its shapes and what timm says of a network of its own decide.

    Args:
        backbone: It; no mode, weight or random state of it changes.
        image: (1, C, H, W) that it takes.
        maps: What it gives of that image in evaluation.

    Returns:
        1 for (B, C, H, W), 3 for (B, H, W, C), 2 for (B, H, C, W).

    Raises:
        UserError: All dimensions of a map follow the image's size, so none holds channels.
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
    """The dimension of a map that holds channels, by what is known of it.

    Args:
        shape: Of the map, (B, and three more).
        size: (H, W) of the images that it is of, pixels.
        follow: Its dimensions that are known to follow the size of images.
        channels: How many there are; None: not known.
        told: What the network says of itself; None: nothing.

    Returns:
        The one that two others leave. Else, of first and last: the one with that many channels;
        the one whose removal leaves the image's proportions; the one told; the first.
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
    """What timm says of a network that `backbone` wraps: the dimension and number of channels.

    Only of mmseg's own wrapper, which gives what timm gives: a user's may have permuted it.
    """
    network: Any = getattr(backbone, 'timm_model', None)
    told = FORMATS.get(getattr(getattr(network, 'output_fmt', None), 'value', ''))
    info = getattr(network, 'feature_info', None)
    channels = info.channels() if hasattr(info, 'channels') else []
    return told, list(channels) if len(channels) == number else [None] * number


def bring_forward(level: Tensor, dim: int) -> Tensor:
    """The map as (B, C, H, W), of one with its channels in `dim`; the same memory."""
    return level if dim == FIRST else level.movedim(dim, FIRST)


def layout_name(dim: int) -> str:
    """What a map with its channels in `dim` is called: (B, H, W, C)."""
    letters = ['H', 'W']
    letters.insert(dim - 1, 'C')
    return f'(B, {", ".join(letters)})'


def _distortion(cells: Sequence[int], size: Sequence[int]) -> float:
    """How far from the proportions of an image (H, W) a grid of cells is, in [0, 1]."""
    down, right = cells[0] / size[0], cells[1] / size[1]
    return abs(down - right) / max(down, right)


@torch.no_grad()
def _following(
    backbone: nn.Module, image: Tensor, shapes: Sequence[tuple[int, ...]]
) -> list[set[int]]:
    """The dimensions of each map that follow the image's size, as far as it can be asked."""
    follow: list[set[int]] = [set() for _ in shapes]
    for down, right in OTHER_SIDES:
        sides = (max(1, int(image.shape[-2] * down)), max(1, int(image.shape[-1] * right)))
        try:
            with torch.random.fork_rng(devices=[]):
                others = run_probe(backbone, image.new_zeros(*image.shape[:2], *sides), False)
        except Exception:  # a size that it does not take
            continue
        if len(others) != len(shapes):
            continue
        for dims, shape, other in zip(follow, shapes, others):
            dims.update(dim for dim in (1, 2, 3) if shape[dim] != other.shape[dim])
        if all(len(dims) >= 2 for dims in follow):
            break
    return follow
