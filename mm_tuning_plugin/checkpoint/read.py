"""From a file to its tensors: whatever the container, whatever is wrong with the file.

Nothing of the file is executed unless the caller opts in. All tensors of the file come back in one
flat mapping from dotted names to tensors; the keys of the containers they lie in are part of the
name (``state_dict.module.encoder_q.conv1.weight``), so that one search finds container and prefix.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Union

import torch
from torch import Tensor, nn

from ..errors import UserError
from .caffe import is_caffemodel, read_caffemodel, read_hdf5
from .caffe.files import HDF5_ENDINGS, HDF5_MAGIC
from .inert import ALLOWS_NAMES, STAND_INS, stand_ins
from .pickles import global_names, modern_name

PathLike = Union[str, 'os.PathLike[str]']
MAX_DEPTH = 8
MAPPED_FROM = 1 << 28  # bytes: smaller files are read whole, checksums and all


class TensorFile(NamedTuple):
    """The tensors of one file.

    Attributes:
        tensors: Dotted name, container keys included, to the tensor on the CPU.
        containers: Dotted paths of the mappings that hold tensors directly; '' is the file itself.
        format: 'torch', 'safetensors', 'caffemodel' or 'caffemodel.h5'.
    """

    tensors: dict[str, Tensor]
    containers: tuple[str, ...]
    format: str = 'torch'


def read_tensors(path: PathLike, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Reads every tensor of a file.

    Args:
        path: A file written by ``torch.save`` (.pth, .pth.tar, .pt, .ckpt, .bin, .torch, ...),
            .safetensors, or Caffe's .caffemodel or .caffemodel.h5.
        allow_pickle: Whether code in the file may run. Only for files whose origin is trusted.

    Returns:
        Dotted name, with the keys of the containers in front, to tensor, on the CPU.

    Raises:
        UserError: If there is no such file, it can't be read, holds classes that are not
            allow-listed, or no tensor.
    """
    return read_file(path, allow_pickle).tensors


def read_file(path: PathLike, allow_pickle: bool = False) -> TensorFile:
    """As `read_tensors`, and says which containers were found."""
    path = Path(path)
    content = read_content(path, allow_pickle, mapped=True)
    tensors: dict[str, Tensor] = {}
    containers: list[str] = []
    _collect(content, '', 0, tensors, containers)
    if not tensors:
        raise UserError(f'{path}: no tensors found in it ({_describe(content)}); expected weights')
    return TensorFile(tensors, tuple(containers), format_of(path, inspect_file(path)))


def read_content(path: Path, allow_pickle: bool = False, mapped: bool = False) -> Any:
    """What a file holds, as it was written (stand-ins for all that is neither tensor nor plain).

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
    _refuse_foreign(path, head)
    mapped = mapped and head.startswith(b'PK') and path.stat().st_size >= MAPPED_FROM
    return _read_torch(path, head, allow_pickle, mapped)


def format_of(path: Path, head: bytes) -> str:
    """Of which format a file is, by its ending and its first bytes; see `TensorFile`."""
    if path.name.endswith('.safetensors'):
        return 'safetensors'
    if head.startswith(HDF5_MAGIC) or path.name.endswith(HDF5_ENDINGS):
        return 'caffemodel.h5'
    return 'caffemodel' if is_caffemodel(path, head) else 'torch'


def inspect_file(path: Path) -> bytes:
    """The first bytes of a file that exists and is not empty."""
    if path.is_dir():
        raise UserError(f'{path}: is a directory; expected a checkpoint file')
    if not path.exists():
        raise UserError(f'{path}: no such file; expected a checkpoint')
    try:
        with open(path, 'rb') as file:
            head = file.read(512)
    except OSError as error:
        raise UserError(
            f'{path}: cannot be read ({error.strerror}); expected a checkpoint'
        ) from None
    if not head:
        raise UserError(f'{path}: is empty (0 bytes); expected a checkpoint')
    return head


def _refuse_foreign(path: Path, head: bytes) -> None:
    """Names what is no file of torch's by its ending or first bytes."""
    if head.startswith(b'version https://git-lfs'):
        raise UserError(f'{path}: a git-lfs pointer, not the file: fetch it with `git lfs pull`')
    start = head.lstrip().lower()
    if start.startswith((b'<!doctype', b'<html', b'<?xml')):
        raise UserError(f'{path}: a web page, not a checkpoint: the download went wrong')
    try:
        text = head.decode('ascii')
    except UnicodeDecodeError:
        return
    if all(char.isprintable() or char.isspace() for char in text):
        raise UserError(f'{path}: a text file; expected a checkpoint written by torch.save')


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path), device='cpu')
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f'{path}: truncated, or no safetensors file ({_line(error)}); expected .safetensors'
        ) from None


