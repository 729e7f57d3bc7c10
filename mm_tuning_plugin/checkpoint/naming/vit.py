"""Vision transformers with one resolution: timm's and OpenMMLab's names to mmseg's.

Each convention is first brought to one set of names, those of mmseg's MAE: ``layers.i.ln1``,
``.attn.qkv`` (rows: all of query, then key, then value), ``.attn.proj``, ``.ln2``,
``.ffn.layers.0.0``, ``.ffn.layers.1``, ``.gamma_1``, ``.gamma_2``; ``patch_embed.projection``,
``cls_token``, ``pos_embed``, ``ln1`` after the last block. `fit_names` then translates to the names
of the given backbone (VisionTransformer, MAE, BEiT). If the backbone lacks a parameter that can be
multiplied or added into another one without changing the function, `fit_names` does so.

Legend: D channels, L positions, T extra tokens in front of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from .rules import Naming, Rules, Tensors, rename_by_rules

_TIMM: Rules = (
    (r'^blocks\.\d+\.(?=\d)', 'layers.'),  # DINOv2's chunks: blocks.2.7 is the block of index 7
    (r'^blocks\.', 'layers.'),
    (r'^norm\.', 'ln1.'),
    (r'^norm_pre\.', 'ln_pre.'),
    (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
    (r'\.norm1\.', '.ln1.'),
    (r'\.norm2\.', '.ln2.'),
    (r'\.mlp\.fc1\.', '.ffn.layers.0.0.'),
    (r'\.mlp\.fc2\.', '.ffn.layers.1.'),
    (r'\.ls([12])\.gamma$', r'.gamma_\1'),
)
_MMPRETRAIN: Rules = (
    (r'^pre_norm\.', 'ln_pre.'),
    (r'\.attn\.gamma1\.(weight|scale)$', '.gamma_1'),
    (r'\.ffn\.gamma2\.(weight|scale)$', '.gamma_2'),
)
_MMSEG: Rules = (
    (r'\.attn\.attn\.in_proj_(weight|bias)$', r'.attn.qkv.\1'),
    (r'\.attn\.attn\.out_proj\.', '.attn.proj.'),
)
_TORCH_ATTENTION: Rules = (
    (r'\.attn\.qkv\.(weight|bias)$', r'.attn.attn.in_proj_\1'),
    (r'\.attn\.proj\.', '.attn.attn.out_proj.'),
)


def timm_vit(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Timm's ViT names (MoCo v3, DINO, iBOT, MAE, official BEiT, DINOv2, I-JEPA, DeiT)."""
    if not any(name.startswith('blocks.') for name in tensors):
        return dict(tensors)
    return fit_names(_give_class_position(rename_by_rules(_TIMM, tensors)), targets)


