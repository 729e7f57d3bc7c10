"""Draw pixels of label maps: per class, as nodes, or from all labelled pixels.

Shape legend: M images, P points on one (H, W) label map.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor

from mm_tuning_plugin.functional.runs import find_runs

from ..errors import UserError
from ..structures import LabelledPoints
from ._checks import check_at_least, check_integers, check_share
from ._draws import on_host, permutation
from ._pixels import draw_class_pools

BORDER = 3  # pixels: a pixel this close to another label is near a border


def sample_points(
    seg_map: Tensor,
    max_per_class: int,
    *,
    max_points: int | None = None,
    border_share: float = 0.0,
    ignore_index: int = 255,
    generator: Generator | None = None,
) -> LabelledPoints:
    """Draw at most `max_per_class` pixels of each class of an image, without replacement.

    Uniform over the pixels of a class. Not part of the paper, whose nodes are patches; here a node
    is one position of the feature map.

    Args:
        seg_map: (H, W) integer class of each pixel.
        max_per_class: Most points of one class; a class with fewer pixels gives all of them.
        max_points: Most points in total; of more, a uniform subset is kept.
        border_share: Share of a class's points that are drawn within `BORDER` pixels of another
            label, as far as there are such pixels.
        ignore_index: Label of the pixels that belong to no class.
        generator: Source of randomness, on the device of the map or on the CPU.

    Returns:
        P points (y, x) and their labels, in any order; empty if all pixels are ignored.

    Raises:
        ValueError: The map is not an integer matrix, a count is not an int of at least 1, or the
            share is not in [0, 1].

    Examples:
        >>> seg_map = torch.tensor([[0, 255, 255], [255, 255, 4]])
        >>> drawn = sample_points(seg_map, 8, generator=torch.Generator().manual_seed(0))
        >>> sorted(zip(drawn.points.tolist(), drawn.labels.tolist()))
        [([0, 0], 0), ([1, 2], 4)]
    """
    check_integers('seg_map', seg_map, '(H, W)', 2)
    check_at_least('max_per_class', max_per_class, 1)
    check_share('border_share', border_share)
    if max_points is not None:
        check_at_least('max_points', max_points, 1)
    flat = on_host(seg_map).reshape(-1)
    near = round(border_share * max_per_class)
    drawn = []
    if near:
        outside = np.where(near_border(seg_map).reshape(-1), flat, flat.dtype.type(ignore_index))
        drawn.append(_draw(outside, near, ignore_index, generator))
    if near < max_per_class:
        drawn.append(_draw(flat, max_per_class - near, ignore_index, generator))
    positions = np.concatenate(drawn)
    if len(drawn) > 1:
        positions = np.unique(positions)  # a pixel may have been drawn both ways
    if max_points is not None and len(positions) > max_points:
        positions = positions[permutation(len(positions), generator)[:max_points]]
    labels = flat[positions]
    width = max(1, seg_map.shape[1])
    points = np.stack((positions // width, positions % width), axis=1)
    return LabelledPoints(
        torch.from_numpy(points).to(seg_map.device),
        torch.from_numpy(labels.astype(np.int64)).to(seg_map.device),
    )


def near_border(seg_map: Tensor) -> NDArray[np.bool_]:
    """Which pixels have another label within `BORDER` rows and columns.

    Args:
        seg_map: (H, W) integers below 2**24; the ignore label counts as another label.

    Returns:
        (H, W), on the host.
    """
    values = torch.from_numpy(on_host(seg_map).astype(np.float32))[None, None]
    if not values.numel():
        return np.zeros(tuple(seg_map.shape), dtype=np.bool_)
    side = 2 * BORDER + 1
    highest = F.max_pool2d(values, side, 1, BORDER)
    lowest = -F.max_pool2d(-values, side, 1, BORDER)
    return (highest != lowest)[0, 0].numpy()


def _draw(
    flat: NDArray[Any], count: int, ignore_index: int, generator: Generator | None
) -> NDArray[np.int64]:
    """At most `count` positions of each class of a flat map."""
    positions, labels = draw_class_pools(flat, count, ignore_index, generator)
    return positions[find_runs(labels).ranks < count]


def sample_labelled_pixels(
    seg_maps: Tensor,
    count: int,
    *,
    ignore_index: int = 255,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw `count` pixels of each image, uniform over the labelled ones, without replacement.

    If an image has fewer labelled pixels, all of them are drawn, and the other points are ignored
    pixels with the ignore label, which a loss skips as on a whole map. So every image gives the
    same number of points, and no pixel occurs twice.

    Args:
        seg_maps: (M, H, W) integer class of each pixel.
        count: P, points of one image.
        ignore_index: Label of the pixels that belong to no class.
        generator: Source of randomness, on the device of the maps.

    Returns:
        Points (M * P, 3) int64, (image, y, x), sorted by image, and their labels (M, P), of the
        maps' dtype.

    Raises:
        ValueError: The maps are not an integer tensor of three dimensions, or `count` is not
            positive.
        UserError: An image has fewer pixels, labelled or not, than points.

    Examples:
        >>> seg_maps = torch.tensor([[[255, 2], [255, 255]]])
        >>> points, labels = sample_labelled_pixels(seg_maps, 1)
        >>> points, labels
        (tensor([[0, 0, 1]]), tensor([[2]]))
    """
    check_integers('seg_maps', seg_maps, '(M, H, W)', 3)
    check_at_least('count', count, 1)
    images, height, width = seg_maps.shape
    if count > height * width:
        raise UserError(
            'points',
            f'{count} an image found',
            f'expected at most {height * width}: an image has {height} x {width} pixels',
        )
    flat = seg_maps.flatten(1)
    keys = torch.rand(flat.shape, generator=generator, device=flat.device)
    keys.masked_fill_(flat == ignore_index, -1.0)
    position = keys.topk(count, dim=1).indices  # (M, P)
    image = torch.arange(images, device=flat.device)[:, None].expand_as(position)
    points = torch.stack([image, position // width, position % width], dim=2)
    return points.flatten(0, 1), flat.gather(1, position)
