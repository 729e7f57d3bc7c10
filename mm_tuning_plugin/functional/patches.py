"""The mix step: where the labelled square patches of an image lie.

Shape legend: P patches on one (H, W) label map, K candidates. Boxes are (y0, x0, y1, x1) in pixels,
half-open; they may reach outside the image.

Facts from Zhan et al., AAAI 2018 (arXiv 1712.00661) and its released code (github
XiaohangZhan/mix-and-match at 8d4c9df). Deviations, each of them from a slip of the released code:

* Without a background pixel no background patch is drawn; there, foreground gets the label 0.
* The ignore label is never a class; there, it becomes one where a crop shows nothing else.
* Whether there is a background class is an option; there, class 0 always is (road in Cityscapes).
* Overlap is relative to the area of the candidate; there, to that of the first candidate.
"""

from __future__ import annotations

import math
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from torch import Generator, Tensor

from ..structures import PatchBoxes
from ._checks import check_at_least, check_integers, check_share, describe
from ._draws import integers
from ._pixels import draw_class_pools, draw_pixels, flat_labels, ranks_in_runs

CANDIDATES = 5  # per foreground patch that is wanted


def sample_patches(
    seg_map: Tensor,
    num_patches: int,
    size_range: tuple[int, int] | tuple[float, float] = (64, 256),
    *,
    background_index: int | None = None,
    background_ratio: float = 0.1,
    ignore_index: int = 255,
    max_overlap: float = 0.6,
    balance: str = 'pixel',
    generator: Generator | None = None,
) -> PatchBoxes:
    """Draws labelled squares on one image: random place, random size, class of the centre pixel.

    Of the patches, max(1, int(background_ratio * num_patches)) are background if the map shows
    any; the rest is foreground. For these, five times as many candidates are drawn; in the
    order of drawing, a candidate of which more than `max_overlap` is covered by the union of
    those kept is dropped; if too few are left, the first of the dropped make up the number.

    Args:
        seg_map: (H, W) integer class of each pixel.
        num_patches: Patches to draw, at least 1.
        size_range: Least and greatest side, both inclusive: two ints are pixels, two floats
            fractions of the map's shorter side. Sides are even and uniform in the range (its ends
            round inwards if ints, to the nearest even number if fractions).
        background_index: Class that is background; None if the data set has none.
        background_ratio: Share of background patches, in [0, 1]; one at least is drawn.
        ignore_index: Label of the pixels that belong to no class.
        max_overlap: Share of a candidate's own area, in [0, 1]. Foreground only. What lies
            outside the image counts as any other area.
        balance: 'pixel' draws the centres uniformly over the foreground pixels; 'class' (not in the
            paper) first draws a class uniformly among the foreground classes of this image, then
            one of its pixels, none twice before the class is used up.
        generator: Source of randomness, on the device of the map or on the CPU.

    Returns:
        P = num_patches squares of which the pixel at (side/2, side/2) is the centre; foreground
        first. Background fills up where there is no foreground and the other way about, so P is 0
        only where all pixels are ignored (or there are none).

    Raises:
        ValueError: On a map that is no integer matrix, or an option out of its range.
    """
    _check_options(
        seg_map, num_patches, background_index, background_ratio, ignore_index, max_overlap, balance
    )
    least, most = _even_range(size_range, seg_map.shape)
    flat = flat_labels(seg_map, background_index, ignore_index)
    background = flat.new_empty(0, dtype=torch.int64)
    if background_index is not None:
        quota = max(1, int(background_ratio * num_patches))
        background = draw_pixels(flat, partial(torch.eq, other=background_index), quota, generator)
    quota = num_patches - len(background)
    centres = _foreground(
        flat, CANDIDATES * quota, background_index, ignore_index, balance, generator
    )
    if len(centres) == 0 and quota and len(background):  # nothing but background
        background = draw_pixels(
            flat, partial(torch.eq, other=background_index), num_patches, generator
        )
    split = len(centres)
    centres = torch.cat((centres, background))
    sides = 2 * integers((most - least) // 2 + 1, len(centres), generator, flat.device) + least
    boxes = _boxes_around(centres, sides, seg_map.shape[1])
    kept = spread_out(boxes[:split], quota, max_overlap)
    boxes = torch.cat((boxes.index_select(0, kept), boxes[split:]))
    centres = torch.cat((centres.index_select(0, kept), centres[split:]))
    return PatchBoxes(boxes, flat.index_select(0, centres).long())


def spread_out(boxes: Tensor, count: int, max_overlap: float) -> Tensor:
    """Chooses `count` of K boxes, in order, such that they cover each other little.

    A box of which more than `max_overlap` of its own area is covered by the union of those
    kept so far is dropped; if fewer than `count` are kept, the first of the dropped fill up.

    Exact for any boxes: the mask of what is covered has one cell for each rectangle that the
    edges of all boxes cut out of the plane (at most 2K - 1 a side, whatever the size of the image),
    and is summed with the cells' own sides. Each decision hangs on all before it, so this is a
    loop; it ends with the last box needed, and one turn is one small slice of the mask in NumPy
    (about a fifth of the cost of a tensor operation at this size).

    Args:
        boxes: (K, 4) int64.
        count: How many to choose.
        max_overlap: In [0, 1].

    Returns:
        (min(count, K),) int64 indices: the kept in order, then the filled up in order.
    """
    corners = boxes.cpu().numpy()  # (K, 4)
    edges = corners.reshape(-1, 2)  # (2K, 2) y and x, two rows a box
    ranks = edges.argsort(axis=0).argsort(axis=0).reshape(-1, 4)  # of equal edges in any order
    heights, widths = np.diff(np.sort(edges.T)).astype(np.float64)  # (2K - 1,) sides of the cells
    covered = np.zeros((len(heights), len(widths)))  # sums of pixels are exact in float64
    limits = max_overlap * ((corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]))
    kept: list[int] = []
    dropped: list[int] = []
    for index, (top, left, bottom, right) in enumerate(ranks.tolist()):
        if len(kept) == count:
            break
        cells = covered[top:bottom, left:right]
        if heights[top:bottom] @ cells @ widths[left:right] > limits[index]:
            dropped.append(index)
        else:
            cells[...] = 1
            kept.append(index)
    kept += dropped[: count - len(kept)]
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device)