def mmpretrain_vit(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """OpenMMLab's names with ``attn.qkv``: mmpretrain's ViT and BEiT, mmseg's MAE and BEiT."""
    if 'layers.0.attn.qkv.weight' not in tensors:
        return dict(tensors)
    return fit_names(rename_by_rules(_MMPRETRAIN, tensors), targets)


def mmseg_vit(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """The names of mmseg's VisionTransformer, into another of its transformers or options."""
    if 'layers.0.attn.attn.in_proj_weight' not in tensors:
        return dict(tensors)
    return fit_names(rename_by_rules(_MMSEG, tensors), targets)


def fit_names(named: Tensors, targets: Mapping[str, Tensor]) -> Tensors:
    """From the common names to those of a backbone; the function stays the same.

    Args:
        named: Tensors of a file under the common names, ``q_bias`` and ``v_bias`` of BEiT included.
        targets: The backbone's own tensors.

    Returns:
        The tensors under the backbone's names. What it has no place for stays under its own.
    """
    named = _share_bias_table(named, targets)
    named = _pack_biases(named)
    if not any('.gamma_' in name for name in targets):
        named = _fold_layer_scale(named)
    named = _fold_patch_bias(named, targets)
    if any('.attn.attn.' in name for name in targets):
        return rename_by_rules(_TORCH_ATTENTION, named)
    return _split_biases(named, targets)


def _share_bias_table(named: Tensors, targets: Mapping[str, Tensor]) -> Tensors:
    """Gives the table of relative positions that all blocks of a file share to every block."""
    shared = named.get('rel_pos_bias.relative_position_bias_table')
    tables = [name for name in targets if name.endswith('.attn.relative_position_bias_table')]
    if shared is None or not tables:
        return named
    given = {name: t for name, t in named.items() if not name.startswith('rel_pos_bias.')}
    return {**dict.fromkeys(tables, shared), **given}


def _pack_biases(named: Tensors) -> Tensors:
    """BEiT's ``q_bias`` and ``v_bias``, each (D,), as one bias of qkv (3D,); a key has none."""
    packed = dict(named)
    for name, query in named.items():
        found = re.fullmatch(r'(layers\.\d+\.attn)\.q_bias', name)
        stem = found.group(1) if found else ''
        value = named.get(f'{stem}.v_bias')
        if not found or value is None or f'{stem}.qkv.bias' in named:
            continue
        packed[f'{stem}.qkv.bias'] = torch.cat((query, torch.zeros_like(query), value))
        del packed[name], packed[f'{stem}.v_bias']
    return packed


def _split_biases(named: Tensors, targets: Mapping[str, Tensor]) -> Tensors:
    """The bias of qkv (3D,) as mmseg's BEiT has it: ``q_bias`` and ``v_bias``.

    The key's third is left out: it adds the same number to all logits of a query, which the softmax
    does not see.
    """
    split = dict(named)
    for name in named:
        found = re.fullmatch(r'(layers\.\d+\.attn)\.qkv\.bias', name)
        if not found:
            continue
        query, value = (f'{found.group(1)}.{part}_bias' for part in 'qv')
        if {query, value} <= targets.keys() and not {query, value} & named.keys():
            split[query], _, split[value] = split.pop(name).chunk(3)
    return split


def _give_class_position(named: Tensors) -> Tensors:
    """A position of zeros for a class token that has none (DeiT III), so that all files have one.

    Such a file is recognised by its number of positions: a square, without one for a token.
    """
    positions = named.get('pos_embed')
    if 'cls_token' not in named or positions is None or positions.ndim != 3:
        return named
    if math.isqrt(positions.shape[1]) ** 2 != positions.shape[1]:
        return named
    extra = 1 + ('dist_token' in named)
    zeros = torch.zeros_like(positions[:, :1]).expand(-1, extra, -1)  # (1, T, D)
    return {**named, 'pos_embed': torch.cat((zeros, positions), dim=1)}


def _fold_layer_scale(named: Tensors) -> Tensors:
    """Multiplies LayerScale (D,) into the layer before it, for a backbone that has none."""
    folded = dict(named)
    for name, gamma in named.items():
        found = re.fullmatch(r'(layers\.\d+)\.gamma_([12])', name)
        if not found:
            continue
        layer = 'attn.proj' if found.group(2) == '1' else 'ffn.layers.1'
        weight, bias = f'{found.group(1)}.{layer}.weight', f'{found.group(1)}.{layer}.bias'
        if weight in folded and folded[weight].shape[:1] == gamma.shape:
            folded[weight] = folded[weight] * gamma[:, None]
            if bias in folded:
                folded[bias] = folded[bias] * gamma
            del folded[name]
    return folded


def _fold_patch_bias(named: Tensors, targets: Mapping[str, Tensor]) -> Tensors:
    """Adds the bias of the patch embedding to the positions if the backbone has no such bias.

    mmseg's VisionTransformer has none by default. The class token's position is unchanged.
    """
    name = 'patch_embed.projection.bias'
    bias, positions = named.get(name), named.get('pos_embed')
    has_norm = any(key.startswith('patch_embed.norm') for key in (*targets, *named))
    if name in targets or has_norm or bias is None or positions is None or positions.ndim != 3:
        return named
    if 'pos_embed' not in targets or positions.shape[-1:] != bias.shape:
        return named
    extra = ('cls_token' in named) + ('dist_token' in named)
    folded = {key: tensor for key, tensor in named.items() if key != name}
    tokens, grid = positions[:, :extra], positions[:, extra:]
    folded['pos_embed'] = torch.cat((tokens, grid + bias), dim=1)
    return folded


RANK = 2
NAMINGS = (
    Naming('timm ViT', timm_vit, norm_eps=1e-6),
    Naming('mmpretrain ViT', mmpretrain_vit, norm_eps=1e-6),
    Naming('mmseg VisionTransformer', mmseg_vit, square=False),
)
