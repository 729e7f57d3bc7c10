"""Where the dense nodes of an image lie: labelled pixels, drawn class by class.

Shape legend: P points on one (H, W) label map.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from ..structures import LabelledPoints
from ._checks import check_at_least, check_integers
from ._draws import permutation
from ._pixels import draw_class_pools, flat_labels, ranks_in_runs


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
    positions, labels = draw_class_pools(
        flat_labels(seg_map, ignore_index), max_per_class, ignore_index, generator
    )
    chosen = (ranks_in_runs(labels)[0] < max_per_class).nonzero().squeeze(1)
    if max_points is not None and len(chosen) > max_points:
        chosen = chosen[permutation(len(chosen), generator, chosen.device)[:max_points]]
    positions = positions[chosen]
    width = max(1, seg_map.shape[1])
    points = torch.stack((positions // width, positions % width), dim=1)
    return LabelledPoints(points, labels[chosen])
