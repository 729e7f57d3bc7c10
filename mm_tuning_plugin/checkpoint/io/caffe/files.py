"""From a file of Caffe's to named tensors.

Field numbers are those of caffe.proto (github BVLC/caffe): NetParameter, LayerParameter,
V1LayerParameter, BlobProto, BlobShape. A blob is read in place, without a copy.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mm_tuning_plugin.checkpoint.io.caffe.layers import Layer, named_tensors
from mm_tuning_plugin.checkpoint.io.caffe.wire import (
    BYTES,
    FIXED32,
    FIXED64,
    Field,
    fields,
    varints,
)
from mm_tuning_plugin.errors import UserError

ENDINGS = ('.caffemodel',)
HDF5_ENDINGS = ('.h5', '.hdf5')
HDF5_MAGIC = b'\x89HDF'
MAX_DIMS = 32


class Schema(NamedTuple):
    """Numbers of a layer's fields."""

    name: int
    kind: int
    bottom: int
    top: int
    blobs: int


# Field of NetParameter -> the layers in it: today's, and those of files from before 2014.
LAYERS = {100: Schema(name=1, kind=2, bottom=3, top=4, blobs=7)}
LAYERS[2] = Schema(name=4, kind=5, bottom=2, top=3, blobs=6)
OLD_KINDS = {4: 'Convolution', 14: 'InnerProduct'}
NAME, SHAPE, DATA, DOUBLES = 1, 7, 5, 8
OLD_SHAPE = (1, 2, 3, 4)  # num, channels, height, width


def is_caffemodel(path: Path, head: bytes) -> bool:
    """Whether a file is a NetParameter: by its ending, or by its first layer and whole outline."""
    if path.name.endswith(ENDINGS):
        return True
    if not head.startswith((b'\x0a', b'\x12', b'\xa2\x06')):
        return False
    try:
        return any(field.number in LAYERS for field in fields(_mapped(path)))
    except (ValueError, OSError):
        return False


def read_caffemodel(path: Path) -> dict[str, Tensor]:
    """The weights of a ``.caffemodel``.

    Returns:
        ``LAYER.weight``, ``LAYER.bias``, ``LAYER.running_mean``, ... to tensor; see
        `named_tensors`.

    Raises:
        UserError: It is truncated, or no file of Caffe's.
    """
    try:
        layers = [
            _layer(field.value, LAYERS[field.number])
            for field in fields(_mapped(path))
            if field.number in LAYERS and isinstance(field.value, memoryview)
        ]
    except (ValueError, OSError) as error:
        raise UserError(
            str(path),
            f'truncated, or no .caffemodel ({error})',
            'expected a NetParameter of Caffe',
        ) from None
    return named_tensors(path, layers)


def read_hdf5(path: Path) -> dict[str, Tensor]:
    """Read the weights of a ``.caffemodel.h5``, which has no types of layers.

    Returns:
        As `read_caffemodel`.

    Raises:
        UserError: It is damaged or not Caffe's, or h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(
            str(path),
            'an HDF5 file found but h5py is not installed',
            'install it: `pip install h5py`',
        ) from None
    try:
        with h5py.File(path, 'r') as file:
            if 'data' not in file or not hasattr(file['data'], 'visititems'):
                raise UserError(
                    str(path),
                    f'HDF5 with {sorted(file)[:5]} found',
                    'expected the group `data` of Caffe',
                )
            layers: list[Layer] = []
            file['data'].visititems(lambda name, item: _add_group(layers, name, item, path))
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            str(path),
            f'truncated, or no HDF5 file of Caffe ({" ".join(str(error).split())[:120]})',
            'expected .caffemodel.h5',
        ) from None
    return named_tensors(path, layers)


def _add_group(layers: list[Layer], name: str, item: Any, path: Path) -> None:
    """Append a group whose members are numbered; a slash in a layer's name makes groups nest."""
    numbered = sorted((k for k in item if k.isdigit()), key=int) if hasattr(item, 'keys') else []
    blobs = []
    for key in numbered:
        if not hasattr(item[key], 'nbytes'):
            continue
        if item[key].nbytes > path.stat().st_size:  # Caffe does not compress
            raise ValueError(f'{name}/{key} of {item[key].nbytes:,} bytes in a smaller file')
        blobs.append(np.asarray(item[key][()], np.float32))
    if blobs:
        layers.append(Layer(name, '', (), (), blobs))


def _mapped(path: Path) -> memoryview:
    """Map the file's bytes privately; they enter memory when they are read."""
    with open(path, 'rb') as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


def _layer(message: memoryview, schema: Schema) -> Layer:
    name, kind = '', ''
    bottoms: list[str] = []
    tops: list[str] = []
    blobs: list[NDArray[np.float32]] = []
    for field in fields(message):
        if field.number == schema.kind and isinstance(field.value, int):
            kind = OLD_KINDS.get(field.value, str(field.value))
        if not isinstance(field.value, memoryview):
            continue
        if field.number == schema.name:
            name = _text(field.value)
        elif field.number == schema.kind:
            kind = _text(field.value)
        elif field.number == schema.bottom:
            bottoms.append(_text(field.value))
        elif field.number == schema.top:
            tops.append(_text(field.value))
        elif field.number == schema.blobs:
            blobs.append(_blob(field.value))
    return Layer(name, kind, tuple(bottoms), tuple(tops), blobs)


def _blob(message: memoryview) -> NDArray[np.float32]:
    """A BlobProto: its numbers, in its shape."""
    shape: list[int] | None = None
    old = {}
    parts: list[NDArray[np.float32]] = []
    for field in fields(message):
        if field.number == SHAPE and isinstance(field.value, memoryview):
            shape = _dims(field.value)
        elif field.number in OLD_SHAPE and isinstance(field.value, int):
            old[field.number] = field.value
        elif field.number in (DATA, DOUBLES):
            parts.append(_numbers(field))
    data = parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, np.float32)])
    if shape is None:
        shape = [old.get(number, 1) for number in OLD_SHAPE] if old else [len(data)]
    if len(shape) > MAX_DIMS or math.prod(shape) != len(data):
        raise ValueError(f'a blob of shape {shape} with {len(data)} numbers')
    return data.reshape(shape)


def _dims(message: memoryview) -> list[int]:
    dims: list[int] = []
    for field in fields(message):
        if field.number == 1:
            dims += varints(field.value) if isinstance(field.value, memoryview) else [field.value]
    return dims


def _numbers(field: Field) -> NDArray[np.float32]:
    """Read the floats of a field, packed or not; doubles become floats."""
    wide = field.number == DOUBLES
    if field.kind not in (BYTES, FIXED64 if wide else FIXED32):
        raise ValueError(f'numbers in a field of type {field.kind}')
    dtype = np.dtype('<f8' if wide else '<f4')
    if not isinstance(field.value, memoryview) or len(field.value) % dtype.itemsize:
        raise ValueError(f'numbers in a field that is no multiple of {dtype.itemsize} bytes')
    return np.frombuffer(field.value, dtype).astype(np.float32, copy=False)


def _text(value: memoryview) -> str:
    return bytes(value).decode('utf-8', 'replace')
