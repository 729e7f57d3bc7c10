"""The mix step: where the labelled square patches of an image lie.

Shape legend: P patches on one (H, W) label map, K candidates. Boxes are (y0, x0, y1, x1) in pixels,
half-open; they may reach outside the image.

Facts from Zhan et al., AAAI 2018 (arXiv 1712.00661) and its released code (github
XiaohangZhan/mix-and-match at 8d4c9df). Deviations, each of them from a slip of the released code:

* Without a background pixel no background patch is drawn; there, foreground gets the label 0.
* The ignore label is never a class; there, it becomes one where a crop shows nothing else.
* Whether there is a background class is an option; there, class 0 always is (road in Cityscapes).
* Overlap is relative to the area of the candidate; there, to that of the first candidate. What is
  covered counts wherever it lies; there, inside the image only.
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

CANDIDATES = 5  # per foreground patch that is wanted

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
    """Chooses `count` of K boxes, in order, such that they cover each other little.

    A box of which more than `max_overlap` of its own area is covered by the union of those
    kept so far is dropped; if fewer than `count` are kept, the first of the dropped fill up.

    Exact for any boxes, whatever the size of the image. Each decision hangs on all before it, so
    this is a loop; it ends with the last box needed. A turn handles a few rectangles, for which
    Python's own integers take a third of the time of arrays.

    Args:
        boxes: (K, 4).
        count: How many to choose.
        max_overlap: In [0, 1].

    Returns:
        min(count, K) indices: the kept in order, then the filled up in order.
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
    """Returns whether the union of the others covers more than a share of a box.

    Mostly the single overlaps decide: one alone is more than that, or all together are not.
    """
    top, left, bottom, right = box
    area = (bottom - top) * (right - left)
    limit, total, near = share * area, 0, []
    for other in others:
        y0, x0, y1, x1 = other
        if y0 < bottom and y1 > top and x0 < right and x1 > left:
            # min() and max() would take longer than all the rest
            height = (y1 if y1 < bottom else bottom) - (y0 if y0 > top else top)
            width = (x1 if x1 < right else right) - (x0 if x0 > left else left)
            if height * width > limit:
                return True
            total += height * width
            near.append(other)
    return total > limit and area - _free_area(box, near) > limit


def _free_area(box: Box, others: Iterable[Box]) -> int:
    """Returns the area of a box that none of the others covers.

    Each of them leaves of what is free the parts above, below, to the left and to the right of it.
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
    """Draws centres of candidates, (count,) flat positions, or none where nothing is foreground."""
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
    """Draws a class uniformly, then one of its pixels, `count` times: (count,) flat positions."""
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
    ranks = find_runs(picks).ranks  # how often the class was picked before
    drawn = np.empty_like(picks)
    drawn[order] = positions[begins[picks] + ranks % sizes[picks]]
    return drawn


def _boxes_around(centres: Indices, halves: Indices, width: int) -> Indices:
    """Returns the squares (K, 4) around flat positions (K,), given half their sides (K,)."""
    y, x = np.divmod(centres, max(1, width))
    return np.array((y - halves, x - halves, y + halves, x + halves)).T


def _even_range(size_range: tuple[float, float], shape: torch.Size) -> tuple[int, int]:
    """Returns the least and the greatest even side, in pixels."""
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
