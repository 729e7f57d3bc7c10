"""Metadata of a file about the network of its tensors.

Rotary positions often have no parameters. The ``config.json`` of timm and Hugging Face declares
them, and timm's training script stores the name of the architecture.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

CONFIG = 'config.json'
MOST_BYTES = 1 << 20
_KEYS = ('arch', 'architecture', 'model_name')  # next to the weights, as training scripts save them
# Names under which hubs keep the weights that their config.json is of.
_WEIGHTS = re.compile(r'(pytorch_)?model\b.*|open_clip_(pytorch_)?model\b.*|timm_model\b.*')
_ENDINGS = ('.safetensors', '.bin', '.pth', '.pt', '.ckpt', '.tar')
# timm's names of transformers with rotary positions, and the keys of their configs.
_ARCHITECTURE = re.compile(
    r'\w+_rope(_\w+)?|vit_pe_\w+|eva02_\w+|vit_\w+_(dinov3|lingbot|sapiens2)(_\w+)?'
)
_KEY = re.compile(r'use_rot_pos_emb|use_rope|rope_(type|theta|parameters)|rotary\w*')
_VISION = 'vision_config'  # of a model of images and text, whose other entries are the text's
_INNER = ('backbone_config', 'config', 'model_args', 'pretrained_cfg')
# With a norm before the first block, only Perception Encoders have one of these in timm's names.
_PERCEPTION = ('attn_pool.latent', 'blocks.0.gamma_1')
_MODULE = re.compile(r'(^|_)rope|R[Oo][Pp][Ee]|[Rr]otary')


def read_metadata(path: Path, content: Any) -> dict[str, Any]:
    """Read the metadata on a file's network: its hub's config, and the name of its architecture.

    Args:
        path: The file.
        content: What it holds.

    Returns:
        Source of the metadata -> content; empty without any.
    """
    metadata: dict[str, Any] = {CONFIG: _beside(path), 'metadata': _metadata(path)}
    for key in _KEYS:
        name = content.get(key) if isinstance(content, Mapping) else None
        if isinstance(name, str):
            metadata[f"'{key}' of the file"] = {'architecture': name}
    return {place: config for place, config in metadata.items() if config}


def declared_rotary(metadata: Mapping[str, Any], names: Container[str] = ()) -> str:
    """Return the entry that declares rotary positions ("config.json: rope_theta"), or ''.

    Args:
        metadata: Of `read_metadata`.
        names: Of the tensors under the file's prefix, as the file has them.
    """
    if 'norm_pre.weight' in names and any(part in names for part in _PERCEPTION):
        return 'its names are those of a Perception Encoder'
    for place, config in metadata.items():
        for key, value in _entries(config):
            named = key == 'architecture' and isinstance(value, str)
            if named and _ARCHITECTURE.fullmatch(value.split('.')[0]):
                return f'{place}: {value}'
            if _KEY.fullmatch(key) and value not in (None, False, '', 'none'):
                return f'{place}: {key}'
    return ''


def has_rotary(backbone: nn.Module) -> bool:
    """Whether a backbone has rotary positions, by the names and classes of its modules."""
    return any(
        _MODULE.search(name.rpartition('.')[2]) or _MODULE.search(type(module).__name__)
        for name, module in backbone.named_modules()
    )


def _beside(path: Path) -> dict[str, Any]:
    """Read the config in a file's folder if it belongs to the file; otherwise an empty one."""
    config = path.parent / CONFIG
    try:
        if not config.is_file() or config.stat().st_size > MOST_BYTES:
            return {}
        others = [other for other in path.parent.iterdir() if other.name.endswith(_ENDINGS)]
        if not _WEIGHTS.fullmatch(path.name) and others != [path]:
            return {}
        content = json.loads(config.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _metadata(path: Path) -> dict[str, Any]:
    """Read the metadata of a .safetensors, with JSON values parsed."""
    if path.suffix != '.safetensors':
        return {}
    with safe_open(str(path), framework='pt') as file:
        given = file.metadata() or {}
    return {key: _parsed(value) for key, value in given.items()}


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _entries(config: Any) -> Iterator[tuple[str, Any]]:
    """Keys and values of a config that are of the network that sees images."""
    if not isinstance(config, Mapping):
        return
    if isinstance(config.get(_VISION), Mapping):
        config = config[_VISION]
    for key, value in config.items():
        yield str(key), value
    for name in _INNER:
        inner = config.get(name)
        yield from inner.items() if isinstance(inner, Mapping) else ()
