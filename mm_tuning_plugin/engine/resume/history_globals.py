"""Read mmengine's own checkpoints, which newer versions of torch refuse.

torch >= 2.6 loads with ``weights_only=True`` by default, and the original mmengine does not change
this. Its checkpoints contain log histories, so every resume fails. This module allows the needed
names during one load.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

STATISTICS = ('min', 'max', 'current', 'mean')
# torch before 2.6 neither refuses these files nor can allow-list under another name.
REFUSES = tuple(int(part) for part in torch.__version__.split('.')[:2]) >= (2, 6)


def history_statistic(owner: object, name: str) -> object:
    """Replace ``getattr`` in a pickle: it gives the statistics of HistoryBuffer and nothing else.

    Raises:
        pickle.UnpicklingError: Another attribute is requested.
    """
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise pickle.UnpicklingError(f'builtins.getattr of {owner!r} is not allowed')
    return getattr(owner, name)


@contextmanager
def allow_histories() -> Iterator[None]:
    """Let ``torch.load(weights_only=True)`` read mmengine's log histories inside the block."""
    if not REFUSES:
        yield
        return
    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    allowed: list[object] = [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        # a best score is a scalar of whatever type the metric computes in
        *(type(np.dtype(kind)) for kind in np.typecodes['AllInteger'] + 'efd?'),
        (history_statistic, 'builtins.getattr'),
    ]
    for package in ('numpy.core', 'numpy._core'):  # NumPy 2 renamed it
        allowed.append((reconstruct, f'{package}.multiarray._reconstruct'))
        allowed.append((scalar, f'{package}.multiarray.scalar'))
    with torch.serialization.safe_globals(allowed):
        yield
