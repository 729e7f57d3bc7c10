"""Random draws from an explicit generator.

A generator draws on its own device only; what it draws is moved to where it is needed, so that
a CPU generator (the same stream on every rank and every kind of device) may serve any tensor.
Without a generator, torch's default one of the tensor's device is used.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def _home(generator: Generator | None, device: torch.device) -> torch.device:
    return device if generator is None else generator.device


def permutation(count: int, generator: Generator | None, device: torch.device) -> Tensor:
    """Returns 0..count-1 in random order, (count,) int64."""
    home = _home(generator, device)
    return torch.randperm(count, generator=generator, device=home).to(device)


def integers(high: int, count: int, generator: Generator | None, device: torch.device) -> Tensor:
    """Returns `count` uniform integers of [0, high), (count,) int64."""
    home = _home(generator, device)
    return torch.randint(high, (count,), generator=generator, device=home).to(device)


def indices_below(spans: Tensor, generator: Generator | None) -> Tensor:
    """Returns for each span n >= 1 one uniform integer of [0, n), and 0 for n = 0.

    Drawn as floor(u * n) with u of 53 bits: for n below 2**32 no value is favoured by more than
    one part in 2**21, and u * n never rounds up to n.

    Args:
        spans: (K,) int64, none negative.
        generator: Source of randomness.

    Returns:
        (K,) int64.
    """
    home = _home(generator, spans.device)
    u = torch.rand(len(spans), generator=generator, dtype=torch.float64, device=home)
    return (u.to(spans.device) * spans).long()
