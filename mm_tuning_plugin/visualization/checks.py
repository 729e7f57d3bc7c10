"""What every picture asks of its arguments.

Each check returns the argument as an array and raises ValueError, ``name: expected ..., got ...``.

Shape legend: H, W pixels; K classes; N labels or patches; S x S pixels of a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def require(holds: bool, name: str, expected: str, found: Any) -> None:
    """Raises a ValueError unless a condition holds. For an array it names shape and type."""
    if not holds:
        if isinstance(found, np.ndarray):
            found = f'shape {found.shape}, {found.dtype}'
        raise ValueError(f'{name}: expected {expected}, got {found}')


def as_rgb(image: np.ndarray, name: str) -> np.ndarray:
    """Returns an (H, W, 3) uint8 RGB picture of at least one pixel."""
    array = np.asarray(image)
    shape = array.ndim == 3 and array.shape[2] == 3 and array.size > 0
    require(shape and array.dtype == np.uint8, name, 'RGB of shape (H, W, 3), uint8', array)
    return array


def as_patches(patches: np.ndarray, name: str) -> np.ndarray:
    """Returns (N, S, S, 3) uint8 patches; (0, 1, 1, 3) without any."""
    array = np.asarray(patches)
    if array.size == 0 and array.shape[:1] == (0,):
        return np.zeros((0, 1, 1, 3), dtype=np.uint8)
    square = array.ndim == 4 and array.shape[1] == array.shape[2] and array.shape[3] == 3
    fits = square and array.dtype == np.uint8 and array.size > 0
    require(fits, name, 'shape (N, S, S, 3), uint8', array)
    return array


def as_labels(
    labels: np.ndarray,
    num_classes: int,
    name: str,
    shape: tuple[int, ...],
    ignore_index: int | None = None,
) -> np.ndarray:
    """Returns int64 labels of a shape, each in 0..K-1 or ``ignore_index``."""
    array = np.asarray(labels)
    if array.size == 0 and 0 in shape:
        return np.zeros(shape, dtype=np.int64)
    whole = array.shape == tuple(shape) and np.issubdtype(array.dtype, np.integer)
    require(whole, name, f'integers of shape {tuple(shape)}', array)
    array = array.astype(np.int64)
    kept = array if ignore_index is None else array[array != ignore_index]
    wrong = kept[(kept < 0) | (kept >= num_classes)]
    require(not wrong.size, name, f'classes in 0..{num_classes - 1}', next(iter(wrong), None))
    return array


def as_size(value: int, name: str, *, minimum: int = 1) -> int:
    """Returns an integer of at least ``minimum``."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    require(whole and value >= minimum, name, f'an integer of at least {minimum}', repr(value))
    return int(value)


def same_length(name: str, values: Sequence, expected: int, of: str) -> None:
    """Checks that a list has one entry for each of ``expected`` others, ``of`` in the error."""
    found = len(values) if hasattr(values, '__len__') else repr(values)
    require(found == expected, name, f'one entry for each of {expected} {of}', found)
