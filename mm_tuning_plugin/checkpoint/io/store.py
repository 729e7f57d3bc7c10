"""Weights that this package writes and reads back: hashes, atomic writing, strict reading."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mm_tuning_plugin.atomic_write import atomic_write
from mm_tuning_plugin.checkpoint.io.read import PathLike, format_of, inspect_file, read_content
from mm_tuning_plugin.errors import UserError

SAFETENSORS = '.safetensors'
META = 'meta'
"""Key of the metadata on the weights: in a .safetensors an entry of its own metadata, as JSON."""


def hash_state_dict(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all tensors, as 64 hex digits.

    Independent of the device and of the order of the names. Entries that are no tensors (a
    module's extra state) are left out.
    """
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name]
        if not isinstance(tensor, Tensor):
            continue
        digest.update(f'{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0'.encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_file(path: PathLike) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits.

    Raises:
        UserError: If there is no such file or it is empty.
    """
    inspect_file(Path(path))
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()


def save_backbone(
    path: PathLike, state_dict: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> None:
    """Writes ``{'state_dict': ..., 'meta': ...}``; the file is either whole or not there.

    Args:
        path: The file; missing folders are made. One that ends with ``.safetensors`` gets the
            weights under their plain names, and `meta` as JSON (tuples become lists).
        state_dict: Plain names of the backbone to tensors on any device; stored on the CPU.
        meta: Built from str, int, float, bool, None, and lists, tuples and dictionaries of them.

    Raises:
        ValueError: If `meta` holds another type, or `state_dict` a value that is not a tensor.
        UserError: If the file can't be written; an earlier file stays unchanged.
    """
    path = Path(path)
    plain = {key: _plain(value, f'meta[{key!r}]') for key, value in meta.items()}
    for name, tensor in state_dict.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f'state_dict[{name!r}] must be a tensor, got {type(tensor).__name__}')
    # clone: a view would take its whole storage with it
    weights = {name: tensor.detach().cpu().clone() for name, tensor in state_dict.items()}
    with atomic_write(path) as aside:
        if path.suffix == SAFETENSORS:
            save_file(weights, aside, metadata={'format': 'pt', META: json.dumps(plain)})
            return
        with open(aside, 'wb') as file:  # not its name: torch writes the name into the file
            torch.save({'state_dict': weights, META: plain}, file)


def read_backbone(path: PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `save_backbone` wrote: weights and `meta`.

    Raises:
        UserError: If the file can't be read, or was not written by `save_backbone`.
    """
    path = Path(path)
    content = read_content(path)
    if format_of(path, inspect_file(path)) == 'safetensors':
        with safe_open(str(path), framework='pt') as file:
            text = (file.metadata() or {}).get(META)
        content = {'state_dict': content, META: _parse(text)}
    weights = content.get('state_dict') if isinstance(content, dict) else None
    meta = content.get(META) if isinstance(content, dict) else None
    if (
        not isinstance(weights, dict)
        or not isinstance(meta, dict)
        or not all(isinstance(value, Tensor) for value in weights.values())
    ):
        raise UserError(
            str(path),
            'no backbone that this package tuned',
            "move it away: expected 'state_dict' and 'meta' as the package writes them",
        )
    return weights, meta


def load_backbone_strict(backbone: nn.Module, path: PathLike) -> dict[str, Any]:
    """Loads weights that `save_backbone` wrote: exactly the backbone's names and shapes.

    Args:
        backbone: Receives the weights; unchanged if they don't fit.
        path: The file.

    Returns:
        The `meta` of the file.

    Raises:
        UserError: If the file can't be read, was not written by `save_backbone`, its weights are
            not those that its `meta` tells the hash of (``hash_after``, where it tells it), or its
            names or shapes are not exactly the backbone's.
    """
    weights, meta = read_backbone(path)
    found, expected = hash_state_dict(weights), meta.get('hash_after')
    if expected not in (None, found):
        raise UserError(
            str(path),
            f'damaged: weights of hash {found[:12]} found',
            f'expected {expected[:12]}, which they had when they were written',
        )
    targets = own_tensors(backbone)
    name = type(backbone).__name__
    for problem, keys in (
        ('lacks', sorted(set(targets) - set(weights))),
        ('has in excess', sorted(set(weights) - set(targets))),
    ):
        if keys:
            raise UserError(
                str(path),
                f'{problem} {len(keys)} of the tensors of {name}, e.g. {keys[0]}',
                f'expected exactly its {len(targets)} names',
            )
    for key, target in targets.items():
        if weights[key].shape != target.shape:
            raise UserError(
                str(path),
                f'{key} is {tuple(weights[key].shape)}',
                f'expected {tuple(target.shape)} of {name}',
            )
    copy_into(targets, weights)
    return meta


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module's state dict; its extra state, if any, is left out."""
    return {k: value for k, value in module.state_dict().items() if isinstance(value, Tensor)}


def copy_into(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copies values into a module's own tensors, in place; names and shapes were checked before."""
    with torch.no_grad():
        for name, value in values.items():
            targets[name].copy_(value)


def _parse(text: str | None) -> Any:
    """Return the metadata of a .safetensors; None if this package did not write it."""
    try:
        return json.loads(text or '')
    except ValueError:
        return None


def _plain(value: Any, where: str) -> Any:
    """A value made of built-ins only: mappings become dictionaries, anything unknown is refused."""
    if isinstance(value, Mapping):
        return {_plain(k, f'{where} key'): _plain(v, f'{where}[{k!r}]') for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_plain(item, f'{where}[{index}]') for index, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise ValueError(f'{where} must be a plain built-in, got {type(value).__name__}')
