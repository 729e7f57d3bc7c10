"""A scalar of a run, kept as the means of blocks of iterations: its course in little room."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

SHORTEST_BLOCK = 10
"""Iterations; the standard error of fewer says nothing."""
BLOCKS = 100
"""Of a run that is long enough: rules then see it in steps of a hundredth."""
FIRST = 5
"""Iterations kept apart as the very start: what falls within the first block is seen there."""


class Block(NamedTuple):
    """The mean of a stretch of iterations.

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
    """Iterations of a block in a run of so many."""
    return max(SHORTEST_BLOCK, max_iters // BLOCKS)


def mean_of(blocks: Sequence[Block]) -> Block:
    """Several blocks, at least one, as one; their iterations count alike."""
    count = sum(block.count for block in blocks)
    mean = sum(block.mean * block.count for block in blocks) / count
    error = math.sqrt(sum((block.error * block.count) ** 2 for block in blocks)) / count
    return Block(blocks[-1].last, count, mean, error)


def block_of(last: int, values: Sequence[float]) -> Block:
    """Some values, at least one, as a block."""
    count = len(values)
    mean = sum(values) / count
    spread = sum((value - mean) ** 2 for value in values) / max(1, count - 1)
    return Block(last, count, mean, math.sqrt(spread / count))


class Series:
    """One scalar, filled in iteration by iteration.

    Attributes:
        blocks: Those that are full.
        first: The very start, the mean of its first `FIRST` values; None before there are so many.
        begin: The first value; of a loss, that of weights which no step has changed yet.
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.first: Block | None = None
        self.begin: float | None = None
        self._values: list[float] = []  # since the last block

    def add(self, iteration: int, value: float | None) -> None:
        """Take in a value; what is missing or not finite is left out."""
        if value is None or not math.isfinite(value):
            return
        self._values.append(value)
        if self.begin is None:
            self.begin = value
        if self.first is None and len(self._values) == FIRST:
            self.first = block_of(iteration, self._values)

    def close(self, iteration: int) -> None:
        """End a block; one without a value leaves no trace."""
        if self._values:
            self.blocks.append(block_of(iteration, self._values))
            self._values = []

    def state_dict(self) -> dict[str, Any]:
        """All of it, in built-ins."""
        return dict(
            blocks=[list(block) for block in self.blocks],
            first=None if self.first is None else list(self.first),
            begin=self.begin,
            values=list(self._values),
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.blocks = [Block(*block) for block in state['blocks']]
        self.first = None if state['first'] is None else Block(*state['first'])
        self.begin = state['begin']
        self._values = list(state['values'])
