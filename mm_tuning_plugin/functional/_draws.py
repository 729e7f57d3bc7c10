"""Random draws from an explicit generator, as arrays on the host.

Graphs, boxes and points are a few hundred numbers, computed in dozens of small operations. Each
costs about 1 us in NumPy, 2 to 7 us in torch on a CPU and a kernel launch on a GPU. So they are
computed on the host, whatever the device of the tensors, with one copy to the host and one back.

A generator draws on its own device only. A CPU generator is preferable: it needs no copies, and its
draws are the same on every rank and kind of device. Without a generator, torch's default CPU
generator is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

Indices = NDArray[np.int64]


def on_host(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor as an array: a view if it is on the CPU, otherwise a copy."""
    array: NDArray[Any] = tensor.numpy(force=True)
    return array


def _home(generator: Generator | None) -> torch.device:
    return torch.device('cpu') if generator is None else generator.device


def permutation(count: int, generator: Generator | None) -> Indices:
    """0..count-1 in random order, (count,)."""
    return on_host(torch.randperm(count, generator=generator, device=_home(generator)))


def integers(high: int, count: int, generator: Generator | None) -> Indices:
    """`count` uniform integers from [0, high), (count,)."""
    return on_host(torch.randint(high, (count,), generator=generator, device=_home(generator)))


def indices_below(spans: Indices, generator: Generator | None) -> Indices:
    """One uniform integer from [0, n) for each span n >= 1, and 0 for n = 0.

    Drawn as floor(u * n) with u of 53 bits: for n below 2**32 probabilities differ by at most one
    part in 2**21, and u * n never rounds up to n.

    Args:
        spans: (K,), none negative.
        generator: Source of randomness.

    Returns:
        (K,).
    """
    u = torch.rand(len(spans), generator=generator, dtype=torch.float64, device=_home(generator))
    return (on_host(u) * spans).astype(np.int64)