def _read_torch(path: Path, head: bytes, allow_pickle: bool, mapped: bool) -> Any:
    pickled = head.startswith((b'PK', b'\x80\x03', b'\x80\x04', b'\x80\x05'))
    if head.startswith(b'PK'):
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
        except zipfile.BadZipFile:
            raise UserError(f'{path}: truncated: its table of contents is missing') from None
        if any(name.endswith('/constants.pkl') for name in members):
            raise UserError(f'{path}: a TorchScript archive; expected a file of weights')
    try:
        if allow_pickle:
            return torch.load(path, map_location='cpu', weights_only=False, mmap=mapped)
        with stand_ins():
            return torch.load(path, map_location='cpu', weights_only=True, mmap=mapped)
    except Exception as error:  # whatever a foreign pickle raises, the user reads one line
        raise UserError(f'{path}: {_reason(path, error, allow_pickle, pickled)}') from None


def _reason(path: Path, error: Exception, allow_pickle: bool, pickled: bool) -> str:
    """Why torch could not read the file, in one line."""
    message = str(error)
    found = re.search(r'GLOBAL ([\w.]+)', message)
    if not allow_pickle:
        foreign = [modern_name(found.group(1))] if found else []
        foreign += [name for name in global_names(path) if not _known(name)]
        if foreign:
            return (
                f'holds a pickled {foreign[0]}, which could run code and was refused; expected '
                'tensors and plain containers (--allow-pickle, allow_pickle=True, loads it, if you '
                'trust its origin)'
            )
        if pickled and 'Unsupported operand' in message:
            return (
                'written with another pickle protocol than torch.save uses, which the safe loader '
                'does not read (--allow-pickle, allow_pickle=True, loads it, if you trust its '
                'origin)'
            )
    if isinstance(error, EOFError) or re.search(r'EOF|corrupt|failed (finding|reading)', message):
        return f'truncated or damaged ({_line(error)}); expected a whole file of torch.save'
    return f'cannot be read by torch.load ({_line(error)}); expected a file of torch.save'


def _known(name: str) -> bool:
    """Whether the safe loader accepts a global of this name."""
    plain = ('collections.OrderedDict', 'collections.Counter', '_codecs.encode', 'torch.Size')
    return (
        (ALLOWS_NAMES and name in STAND_INS)
        or name in plain
        or name.startswith(('torch._utils.', 'torch.nn.parameter.', 'torch.storage.'))
        or (name.startswith('torch.') and name.count('.') == 1)
    )


def _line(error: Exception) -> str:
    """The first line of a message, short."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip('.')[:160]


def _collect(
    node: Any, name: str, depth: int, tensors: dict[str, Tensor], containers: list[str]
) -> None:
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
        if isinstance(value, Tensor):
            if value.layout == torch.strided and not value.is_quantized:
                tensors.setdefault(full, value.detach())
                holds = True
        else:
            _collect(value, full, depth + 1, tensors, containers)
    if holds:
        containers.append(name)


def _describe(content: Any) -> str:
    """What a file holds in place of tensors."""
    if isinstance(content, Mapping):
        keys = ', '.join(str(key) for key in list(content)[:5])
        return f'a dictionary with the keys {keys}' if content else 'an empty dictionary'
    return f'a {type(content).__name__}'
