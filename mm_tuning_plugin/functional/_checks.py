"""Checks of arguments of public functions; each message shows the value."""

from __future__ import annotations

from torch import Tensor


def describe(value: object) -> str:
    """A value as error messages show it: arrays by shape and dtype, others by repr."""
    if isinstance(value, Tensor):
        return f'a {value.dtype} tensor of shape {tuple(value.shape)}'
    shape = getattr(value, 'shape', None)
    if shape is not None:
        return f'a {type(value).__name__} of shape {tuple(shape)}'
    return f'{value!r} ({type(value).__name__})'


def is_integer(tensor: Tensor) -> bool:
    """Whether the dtype is an integer type; bool is not."""
    return not (tensor.is_floating_point() or tensor.is_complex()) and str(tensor.dtype) != (
        'torch.bool'
    )


def check_integers(name: str, value: Tensor, shape: str, ndim: int) -> None:
    """Require an integer tensor of `ndim` dimensions."""
    if not isinstance(value, Tensor) or value.ndim != ndim or not is_integer(value):
        raise ValueError(
            f'{name} must be an integer tensor of shape {shape}, got {describe(value)}'
        )


def check_embeddings(name: str, value: Tensor) -> None:
    """Require a floating point tensor (N, D)."""
    if not isinstance(value, Tensor) or value.ndim != 2 or not value.is_floating_point():
        raise ValueError(
            f'{name} must be a floating point tensor of shape (N, D), got {describe(value)}'
        )


def check_labels(name: str, labels: Tensor, rows_of: str, rows: Tensor) -> None:
    """Require an integer vector with one entry for each row of another tensor."""
    check_integers(name, labels, '(N,)', 1)
    if len(labels) != len(rows):
        raise ValueError(
            f'{name} must hold one label for each of the {len(rows)} rows of {rows_of}, '
            f'got {len(labels)}'
        )


def check_at_least(name: str, value: int, lowest: int) -> None:
    """Require an int of at least `lowest`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        raise ValueError(f'{name} must be an int of at least {lowest}, got {describe(value)}')


def check_share(name: str, value: float) -> None:
    """Require a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f'{name} must be a number from 0 to 1, got {describe(value)}')
