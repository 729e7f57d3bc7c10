"""Which pixels are read: dense nodes, class by class, and points of all labelled pixels.

Shape legend: M images, P points on one (H, W) label map.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from ..errors import UserError
from ..structures import LabelledPoints
from ._checks import check_at_least, check_integers
from ._draws import on_host, permutation
from ._pixels import draw_class_pools
from ._runs import find_runs


def sample_points(
    seg_map: Tensor,
    max_per_class: int,
    *,
    max_points: int | None = None,
    ignore_index: int = 255,
    generator: Generator | None = None,
) -> LabelledPoints:
    """Draws at most `max_per_class` pixels of each class of an image, without replacement.

    Uniform over the pixels of a class. Not part of the paper, whose nodes are patches: a node
    here is one position of the feature map.

    Args:
        seg_map: (H, W) integer class of each pixel.
        max_per_class: Most points of one class; a class with fewer pixels gives all of them.
        max_points: Most points altogether; a uniform subset is kept of more.
        ignore_index: Label of the pixels that belong to no class.
        generator: Source of randomness, on the device of the map or on the CPU.

    Returns:
        P points (y, x) and their labels, in no promised order; empty if all is ignored.

    Raises:
        ValueError: If the map is no integer matrix, or a count is no int of at least 1.
    """
    check_integers('seg_map', seg_map, '(H, W)', 2)
    check_at_least('max_per_class', max_per_class, 1)
    if max_points is not None:
        check_at_least('max_points', max_points, 1)
    flat = on_host(seg_map).reshape(-1)
    positions, labels = draw_class_pools(flat, max_per_class, ignore_index, generator)
    chosen = np.flatnonzero(find_runs(labels).ranks < max_per_class)
    if max_points is not None and len(chosen) > max_points:
        chosen = chosen[permutation(len(chosen), generator)[:max_points]]
    positions = positions[chosen]
    width = max(1, seg_map.shape[1])
    points = np.stack((positions // width, positions % width), axis=1)
    return LabelledPoints(
        torch.from_numpy(points).to(seg_map.device),
        torch.from_numpy(labels[chosen].astype(np.int64)).to(seg_map.device),
    )


def sample_labelled_pixels(
    seg_maps: Tensor,
    count: int,
    *,
    ignore_index: int = 255,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draws `count` pixels of each image, uniform over the labelled ones, without replacement.

    An image with fewer labelled pixels gives all of them once, and the rest of its points lie on
    ignored pixels: their label says so, and a loss leaves them out as it does on a whole map. So
    every image gives as many points, and no pixel counts twice.

    Args:
        seg_maps: (M, H, W) integer class of each pixel.
        count: P, points of one image.
        ignore_index: Label of the pixels that belong to no class.
        generator: Source of randomness, on the device of the maps.

    Returns:
        Points (M * P, 3) int64, (image, y, x), image by image; their labels (M, P), of the maps'
        dtype.

    Raises:
        ValueError: If the maps are no integers of three dimensions, or `count` is not positive.
        UserError: If an image has fewer pixels, labelled or not, than points.
    """
    check_integers('seg_maps', seg_maps, '(M, H, W)', 3)
    check_at_least('count', count, 1)
    images, height, width = seg_maps.shape
    if count > height * width:
        raise UserError(
            f'points: {count} an image found, expected at most {height * width}: an image has '
            f'{height} x {width} pixels'
        )
    flat = seg_maps.flatten(1)
    keys = torch.rand(flat.shape, generator=generator, device=flat.device)
    keys.masked_fill_(flat == ignore_index, -1.0)
    position = keys.topk(count, dim=1).indices  # (M, P)
    image = torch.arange(images, device=flat.device)[:, None].expand_as(position)
    points = torch.stack([image, position // width, position % width], dim=2)
    return points.flatten(0, 1), flat.gather(1, position)
