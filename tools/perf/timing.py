"""Timing side by side: contenders take turns in one process, medians are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

ROUNDS = 7
LEAST_SECONDS = 0.01  # one sample repeats a call until it lasts this long


@dataclass
class Comparison:
    """One benchmark case: what ours took, what the others took, and the target.

    Attributes:
        id: Benchmark, as 'S1'.
        case: What is timed, sizes included.
        unit: Of the contenders' figures.
        contenders: Name to median, low, high and number of samples; ours under 'ours'.
        ratios: Name to its median over ours, or ours over it where lower is better.
        target: Bound on each ratio, or None where it is for information.
        lower_is_better: Whether the target is an upper bound.
    """

    id: str
    case: str
    unit: str
    contenders: dict[str, dict[str, float]]
    ratios: dict[str, float]
    target: float | None
    lower_is_better: bool = False

    def as_dict(self) -> dict[str, object]:
        """Returns all fields and whether the target is met (None without a target)."""
        met = None
        if self.target is not None and self.lower_is_better:
            met = all(ratio <= self.target for ratio in self.ratios.values())
        elif self.target is not None:
            met = all(ratio >= self.target for ratio in self.ratios.values())
        return {**asdict(self), 'met': met}


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Returns the time of one call, averaged over `repeats`.

    Without a GPU that is the processor time of this process, which computes on one thread: other
    load on the machine disturbs it far less than the time on the clock.
    """
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    clock = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.synchronize()
    start = clock()
    for _ in range(repeats):
        call()
    if on_gpu:
        torch.cuda.synchronize()
    return (clock() - start) / repeats


def interleave(
    calls: dict[str, Callable[[], object]], rounds: int = ROUNDS
) -> dict[str, dict[str, float]]:
    """Times each call once a round, all in turn; returns milliseconds."""
    repeats = {}
    for name, call in calls.items():
        call()  # warm
        repeats[name] = max(1, int(LEAST_SECONDS / max(seconds(call, 1), 1e-6)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            samples[name].append(seconds(call, repeats[name]) * 1e3)
    return {name: summary(values) for name, values in samples.items()}


def summary(values: list[float]) -> dict[str, float]:
    """Returns median and spread."""
    return {
        'median': statistics.median(values),
        'low': min(values),
        'high': max(values),
        'samples': len(values),
    }


def speedups(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """Returns each contender's median over ours."""
    ours = figures['ours']['median']
    return {name: f['median'] / ours for name, f in figures.items() if name != 'ours'}
