"""The mix step: draw the boxes of labelled square patches of an image.

Shape legend: P patches on one (H, W) label map, K candidates. Boxes are (y0, x0, y1, x1) in pixels,
half-open; they may reach outside the image.

Facts from Zhan et al., AAAI 2018 (arXiv 1712.00661) and its released code (github
XiaohangZhan/mix-and-match at 8d4c9df). Deviations, each from an error in the released code:

* Without a background pixel no background patch is drawn; there, foreground gets the label 0.
* The ignore label is never a class; there, it becomes one if a crop contains nothing else.
* The background class is an option; there, it is always class 0 (road in Cityscapes).
* Overlap is relative to the area of the candidate; there, to the area of the first candidate. The
  area outside the image counts too; there, only the area inside.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import numpy as np
import torch
from torch import Generator, Tensor

from mm_tuning_plugin.functional.runs import find_runs, stable_order

from ..structures import PatchBoxes
from ._checks import check_at_least, check_integers, check_share, describe
from ._draws import Indices, integers, on_host
from ._pixels import Labels, draw_class_pools, draw_pixels

CANDIDATES = 5  # per wanted foreground patch

Box = tuple[int, int, int, int]


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
    """Draw labelled squares on one image: random centre, random size, class of the centre pixel.

    If the map has background, max(1, int(background_ratio * num_patches)) of the patches are
    background, the others foreground. For the foreground, five times as many candidates are drawn.
    In the order of drawing, a candidate is dropped if the union of those kept covers more than
    `max_overlap` of it. If too few are left, the first of the dropped ones are taken.

    Args:
        seg_map: (H, W) integer class of each pixel.
        num_patches: Patches to draw, at least 1.
        size_range: Smallest and largest side, both inclusive: two ints are pixels, two floats are
            fractions of the map's shorter side. Sides are even and uniform in the range (its ends
            are rounded inwards if ints, to the nearest even number if fractions).
        background_index: The background class; None if the data set has none.
        background_ratio: Share of background patches, in [0, 1]; one at least is drawn.
        ignore_index: Label of the pixels that belong to no class.
        max_overlap: Share of a candidate's own area, in [0, 1], including the area outside the
            image. Foreground only.
        balance: 'pixel' draws the centres uniformly over the foreground pixels; 'class' (not in the
            paper) first draws a class uniformly among the foreground classes of this image, then
            one of its pixels, without repeats until all pixels of the class are used.
        generator: Source of randomness, on the device of the map or on the CPU.

    Returns:
        P = num_patches squares, foreground first; the centre is the pixel at (side/2, side/2).
        Without foreground all patches are background, and vice versa; P is 0 only if no pixel has
        a class.

    Raises:
        ValueError: The map is not an integer matrix, or an option is out of its range.

    Examples:
        >>> seg_map = torch.zeros(64, 64, dtype=torch.int64)
        >>> drawn = sample_patches(seg_map, 1, (8, 8), generator=torch.Generator().manual_seed(0))
        >>> drawn.boxes[:, 2:] - drawn.boxes[:, :2], drawn.labels
        (tensor([[8, 8]]), tensor([0]))
    """
    _check_options(
        seg_map, num_patches, background_index, background_ratio, ignore_index, max_overlap, balance
    )
    least, most = _even_range(size_range, seg_map.shape)
    flat = on_host(seg_map).reshape(-1)
    is_background = partial(np.equal, background_index)
    background = np.empty(0, dtype=np.int64)
    if background_index is not None:
        quota = max(1, int(background_ratio * num_patches))
        background = draw_pixels(flat, is_background, quota, generator)
    quota = num_patches - len(background)
    centres = _foreground(
        flat, CANDIDATES * quota, background_index, ignore_index, balance, generator
    )
    if len(centres) == 0 and quota and len(background):  # nothing but background
        background = draw_pixels(flat, is_background, num_patches, generator)
    split = len(centres)
    centres = np.concatenate((centres, background)) if len(background) else centres
    halves = least // 2 + integers((most - least) // 2 + 1, len(centres), generator)
    boxes = _boxes_around(centres, halves, seg_map.shape[1])
    chosen = spread_out(boxes[:split], quota, max_overlap) + list(range(split, len(centres)))
    return PatchBoxes(
        torch.from_numpy(boxes[chosen]).to(seg_map.device),
        torch.from_numpy(flat[centres[chosen]].astype(np.int64)).to(seg_map.device),
    )


def spread_out(boxes: Indices, count: int, max_overlap: float) -> list[int]:
    """Choose `count` of K boxes, in order, that overlap little.

    A box is dropped if the union of those kept so far covers more than `max_overlap` of its area.
    If fewer than `count` are kept, the first of the dropped ones are added.

    The result is exact for all boxes. Each decision depends on all earlier ones, so this is a loop,
    which ends with the last box needed. For the few rectangles of one iteration, Python's integers
    take a third of the time of arrays.

    Args:
        boxes: (K, 4).
        count: How many to choose.
        max_overlap: In [0, 1].

    Returns:
        min(count, K) indices: the kept boxes in order, then the added ones in order.
    """
    kept: dict[int, Box] = {}
    dropped: list[int] = []
    for index, box in enumerate(zip(*boxes.T.tolist())):
        if len(kept) == count:
            break
        if _is_covered(box, kept.values(), max_overlap):
            dropped.append(index)
        else:
            kept[index] = box
    return [*kept, *dropped[: count - len(kept)]]


def _is_covered(box: Box, others: Iterable[Box], share: float) -> bool:
    """Whether the union of the others covers more than a share of a box.

    Mostly the single overlaps decide: one exceeds the share, or their sum does not.
    """
    top, left, bottom, right = box
    area = (bottom - top) * (right - left)
    limit, total, near = share * area, 0, []
    for other in others:
        y0, x0, y1, x1 = other
        if y0 < bottom and y1 > top and x0 < right and x1 > left:
            # min() and max() would take most of the time
            height = (y1 if y1 < bottom else bottom) - (y0 if y0 > top else top)
            width = (x1 if x1 < right else right) - (x0 if x0 > left else left)
            if height * width > limit:
                return True
            total += height * width
            near.append(other)
    return total > limit and area - _free_area(box, near) > limit


def _free_area(box: Box, others: Iterable[Box]) -> int:
    """The area of a box that none of the others covers.

    Each of them splits a free rectangle into the parts above, below, left and right of it.
    """
    free = [box]
    for y0, x0, y1, x1 in others:
        parts, free = free, []
        for part in parts:
            top, left, bottom, right = part
            if y0 >= bottom or y1 <= top or x0 >= right or x1 <= left:
                free.append(part)
                continue
            if top < y0:
                free.append((top, left, y0, right))
                top = y0
            if y1 < bottom:
                free.append((y1, left, bottom, right))
                bottom = y1
            if left < x0:
                free.append((top, left, bottom, x0))
            if x1 < right:
                free.append((top, x1, bottom, right))
    return sum([(bottom - top) * (right - left) for top, left, bottom, right in free])


def _foreground(
    flat: Labels,
    count: int,
    background_index: int | None,
    ignore_index: int,
    balance: str,
    generator: Generator | None,
) -> Indices:
    """Draw centres of candidates, (count,) flat positions; none if there is no foreground."""
    if count == 0:
        return np.empty(0, dtype=np.int64)
    if balance == 'class':
        return _class_balanced(flat, count, background_index, ignore_index, generator)
    if background_index is None:
        return draw_pixels(flat, partial(np.not_equal, ignore_index), count, generator)
    return draw_pixels(
        flat, lambda c: (c != ignore_index) & (c != background_index), count, generator
    )


def _class_balanced(
    flat: Labels,
    count: int,
    background_index: int | None,
    ignore_index: int,
    generator: Generator | None,
) -> Indices:
    """Draw a class uniformly, then one of its pixels, `count` times: (count,) flat positions."""
    positions, labels = draw_class_pools(flat, count, ignore_index, generator)
    if background_index is not None:
        foreground = labels != background_index
        positions, labels = positions[foreground], labels[foreground]
    if len(positions) == 0:
        return positions
    begins, sizes, _ = find_runs(labels)
    picks = integers(len(begins), count, generator)
    order = stable_order(picks)
    picks = picks[order]
    ranks = find_runs(picks).ranks  # number of earlier picks of the class
    drawn = np.empty_like(picks)
    drawn[order] = positions[begins[picks] + ranks % sizes[picks]]
    return drawn


def _boxes_around(centres: Indices, halves: Indices, width: int) -> Indices:
    """The squares (K, 4) around flat positions (K,), given half their sides (K,)."""
    y, x = np.divmod(centres, max(1, width))
    return np.array((y - halves, x - halves, y + halves, x + halves)).T


def _even_range(size_range: tuple[float, float], shape: torch.Size) -> tuple[int, int]:
    """The smallest and the largest even side, in pixels."""
    problem = 'must be two ints (pixels) or two floats (fractions of the shorter side), '
    if not isinstance(size_range, (tuple, list)) or len(size_range) != 2:
        raise ValueError(f'size_range {problem}got {describe(size_range)}')
    low, high = size_range
    pixels = all(isinstance(end, (int, np.integer)) and end is not True for end in size_range)
    fractions = all(isinstance(end, (float, np.floating)) for end in size_range)
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
