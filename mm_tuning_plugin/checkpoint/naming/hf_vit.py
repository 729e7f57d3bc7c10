"""Vision transformers of Hugging Face's transformers, to mmseg's VisionTransformer, MAE and BEiT.

Two generations of names are known: those of all files on the hub, which ``save_pretrained`` still
writes (``encoder.layer.0.attention.attention.query``, ``intermediate.dense``), and those that
transformers 5 gives to its modules, so to a ``state_dict()`` (``layers.0.attention.q_proj``,
``mlp.fc1``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from .rules import Naming, Rules, Tensors, rename_by_rules
from .vit import fit_names

_NAMES: Rules = (
    (r'^embeddings\.patch_embeddings\.', 'patch_embed.'),
    (r'^embeddings\.position_embeddings$', 'pos_embed'),
    (r'^embeddings\.distillation_token$', 'dist_token'),
    (r'^embeddings\.', ''),
    (r'^layernorm\.', 'ln1.'),
    (r'^(encoder\.relative_position_bias|shared_position_bias)\.', 'rel_pos_bias.'),
    (r'^(encoder\.)?layers?\.', 'layers.'),
    (r'\.(layernorm_before|norm1)\.', '.ln1.'),
    (r'\.(layernorm_after|norm2)\.', '.ln2.'),
    (r'(\.attention\.attention)?\.relative_position_bias\.', '.attn.'),
    (r'\.attention\.(attention\.)?(query|key|value)\.', r'.attn.\2.'),
    (r'\.attention\.([qkv])_proj\.', r'.attn.\1_proj.'),
    (r'\.attention\.(output\.dense|o_proj)\.', '.attn.proj.'),
    (r'\.(intermediate\.dense|mlp\.fc1)\.', '.ffn.layers.0.0.'),
    (r'\.(output\.dense|mlp\.fc2)\.', '.ffn.layers.1.'),
    (r'\.lambda_([12])$', r'.gamma_\1'),
    (r'\.layer_scale([12])\.lambda1$', r'.gamma_\1'),
)
_PART = re.compile(r'(.*\.attn\.)(?:(q|k|v)_proj|(query|key|value))\.(weight|bias)')


def hugging_face_vit(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Names of ViT, DeiT, ViT-MAE, ViT-MSN, I-JEPA, BEiT and data2vec-vision.

    The epsilon of their norms is 1e-12 by default, but for ViT-MSN (1e-6), which no name shows.
    """
    return dict(tensors) if _is_dinov2(tensors) else _translate(tensors, targets)


def hugging_face_dinov2(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Names of DINOv2, whose norms have another epsilon than those of the other networks."""
    return _translate(tensors, targets) if _is_dinov2(tensors) else dict(tensors)


def _is_dinov2(tensors: Mapping[str, Tensor]) -> bool:
    return any('.layer_scale1.' in name for name in tensors)


def _translate(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    if not any(name.startswith('embeddings.patch_embeddings.') for name in tensors):
        return dict(tensors)
    return fit_names(_pack_projections(rename_by_rules(_NAMES, tensors)), targets)


def _pack_projections(named: Tensors) -> Tensors:
    """Query, key and value (D, D) as one projection (3D, D), in this order.

    A key without a bias (BEiT) gets a bias of 0. A part that lacks other tensors is unchanged.
    """
    packed: Tensors = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in named.items():
        found = _PART.fullmatch(name)
        if found:
            part = found.group(2) or found.group(3)[0]
            parts.setdefault(f'{found.group(1)}qkv.{found.group(4)}', {})[part] = tensor
        else:
            packed[name] = tensor
    for name, group in parts.items():
        if name.endswith('.bias') and group.keys() == {'q', 'v'}:
            group['k'] = torch.zeros_like(group['q'])
        if group.keys() >= {'q', 'k', 'v'}:
            packed[name] = torch.cat([group[part] for part in 'qkv'])
        else:
            packed.update({f'{name}.{part}': tensor for part, tensor in group.items()})
    return packed


RANK = 3
NAMINGS = (
    Naming('Hugging Face ViT', hugging_face_vit, norm_eps=1e-12),
    Naming('Hugging Face DINOv2', hugging_face_dinov2, norm_eps=1e-6),
)
