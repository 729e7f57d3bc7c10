"""The random states of a process as one row of bytes, and back.

A fixed layout rather than a pickle: it goes into checkpoints, which are read without running any
code of theirs.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor

WORDS = 624  # of the Mersenne Twister, for both Python and NumPy
PYTHON_VERSION = 3  # of the layout of random.getstate()


def capture() -> Tensor:
    """The states of Python's, NumPy's and torch's (CPU) global generators, as (B,) uint8."""
    _, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    scalars = [gauss is not None, gauss or 0.0, position, has_gauss, cached]
    parts = [
        np.array(scalars, np.float64).view(np.uint8),
        np.array(words, np.uint32).view(np.uint8),
        np.asarray(keys, np.uint32).view(np.uint8),
        torch.get_rng_state().numpy(),
    ]
    return torch.from_numpy(np.concatenate(parts))


def restore(states: Tensor) -> None:
    """Set the three generators to what `capture` returned."""
    row = states.cpu().numpy()
    ends = np.cumsum([5 * 8, (WORDS + 1) * 4, WORDS * 4])
    scalars, words, keys, torch_state = np.split(row, ends)
    drawn, gauss, position, has_gauss, cached = scalars.copy().view(np.float64).tolist()
    words = tuple(words.copy().view(np.uint32).tolist())
    random.setstate((PYTHON_VERSION, words, gauss if drawn else None))
    keys = keys.copy().view(np.uint32)
    np.random.set_state(('MT19937', keys, int(position), int(has_gauss), cached))
    torch.set_rng_state(torch.from_numpy(torch_state.copy()))


def capture_device() -> Tensor | None:
    """The state of this process's CUDA generator, as (B,) uint8; None without a GPU."""
    return torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def restore_device(state: Tensor | None) -> None:
    """Set the CUDA generator if there is one and its state is known."""
    if state is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state.cpu())
