"""Pickles of NumPy arrays, as detectron2 writes them, read without running anything of the file.

Such a file is one plain pickle: ``{'model': {name: array}, '__author__': ..., ...}``. Its opcodes
may call only what `_Reader.find_class` gives them, which are the few names by which NumPy, in all
its versions, writes arrays. Even these are not NumPy's own: each is answered by a small class of
this module that keeps the bytes and runs nothing.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from mm_tuning_plugin.checkpoint.io.pickles import modern_name

# What torch.save wrote before 1.6 begins with a pickle of this number.
TORCH_MAGIC = b'\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19'
PROTOCOLS = tuple(bytes((0x80, version)) for version in (2, 3, 4, 5))
# Before NumPy 2, and since.
NAMES = (
    'numpy.core.multiarray._reconstruct',
    'numpy.core.multiarray.scalar',
    'numpy.core.numeric._frombuffer',
    'numpy._core.multiarray._reconstruct',
    'numpy._core.multiarray.scalar',
    'numpy._core.numeric._frombuffer',
    'numpy.ndarray',
    'numpy.dtype',
    'collections.OrderedDict',
    '_codecs.encode',
    'builtins.bytes',
)


def is_plain_pickle(head: bytes) -> bool:
    """Whether a file is one pickle, of protocol 2 to 5, and not one of torch's."""
    return head.startswith(PROTOCOLS) and TORCH_MAGIC not in head[:32]


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle: plain containers, and an `Array` for each array of NumPy.

    Raises:
        pickle.UnpicklingError: It names something that is not in `NAMES`, or does with it what
            NumPy does not.
        Exception: It is damaged.
    """
    with open(path, 'rb') as file:
        return _Reader(file, encoding='latin1').load()  # as Python 2 wrote text


def as_tensor(array: np.ndarray[Any, Any]) -> Tensor | None:
    """Copy an array into a tensor; None if torch has no such type."""
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder('='), order='C'))
    except TypeError:
        return None


class _Frozen:
    """Something that a pickle may hold, and change in no way."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError('the state of something that has none')


class _Dtype(_Frozen):
    """Takes the place of ``numpy.dtype``: its name, and the order of its bytes."""

    __slots__ = ('name', 'order')

    def __init__(self, name: object) -> None:
        self.name = name if isinstance(name, str) else ''
        self.order = '='

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])

    def real(self) -> np.dtype[Any] | None:
        """NumPy's type, for numbers and booleans; otherwise None."""
        kind, size = self.name[:1], self.name[1:]
        if kind not in 'biuf' or size not in ('1', '2', '4', '8') or self.order not in '<>=|':
            return None
        return np.dtype(f'{self.order}{self.name}')


class Array(_Frozen):
    """Takes the place of an array or a number of NumPy's: keeps its bytes, gives a tensor.

    Args:
        shape: Of what the bytes hold.
        dtype: A `_Dtype`.
        fortran: Whether the first index runs fastest.
        data: The bytes; Python 2 wrote them as text.
        axes: Order of the axes in the array, if it differs from that of the bytes.
    """

    __slots__ = ('axes', 'data', 'dtype', 'fortran', 'shape')

    def __init__(
        self,
        shape: object = (),
        dtype: object = None,
        fortran: object = False,
        data: object = b'',
        axes: object = None,
    ) -> None:
        self.shape, self.dtype, self.fortran, self.axes = shape, dtype, bool(fortran), axes
        self.data = data.encode('latin1') if isinstance(data, str) else data

    def __setstate__(self, state: Any) -> None:
        self.__init__(*state[1:5])  # type: ignore[misc]  # behind the version

    def tensor(self) -> Tensor | None:
        """Copy the array into a tensor; None if it does not hold numbers.

        Raises:
            ValueError: The number of bytes does not match the shape.
        """
        dtype = self.dtype.real() if isinstance(self.dtype, _Dtype) else None
        if dtype is None or not isinstance(self.data, (bytes, bytearray)):
            return None
        shape = _whole_numbers(self.shape)
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(self.data):
            raise ValueError(f'an array of shape {shape} and {len(self.data)} bytes')
        flat = np.frombuffer(self.data, dtype)
        array = flat.reshape(shape, order='F' if self.fortran else 'C')
        if self.axes is not None:
            array = array.transpose(_whole_numbers(self.axes))
        return as_tensor(array)


def _whole_numbers(values: object) -> tuple[int, ...]:
    """A shape or an order of axes, if it is one."""
    if not isinstance(values, tuple) or not all(type(value) is int for value in values):
        raise ValueError(f'a shape of {values}')
    return values


class _Call(_Frozen):
    """A name that a pickle may call."""

    __slots__ = ('name',)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any) -> Any:
        last = self.name.rpartition('.')[2]
        if last == 'dtype':
            return _Dtype(args[0])
        if last == '_reconstruct':
            return Array()  # its state follows
        if last == 'scalar':
            return Array((), args[0], False, args[1])
        if last == '_frombuffer':
            data, dtype, shape, order, *axes = args
            return Array(shape, dtype, order == 'F', data, axes[0] if axes else None)
        if last == 'encode' and args[1] == 'latin1':  # how protocol 2 writes bytes
            return str(args[0]).encode('latin1')
        if last == 'bytes' and not args:  # and how it writes none
            return b''
        if last == 'OrderedDict':
            return dict(*args)
        return _refuse(self.name)


class _Reader(pickle.Unpickler):
    """Answers the names of NumPy's arrays and no others."""

    def find_class(self, module: str, name: str) -> Any:
        full = modern_name(f'{module}.{name}')
        return _Call(full) if full in NAMES else _refuse(full)


def _refuse(name: str) -> NoReturn:
    raise pickle.UnpicklingError(f'Unsupported GLOBAL {name}')
