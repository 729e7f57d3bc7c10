"""From a file to its tensors: whatever the container, whatever is wrong with the file.

Nothing of the file is executed unless the caller opts in. All tensors of the file come back in one
flat mapping from dotted names to tensors; the keys of the containers they lie in are part of the
name (``state_dict.module.encoder_q.conv1.weight``), so that one search finds container and prefix.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Union

import numpy as np
import torch
from torch import Tensor, nn

from mm_tuning_plugin.checkpoint.io.array_pickles import (
    Array,
    as_tensor,
    is_plain_pickle,
    read_plain_pickle,
)
from mm_tuning_plugin.checkpoint.io.caffe import is_caffemodel, read_caffemodel, read_hdf5
from mm_tuning_plugin.checkpoint.io.caffe.files import HDF5_ENDINGS, HDF5_MAGIC
from mm_tuning_plugin.checkpoint.io.file_metadata import read_metadata
from mm_tuning_plugin.checkpoint.io.pickle_advice import first_line, reason
from mm_tuning_plugin.checkpoint.io.safe_globals import stand_ins
from mm_tuning_plugin.checkpoint.match.wrappers import plain_names, plain_place
from mm_tuning_plugin.errors import UserError

PathLike = Union[str, 'os.PathLike[str]']
MAX_DEPTH = 8
MAPPED_FROM = 1 << 28  # bytes: smaller files are read whole, checksums and all


class TensorFile(NamedTuple):
    """The tensors of one file.

    Attributes:
        tensors: Dotted name, container keys included, to the tensor on the CPU. Names of modules
            that only wrap another one are left out (`wrappers`).
        containers: Dotted paths of the mappings that hold tensors directly; '' is the file itself.
        format: 'torch', 'safetensors', 'pickle', 'caffemodel' or 'caffemodel.h5'.
        names: Each name of `tensors` -> the file's own.
        metadata: Metadata on the network of the tensors (`read_metadata`).
    """

    tensors: dict[str, Tensor]
    containers: tuple[str, ...]
    format: str
    names: dict[str, str]
    metadata: dict[str, Any]


def read_tensors(path: PathLike, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Reads every tensor of a file.

    Args:
        path: A file written by ``torch.save`` (.pth, .pth.tar, .pt, .ckpt, .bin, .torch, ...),
            .safetensors, a pickle of NumPy arrays (.pkl), or Caffe's .caffemodel or .caffemodel.h5.
        allow_pickle: Whether code in the file may run. Only for files whose origin is trusted.

    Returns:
        The file's own dotted name, with the keys of the containers in front, to tensor, on the CPU.

    Raises:
        UserError: If there is no such file, it can't be read, holds classes that are not
            allow-listed, or no tensor.
    """
    file = read_file(path, allow_pickle)
    return {file.names[name]: tensor for name, tensor in file.tensors.items()}


def read_file(path: PathLike, allow_pickle: bool = False) -> TensorFile:
    """As `read_tensors`, under plain names, with the other findings."""
    path = Path(path)
    content = read_content(path, allow_pickle, mapped=True)
    found = _Found({}, [], [])
    try:
        _collect(content, '', 0, found)
    except ValueError as error:  # an array whose bytes are not those of its shape
        raise UserError(
            str(path), f'damaged: {first_line(error)}', 'expected a whole file'
        ) from None
    if not found.tensors:
        raise UserError(
            str(path), f'no tensors found in it ({_describe(content)})', 'expected weights'
        )
    if found.twice:
        raise UserError(
            str(path),
            f"two different tensors of the name '{found.twice[0]}', in containers whose names are "
            'alike',
            'expected one',
        )
    plain = plain_names(found.tensors)
    return TensorFile(
        {plain[name]: tensor for name, tensor in found.tensors.items()},
        tuple(plain_place(name) for name in found.containers),
        format_of(path, inspect_file(path)),
        {short: name for name, short in plain.items()},
        read_metadata(path, content),
    )


def read_content(path: Path, allow_pickle: bool = False, mapped: bool = False) -> Any:
    """Read a file's content. Stand-ins replace objects that are neither tensors nor plain.

    Args:
        path: The file.
        allow_pickle: Whether code in it may run.
        mapped: Whether tensors of a large file may stay on the disk until they are read, which
            leaves the archive's checksums unread; optimizer states then never enter memory.
    """
    head = inspect_file(path)
    readers = {
        'safetensors': _read_safetensors,
        'caffemodel.h5': read_hdf5,
        'caffemodel': read_caffemodel,
    }
    kind = format_of(path, head)
    if kind in readers:
        return readers[kind](path)
    if kind == 'pickle':
        return _read_pickle(path, allow_pickle)
    _refuse_foreign(path, head)
    mapped = mapped and head.startswith(b'PK') and path.stat().st_size >= MAPPED_FROM
    return _read_torch(path, head, allow_pickle, mapped)


