"""Draw pixels of a label map by their labels, if possible without listing the whole map.

Shape legend: L pixels of the label map, flattened; K pixels drawn.

Positions are drawn over the whole map, and those with a wanted label are kept. They are uniform
over the wanted pixels, at a cost that does not grow with the map. Pixels are listed only if they
are so rare that a few rounds do not find enough of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Generator

from mm_tuning_plugin.functional.runs import find_runs, stable_order

from ._draws import Indices, integers, permutation

Labels = NDArray[np.integer]
_TABLE = 1 << 16  # smaller labels are looked up in a table


class ClassPools(NamedTuple):
    """Candidate pixels sorted by class, shuffled within a class, without repeats."""

    positions: Indices  # (K,) flat
    labels: Labels  # (K,) ascending


def draw_pixels(
    flat: Labels,
    wanted: Callable[[Labels], NDArray[np.bool_]],
    count: int,
    generator: Generator | None,
) -> Indices:
    """Draw `count` pixels uniformly, with replacement, among those that are wanted.

    Args:
        flat: (L,) labels.
        wanted: Returns elementwise which labels are wanted.
        count: Number of pixels to draw.
        generator: Source of randomness.

    Returns:
        (count,) flat positions; none if the map has no wanted pixel.
    """
    found = np.empty(0, dtype=np.int64)
    trials = 8 + 5 * count // 4
    for _ in range(3):
        if trials > min(len(flat) // 8, 2048 + 256 * count):  # listing is cheaper
            break
        tried = integers(len(flat), trials, generator)
        hits = tried[wanted(flat[tried])]
        found = np.concatenate((found, hits)) if len(found) else hits
        if len(found) >= count:
            return found[:count]
        trials = 2 * trials * (count - len(found)) // max(1, len(hits))  # from the share of hits
    listed = np.flatnonzero(wanted(flat))
    if len(listed) == 0:
        return listed
    return np.concatenate((found, listed[integers(len(listed), count - len(found), generator)]))


def draw_class_pools(
    flat: Labels, per_class: int, ignore_index: int, generator: Generator | None
) -> ClassPools:
    """Draw at least `per_class` pixels of each class present, or all of them, without replacement.

    If random positions contain at least `per_class` different pixels of a class, these are taken.
    All pixels of the other, rare classes are listed. Either way every subset of a class's pixels of
    one size is equally likely, because the choice depends only on a count.

    Args:
        flat: (L,) labels.
        per_class: Sufficient number of pixels of a class.
        ignore_index: The label that is not a class.
        generator: Source of randomness.
    """
    trials = max(4096, 64 * per_class)
    pool = np.empty(0, dtype=np.int64)
    served = np.array([ignore_index])
    if len(flat) == 0:
        return ClassPools(pool, pool)
    if trials < len(flat) // 4:
        tried = np.sort(integers(len(flat), trials, generator))
        tried = tried[find_runs(tried).begins]  # no pixel twice
        labels = flat[tried]
        order = stable_order(labels)
        begins, sizes, _ = find_runs(labels[order])
        classes = labels[order[begins]]
        enough = (sizes >= per_class) & (classes != ignore_index)
        pool = tried[order[enough.repeat(sizes)]]
        served = np.concatenate((served, classes[enough]))
    rare = np.flatnonzero(_outside(flat, served))
    positions = np.concatenate((pool, rare))
    positions = positions[permutation(len(positions), generator)]
    labels = flat[positions]
    order = stable_order(labels)
    return ClassPools(positions[order], labels[order])


def _outside(flat: Labels, labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the entries (L,) that are not one of the labels."""
    low, high = int(flat.min()), int(flat.max())
    if low < 0 or high >= _TABLE:
        return np.isin(flat, labels, invert=True)
    table = np.ones(high + 1, dtype=np.bool_)
    table[labels[(labels >= 0) & (labels <= high)]] = False
    return table[flat]  # 20 times as fast as isin
