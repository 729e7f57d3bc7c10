"""Vision transformers with one resolution: timm's names to mmseg's VisionTransformer, MAE, BEiT.

Where the backbone lacks a parameter of the file that can be multiplied or added into another one
without changing the function (LayerScale, the patch bias), that is done here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from .rules import Naming, Rules, Tensors, apply_rules

_BLOCKS: Rules = (
    (r'^blocks\.', 'layers.'),
    (r'^norm\.', 'ln1.'),
    (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
    (r'\.norm1\.', '.ln1.'),
    (r'\.norm2\.', '.ln2.'),
    (r'\.mlp\.fc1\.', '.ffn.layers.0.0.'),
    (r'\.mlp\.fc2\.', '.ffn.layers.1.'),
    (r'\.ls([12])\.gamma$', r'.gamma_\1'),
)
_ATTENTION: Rules = (
    (r'\.attn\.qkv\.(weight|bias)$', r'.attn.attn.in_proj_\1'),
    (r'\.attn\.proj\.', '.attn.attn.out_proj.'),
)


def timm_vit(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Timm's ViT names (MoCo v3, DINO, iBOT, MAE, BEiT, DINOv2) and mmpretrain's.

    For mmseg's VisionTransformer the projections of attention get torch's own names; MAE and BEiT
    keep qkv and proj. The table of relative positions that BEiT shares is given to every block.
    """
    inner = any('.attn.attn.' in name for name in targets)
    rules = _BLOCKS + (_ATTENTION if inner else ())
    named = {apply_rules(rules, name): tensor for name, tensor in tensors.items()}
    shared = named.pop('rel_pos_bias.relative_position_bias_table', None)
    if shared is not None:
        for name in targets:
            if name.endswith('.attn.relative_position_bias_table'):
                named.setdefault(name, shared)
    return _fold_patch_bias(_fold_layer_scale(named, targets), targets)


def _fold_layer_scale(named: Tensors, targets: Mapping[str, Tensor]) -> Tensors:
    """Multiplies LayerScale into the layer before it, where the backbone has none."""
    if any('.gamma_' in name for name in targets):
        return named
    folded = dict(named)
    for name, gamma in named.items():
        found = re.fullmatch(r'(layers\.\d+)\.gamma_([12])', name)
        if not found:
            continue
        layer = 'attn.attn.out_proj' if found.group(2) == '1' else 'ffn.layers.1'
        weight, bias = f'{found.group(1)}.{layer}.weight', f'{found.group(1)}.{layer}.bias'
        if weight in folded and folded[weight].shape[:1] == gamma.shape:
            folded[weight] = folded[weight] * gamma[:, None]
            if bias in folded:
                folded[bias] = folded[bias] * gamma
            del folded[name]
    return folded


def _fold_patch_bias(named: Tensors, targets: Mapping[str, Tensor]) -> Tensors:
    """Adds the bias of the patch embedding to the positions, where the backbone has no such bias.

    mmseg's VisionTransformer has none by default. The class token's position stays as it is.
    """
    name = 'patch_embed.projection.bias'
    bias, positions = named.get(name), named.get('pos_embed')
    has_norm = any(target.startswith('patch_embed.norm') for target in targets)
    if name in targets or has_norm or bias is None or positions is None or positions.ndim != 3:
        return named
    if positions.shape[-1:] != bias.shape:
        return named
    extra = ('cls_token' in named) + ('dist_token' in named)
    folded = {key: tensor for key, tensor in named.items() if key != name}
    tokens, grid = positions[:, :extra], positions[:, extra:]
    folded['pos_embed'] = torch.cat((tokens, grid + bias), dim=1)
    return folded


NAMINGS = (Naming('timm ViT', timm_vit, norm_eps=1e-6),)
