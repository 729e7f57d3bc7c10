"""What every picture asks of its arguments; each check returns the argument as an array.

Shape legend: H, W pixels; K classes; N labels or patches; S x S pixels of a patch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def as_rgb(image: np.ndarray, name: str) -> np.ndarray:
    """Returns an (H, W, 3) uint8 RGB picture.

    Args:
        image: What should be one.
        name: What an error calls it.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: if its shape or type is another, or it has no pixels.
    """
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or array.size == 0:
        raise ValueError(f'{name}: expected RGB of shape (H, W, 3), uint8, got {describe(array)}')
    return array


def as_patches(patches: np.ndarray, name: str) -> np.ndarray:
    """Returns (N, S, S, 3) uint8 patches.

    Args:
        patches: What should be such.
        name: What an error calls them.

    Returns:
        (N, S, S, 3) uint8; (0, 1, 1, 3) where there is none.

    Raises:
        ValueError: if their shape or type is another, or they have no pixels.
    """
    array = np.asarray(patches)
    if array.size == 0 and array.shape[:1] == (0,):
        return np.zeros((0, 1, 1, 3), dtype=np.uint8)
    square = array.ndim == 4 and array.shape[1] == array.shape[2] and array.shape[3] == 3
    if not square or array.dtype != np.uint8 or array.size == 0:
        raise ValueError(f'{name}: expected shape (N, S, S, 3), uint8, got {describe(array)}')
    return array


def as_labels(labels: np.ndarray, num_classes: int, name: str, *, count: int) -> np.ndarray:
    """Returns (N,) int64 labels in 0..K-1.

    Args:
        labels: (N,) integers.
        num_classes: K.
        name: What an error calls them.
        count: N.

    Returns:
        (N,) int64.

    Raises:
        ValueError: if the number, the type or a value is another.
    """
    array = np.asarray(labels)
    if array.size == 0 and count == 0:
        return np.zeros(0, dtype=np.int64)
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f'{name}: expected {count} integers, got {describe(array)}')
    return _in_range(array.astype(np.int64), num_classes, name)


def as_label_map(
    label_map: np.ndarray,
    size: tuple[int, int],
    num_classes: int,
    name: str,
    *,
    ignore_index: int | None = None,
) -> np.ndarray:
    """Returns an (H, W) int64 label map.

    Args:
        label_map: (H, W) integers, 0..K-1 or ``ignore_index``.
        size: H, W of the image that it belongs to, pixels.
        num_classes: K.
        name: What an error calls it.
        ignore_index: The value that marks pixels without a class; None if there must be none.

    Returns:
        (H, W) int64.

    Raises:
        ValueError: if its size is not the image's, or the type or a value is another.
    """
    array = np.asarray(label_map)
    if array.shape != tuple(size) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{name}: expected integers of its image's size {tuple(size)}, got {describe(array)}"
        )
    array = array.astype(np.int64)
    kept = array if ignore_index is None else array[array != ignore_index]
    _in_range(kept, num_classes, name)
    return array


def as_names(class_names: Sequence[str]) -> list[str]:
    """Returns the class names as a list.

    Args:
        class_names: K strings.

    Returns:
        K strings.

    Raises:
        ValueError: if it is a single string, is empty, or holds anything but strings.
    """
    if isinstance(class_names, (str, bytes)) or not hasattr(class_names, '__len__'):
        raise ValueError(f'class_names: expected a sequence of strings, got {class_names!r}')
    names = list(class_names)
    if not names:
        raise ValueError('class_names: expected at least one name, got none')
    for entry in names:
        if not isinstance(entry, str):
            raise ValueError(f'class_names: expected strings, got {entry!r}')
    return [str(entry) for entry in names]


def as_size(value: int, name: str, *, minimum: int = 1) -> int:
    """Returns an integer of at least ``minimum``.

    Args:
        value: What should be one.
        name: What an error calls it.
        minimum: The least value.

    Returns:
        The integer.

    Raises:
        ValueError: if it is no integer, or less.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < minimum:
        raise ValueError(f'{name}: expected an integer of at least {minimum}, got {value!r}')
    return int(value)


def same_length(name: str, values: Sequence, expected: int, of: str) -> None:
    """Checks that a list has one entry for each of another.

    Args:
        name: What an error calls the list.
        values: The list.
        expected: The number of entries.
        of: What the entries belong to, for the error.

    Raises:
        ValueError: if it has no length, or another.
    """
    found = len(values) if hasattr(values, '__len__') else None
    if found != expected:
        got = f'{found}' if found is not None else repr(values)
        raise ValueError(f'{name}: expected one entry for each of {expected} {of}, got {got}')


def describe(array: np.ndarray) -> str:
    """Returns the shape and type of an array in words."""
    return f'shape {array.shape}, {array.dtype}'


def _in_range(labels: np.ndarray, num_classes: int, name: str) -> np.ndarray:
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise ValueError(f'{name}: expected classes in 0..{num_classes - 1}, got {wrong[0]}')
    return labels
