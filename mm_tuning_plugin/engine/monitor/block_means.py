"""A logged scalar as means over blocks of iterations, which takes little memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

SHORTEST_BLOCK = 10
"""Iterations; a standard error needs that many."""
BLOCKS = 100
"""Blocks of a long run: each is a hundredth of it."""
FIRST = 5
"""Iterations whose mean is kept as the start: it shows a fall within the first block."""


class Block(NamedTuple):
    """The mean over consecutive iterations.

    Attributes:
        last: Its last iteration, counted from 1.
        count: How many iterations had a value.
        mean: Of the values.
        error: Standard error of the mean, as if iterations were independent.
    """

    last: int
    count: int
    mean: float
    error: float


def block_length(max_iters: int) -> int:
    """Iterations of a block in a run of `max_iters`."""
    return max(SHORTEST_BLOCK, max_iters // BLOCKS)


def mean_of(blocks: Sequence[Block]) -> Block:
    """Merge one or more blocks into one, weighted by their iterations."""
    count = sum(block.count for block in blocks)
    mean = sum(block.mean * block.count for block in blocks) / count
    error = math.sqrt(sum((block.error * block.count) ** 2 for block in blocks)) / count
    return Block(blocks[-1].last, count, mean, error)


def block_of(last: int, values: Sequence[float]) -> Block:
    """The block of one or more values."""
    count = len(values)
    mean = sum(values) / count
    spread = sum((value - mean) ** 2 for value in values) / max(1, count - 1)
    return Block(last, count, mean, math.sqrt(spread / count))


class BlockMeans:
    """Block means of one scalar, which is added iteration by iteration.

    Attributes:
        blocks: The complete blocks.
        first: Mean of the first `FIRST` values; None while there are fewer.
        begin: The first value; a loss before any step has changed the weights.
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.first: Block | None = None
        self.begin: float | None = None
        self._values: list[float] = []  # since the last block

    def add(self, iteration: int, value: float | None) -> None:
        """Add a value; None and values that are not finite are skipped."""
        if value is None or not math.isfinite(value):
            return
        self._values.append(value)
        if self.begin is None:
            self.begin = value
        if self.first is None and len(self._values) == FIRST:
            self.first = block_of(iteration, self._values)

    def close(self, iteration: int) -> None:
        """End a block; a block without values is dropped."""
        if self._values:
            self.blocks.append(block_of(iteration, self._values))
            self._values = []

    def state_dict(self) -> dict[str, object]:
        """The state, in built-ins."""
        return dict(
            blocks=[list(block) for block in self.blocks],
            first=None if self.first is None else list(self.first),
            begin=self.begin,
            values=list(self._values),
        )

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore what `state_dict` returned."""
        self.blocks = [Block(*block) for block in state['blocks']]
        self.first = None if state['first'] is None else Block(*state['first'])
        self.begin = state['begin']
        self._values = list(state['values'])