def _foreground(
    flat: Tensor,
    count: int,
    background_index: int | None,
    ignore_index: int,
    balance: str,
    generator: Generator | None,
) -> Tensor:
    """Draws centres of candidates, (count,) flat positions, or none where nothing is foreground."""
    if count == 0:
        return flat.new_empty(0, dtype=torch.int64)
    if balance == 'class':
        return _class_balanced(flat, count, background_index, ignore_index, generator)
    if background_index is None:
        return draw_pixels(flat, partial(torch.ne, other=ignore_index), count, generator)
    return draw_pixels(
        flat, lambda c: (c != ignore_index) & (c != background_index), count, generator
    )


def _class_balanced(
    flat: Tensor,
    count: int,
    background_index: int | None,
    ignore_index: int,
    generator: Generator | None,
) -> Tensor:
    """Draws a class uniformly, then one of its pixels, `count` times: (count,) flat positions."""
    positions, labels = draw_class_pools(flat, count, ignore_index, generator)
    if background_index is not None:
        foreground = labels != background_index
        positions, labels = positions[foreground], labels[foreground]
    if len(positions) == 0:
        return positions
    _, begins, sizes = ranks_in_runs(labels)
    picks, order = integers(len(begins), count, generator, flat.device).sort(stable=True)
    ranks = ranks_in_runs(picks)[0]  # how often the class was picked before
    drawn = torch.empty_like(picks)
    drawn[order] = positions[begins[picks] + ranks % sizes[picks]]
    return drawn


def _boxes_around(centres: Tensor, sides: Tensor, width: int) -> Tensor:
    """Returns the squares (K, 4) of even sides (K,) around flat positions (K,)."""
    if len(centres) == 0:
        return centres.new_empty(0, 4)
    y0, x0 = centres // width - sides // 2, centres % width - sides // 2
    return torch.stack((y0, x0, y0 + sides, x0 + sides), dim=1)


def _even_range(size_range: tuple[float, float], shape: torch.Size) -> tuple[int, int]:
    """Returns the least and the greatest even side, in pixels."""
    problem = 'must be two ints (pixels) or two floats (fractions of the shorter side), '
    if not isinstance(size_range, (tuple, list)) or len(size_range) != 2:
        raise ValueError(f'size_range {problem}got {describe(size_range)}')
    low, high = size_range
    pixels = all(isinstance(end, Integral) and not isinstance(end, bool) for end in size_range)
    fractions = all(isinstance(end, Real) and not isinstance(end, Integral) for end in size_range)
    if not (pixels or fractions):
        raise ValueError(f'size_range {problem}got {describe(size_range)}')
    if not (0 < low <= high and math.isfinite(high)):
        raise ValueError(f'size_range must rise and be above 0, got {describe(size_range)}')
    if fractions:
        least, most = (max(2, 2 * round(float(end) * min(shape) / 2)) for end in size_range)
    else:
        least, most = 2 * ((int(low) + 1) // 2), 2 * (int(high) // 2)
    if least > most:
        raise ValueError(f'size_range must hold an even side, got {describe(size_range)}')
    return least, most


def _check_options(
    seg_map: Tensor,
    num_patches: int,
    background_index: int | None,
    background_ratio: float,
    ignore_index: int,
    max_overlap: float,
    balance: str,
) -> None:
    check_integers('seg_map', seg_map, '(H, W)', 2)
    check_at_least('num_patches', num_patches, 1)
    check_share('background_ratio', background_ratio)
    check_share('max_overlap', max_overlap)
    if balance not in ('pixel', 'class'):
        raise ValueError(f"balance must be 'pixel' or 'class', got {describe(balance)}")
    if background_index is not None and background_index == ignore_index:
        raise ValueError(
            f'background_index must differ from ignore_index, got {background_index} for both'
        )
