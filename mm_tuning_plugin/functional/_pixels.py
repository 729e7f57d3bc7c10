"""Drawing pixels of a label map by what they show, without listing the map where that is avoidable.

Shape legend: L pixels of the label map, flattened; K pixels drawn.

Positions drawn over the whole map and kept where they show what is wanted are uniform over the
wanted pixels, at a cost that does not grow with the map. Only what is so rare that a few rounds do
not find enough of it is listed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ._draws import integers, permutation

_TABLE = 1 << 16  # labels below are looked up in a table


class ClassPools(NamedTuple):
    """Pixels to choose from, class by class, in a class in random order and each but once."""

    positions: Tensor  # (K,) int64, flat
    labels: Tensor  # (K,) ascending


def flat_labels(seg_map: Tensor, *special: int | None) -> Tensor:
    """Returns the map's labels as a vector (L,), int64 if its dtype cannot hold a special label.

    Compared with what its dtype cannot hold, a label would silently be taken modulo 256.
    """
    flat = seg_map.reshape(-1)
    limits = torch.iinfo(flat.dtype)
    fits = all(label is None or limits.min <= label <= limits.max for label in special)
    return flat if fits else flat.long()


def draw_pixels(
    flat: Tensor, wanted: Callable[[Tensor], Tensor], count: int, generator: Generator | None
) -> Tensor:
    """Draws `count` pixels uniformly, with replacement, among those that are wanted.

    Args:
        flat: (L,) integer labels.
        wanted: Tells from any labels, elementwise, which are wanted.
        count: How many to draw.
        generator: Source of randomness.

    Returns:
        (count,) int64 flat positions; none at all if the map shows nothing that is wanted.
    """
    found = flat.new_empty(0, dtype=torch.int64)
    trials = 64 + 4 * count
    for _ in range(2):
        if trials > min(len(flat), 2048 + 128 * count):  # listing is cheaper
            break
        tried = integers(len(flat), trials, generator, flat.device)
        hits = tried[wanted(flat.index_select(0, tried))]
        found = torch.cat((found, hits)) if len(found) else hits
        if len(found) >= count:
            return found[:count]
        trials = 2 * trials * (count - len(found)) // max(1, len(hits))  # as the hits suggest
    listed = wanted(flat).nonzero().squeeze(1)
    if len(listed) == 0:
        return listed
    return torch.cat(
        (found, listed[integers(len(listed), count - len(found), generator, flat.device)])
    )


def draw_class_pools(
    flat: Tensor, per_class: int, ignore_index: int, generator: Generator | None
) -> ClassPools:
    """Draws at least `per_class` pixels of each class present, or all it has, without replacement.

    A class with at least `per_class` different pixels among random positions is served from
    those. The others, rare by that, are listed. Either way all pixels of a class are equally
    likely, jointly: what decides is a count, which treats them alike.

    Args:
        flat: (L,) integer labels.
        per_class: How many pixels of a class are enough.
        ignore_index: The label that is no class.
        generator: Source of randomness.
    """
    trials = max(4096, 64 * per_class)
    pool = flat.new_empty(0, dtype=torch.int64)
    served = flat.new_tensor([ignore_index])
    if len(flat) == 0:
        return ClassPools(pool, pool)
    if trials < len(flat) // 4:
        pool = torch.unique(integers(len(flat), trials, generator, flat.device))
        labels = flat[pool]
        classes, index, counts = torch.unique(labels, return_inverse=True, return_counts=True)
        enough = (counts >= per_class) & (classes != ignore_index)
        pool = pool[enough[index]]
        served = torch.cat((served, classes[enough]))
    rare = _outside(flat, served).nonzero().squeeze(1)
    positions = torch.cat((pool, rare))
    positions = positions[permutation(len(positions), generator, flat.device)]
    labels, order = flat[positions].sort(stable=True)
    return ClassPools(positions[order], labels.long())


def _outside(flat: Tensor, labels: Tensor) -> Tensor:
    """Returns which entries are none of the labels: (L,) bool."""
    low, high = (int(end) for end in torch.stack(flat.aminmax()))
    if low < 0 or high >= _TABLE:
        return torch.isin(flat, labels, invert=True)
    table = torch.ones(high + 1, dtype=torch.bool, device=flat.device)
    table[labels[(labels >= 0) & (labels <= high)].long()] = False
    return table.index_select(0, flat.long())  # twenty times the speed of isin


def ranks_in_runs(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ranks the entries of a sorted vector (K,) inside their runs of equal values.

    Returns:
        (K,) rank of each entry in its run, (R,) begin and (R,) length of each run.
    """
    _, index, counts = torch.unique_consecutive(values, return_inverse=True, return_counts=True)
    begins = counts.cumsum(0) - counts
    return torch.arange(len(values), device=values.device) - begins[index], begins, counts
