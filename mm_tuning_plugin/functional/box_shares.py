"""Shares of the areas of boxes, to inspect a sampler.

Each share is a sum over a rectangle, read from the four corners of a table of running sums, so
there is no loop over boxes. Not part of the paper.

Shape legend: P boxes (y0, x0, y1, x1) on one (H, W) label map, in pixels, half-open; they may reach
outside the map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._checks import check_integers


def box_purity(seg_map: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """The share of each box's pixels that have the label of the box.

    Pixels outside the image do not count; ignored pixels count as having another label.

    Args:
        seg_map: (H, W) integer class of each pixel.
        boxes: (P, 4) int64.
        labels: (P,) int64.

    Returns:
        (P,) float64 in [0, 1]; NaN for a box wholly outside.

    Raises:
        ValueError: An argument has another shape or type.

    Examples:
        >>> seg_map = torch.tensor([[1, 1], [1, 0]])
        >>> box_purity(seg_map, torch.tensor([[0, 0, 2, 2]]), torch.tensor([1]))
        tensor([0.7500], dtype=torch.float64)
    """
    check_integers('seg_map', seg_map, '(H, W)', 2)
    _check_boxes(boxes)
    check_integers('labels', labels, '(P,)', 1)
    inside = _clipped(boxes, seg_map.shape)
    matching = torch.zeros(len(boxes), dtype=torch.int64)
    for label in set(labels.tolist()):  # one table per class
        chosen = labels == label
        matching[chosen] = _sums((seg_map == label).long(), inside[chosen])
    return matching.double() / _areas(inside)


def share_outside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return the share of each box's area outside the image: (P,) float64.

    Args:
        boxes: (P, 4) int64.
        height: H of the image, pixels.
        width: W of the image, pixels.

    Examples:
        >>> share_outside(torch.tensor([[-1, 0, 1, 2]]), height=4, width=4)
        tensor([0.5000], dtype=torch.float64)
    """
    _check_boxes(boxes)
    inside = _areas(_clipped(boxes, torch.Size((height, width))))
    return 1 - inside.double() / _areas(boxes)


def share_covered(boxes: Tensor) -> Tensor:
    """The share of each box's area that the union of the others covers: (P,) float64.

    The area outside the image counts too, as in `sample_patches`.

    Args:
        boxes: (P, 4) int64.

    Examples:
        >>> share_covered(torch.tensor([[0, 0, 2, 2], [1, 0, 5, 2]]))
        tensor([0.5000, 0.2500], dtype=torch.float64)
    """
    _check_boxes(boxes)
    if len(boxes) == 0:
        return torch.zeros(0, dtype=torch.float64)
    origin = boxes[:, :2].amin(dim=0)
    shifted = boxes - origin.repeat(2)
    y0, x0, y1, x1 = shifted.unbind(1)
    height, width = shifted[:, 2:].amax(dim=0).tolist()
    # the number of boxes on each pixel: steps at the four corners, then running sums
    steps = torch.zeros(height + 1, width + 1, dtype=torch.int64)
    one = torch.ones_like(y0)
    for rows, columns, sign in ((y0, x0, 1), (y1, x1, 1), (y0, x1, -1), (y1, x0, -1)):
        steps.index_put_((rows, columns), sign * one, accumulate=True)
    depth = steps.cumsum(0).cumsum(1)[:height, :width]
    return _sums((depth > 1).long(), shifted).double() / _areas(boxes)


def _sums(values: Tensor, boxes: Tensor) -> Tensor:
    """The sums of values (H, W) over boxes (P, 4) inside: (P,)."""
    table = torch.nn.functional.pad(values.cumsum(0).cumsum(1), (1, 0, 1, 0))  # (H + 1, W + 1)
    y0, x0, y1, x1 = boxes.unbind(1)
    return table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0]


def _clipped(boxes: Tensor, shape: torch.Size) -> Tensor:
    limit = torch.tensor([shape[0], shape[1]] * 2)
    return torch.minimum(boxes.clamp(min=0), limit)


def _areas(boxes: Tensor) -> Tensor:
    y0, x0, y1, x1 = boxes.unbind(1)
    return (y1 - y0) * (x1 - x0)


def _check_boxes(boxes: Tensor) -> None:
    check_integers('boxes', boxes, '(P, 4)', 2)
    if boxes.shape[1] != 4:
        raise ValueError(f'boxes must have shape (P, 4), got {tuple(boxes.shape)}')
