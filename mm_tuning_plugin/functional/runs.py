"""Sort into runs of equal values, to count within classes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mm_tuning_plugin.functional._draws import Indices


class Runs(NamedTuple):
    """The R runs of a sorted vector of K values."""

    begins: Indices  # (R,) index of the first entry of each run
    sizes: Indices  # (R,) number of its entries
    ranks: Indices  # (K,) number of earlier entries in the run of each entry


def stable_order(values: NDArray[Any]) -> Indices:
    """The order (K,) that sorts integers (K,) stably."""
    short = values.astype(np.int16)  # radix sort: a fifth of the time at K = 4,096
    fits = (short == values).all()
    order: Indices = (short if fits else values).argsort(kind='stable')
    return order


def find_runs(values: NDArray[Any]) -> Runs:
    """Find the runs of a sorted vector (K,)."""
    count = len(values)
    fences = np.flatnonzero(values[1:] != values[:-1]) + 1
    fences = np.concatenate(([0], fences, [count])) if count else fences
    begins = fences[:-1]
    sizes = fences[1:] - begins
    return Runs(begins, sizes, np.arange(count) - begins.repeat(sizes))