def format_of(path: Path, head: bytes) -> str:
    """Of which format a file is, by its ending and its first bytes; see `TensorFile`."""
    if path.name.endswith('.safetensors'):
        return 'safetensors'
    if head.startswith(HDF5_MAGIC) or path.name.endswith(HDF5_ENDINGS):
        return 'caffemodel.h5'
    if is_caffemodel(path, head):
        return 'caffemodel'
    return 'pickle' if is_plain_pickle(head) else 'torch'


def inspect_file(path: Path) -> bytes:
    """The first bytes of a file that exists and is not empty."""
    if path.is_dir():
        raise UserError(str(path), 'is a directory', 'expected a checkpoint file')
    if not path.exists():
        raise UserError(str(path), 'no such file', 'expected a checkpoint')
    try:
        with open(path, 'rb') as file:
            head = file.read(512)
    except OSError as error:
        raise UserError(
            str(path), f'cannot be read ({error.strerror})', 'expected a checkpoint'
        ) from None
    if not head:
        raise UserError(str(path), 'is empty (0 bytes)', 'expected a checkpoint')
    return head


def _refuse_foreign(path: Path, head: bytes) -> None:
    """Recognise files that are not torch's by their ending or first bytes."""
    if head.startswith(b'version https://git-lfs'):
        raise UserError(
            str(path), 'a git-lfs pointer, not the file', 'fetch the file with `git lfs pull`'
        )
    start = head.lstrip().lower()
    if start.startswith((b'<!doctype', b'<html', b'<?xml')):
        raise UserError(
            str(path), 'a web page, not a checkpoint', 'repeat the download, which went wrong'
        )
    try:
        text = head.decode('ascii')
    except UnicodeDecodeError:
        return
    if all(char.isprintable() or char.isspace() for char in text):
        raise UserError(str(path), 'a text file', 'expected a checkpoint written by torch.save')


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path), device='cpu')
    except (SafetensorError, OSError, ValueError) as error:
        why = first_line(error)
        raise UserError(
            str(path), f'truncated, or no safetensors file ({why})', 'expected .safetensors'
        ) from None


def _read_torch(path: Path, head: bytes, allow_pickle: bool, mapped: bool) -> Any:
    pickled = head.startswith((b'PK', b'\x80\x03', b'\x80\x04', b'\x80\x05'))
    if head.startswith(b'PK'):
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
        except zipfile.BadZipFile:
            raise UserError(
                str(path), 'truncated: its table of contents is missing', 'expected a whole file'
            ) from None
        if any(name.endswith('/constants.pkl') for name in members):
            raise UserError(str(path), 'a TorchScript archive', 'expected a file of weights')
    try:
        if allow_pickle:
            return torch.load(path, map_location='cpu', weights_only=False, mmap=mapped)
        with stand_ins():
            return torch.load(path, map_location='cpu', weights_only=True, mmap=mapped)
    except Exception as error:  # whatever a foreign pickle raises, the user reads one line
        problem, remedy = reason(path, error, allow_pickle, pickled, plain=False)
        raise UserError(str(path), problem, remedy) from None


def _read_pickle(path: Path, allow_pickle: bool) -> Any:
    try:
        if not allow_pickle:
            return read_plain_pickle(path)
        with open(path, 'rb') as file:
            return pickle.load(file, encoding='latin1')
    except Exception as error:  # whatever a foreign pickle raises, the user reads one line
        problem, remedy = reason(path, error, allow_pickle, pickled=True, plain=True)
        raise UserError(str(path), problem, remedy) from None


class _Found(NamedTuple):
    """What the walk through a file's mappings has found so far."""

    tensors: dict[str, Tensor]
    containers: list[str]
    twice: list[str]


def _collect(node: Any, name: str, depth: int, found: _Found) -> None:
    """Walks nested mappings and, where pickles were allowed, whole modules."""
    if isinstance(node, nn.Module):
        node = node.state_dict()
    if not isinstance(node, Mapping) or depth > MAX_DEPTH:
        return
    holds = False
    for key, value in node.items():
        if not isinstance(key, str):
            continue  # optimizer states are keyed by numbers
        full = f'{name}.{key}' if name else key
        tensor = _tensor(value)
        if tensor is None:
            _collect(value, full, depth + 1, found)
        elif tensor.layout == torch.strided and not tensor.is_quantized:
            holds = True
            first = found.tensors.setdefault(full, tensor)
            if first is not tensor and not torch.equal(first, tensor):
                found.twice.append(full)
    if holds:
        found.containers.append(name)


def _tensor(value: Any) -> Tensor | None:
    """A value as a tensor, if it is one or an array."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Array):
        return value.tensor()
    return as_tensor(value) if isinstance(value, np.ndarray) else None


def _describe(content: Any) -> str:
    """What a file holds in place of tensors."""
    if isinstance(content, Mapping):
        keys = ', '.join(str(key) for key in list(content)[:5])
        return f'a dictionary with the keys {keys}' if content else 'an empty dictionary'
    return f'a {type(content).__name__}'
