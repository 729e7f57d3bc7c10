"""From the names that other projects give to a network's tensors to those of mmseg's backbones.

One small pure function a convention, all in the table `RENAMES`. Each takes the tensors of a file,
their common prefix already stripped, and the backbone's own tensors, and returns tensors under the
backbone's names. Names that it does not know pass through unchanged, so a renaming may be tried on
any file: the search keeps the one under which most parameters find their place.

Where the backbone lacks a parameter of the file that can be multiplied or added into another one
without changing the function (LayerScale, the patch bias), that is done here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Callable

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
Rename = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensors]
Rules = tuple[tuple[str, str], ...]


def same_names(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """OpenMMLab's own files, and torchvision's ResNets, whose names mmseg shares."""
    return dict(tensors)


_SEQUENTIAL = (
    (r'^0\.', 'conv1.'),
    (r'^1\.', 'bn1.'),
    (r'^([4-7])\.', lambda found: f'layer{int(found.group(1)) - 3}.'),
)
_DEEP_STEM: Rules = (
    (r'^bn1\.', 'stem.7.'),
    (r'^conv1\.(\d)\.', r'stem.\1.'),
)
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
_SWIN: Rules = (
    (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
    (r'^layers\.', 'stages.'),
    (r'\.attn\.(?!w_msa)', '.attn.w_msa.'),
    (r'\.mlp\.fc1\.', '.ffn.layers.0.0.'),
    (r'\.mlp\.fc2\.', '.ffn.layers.1.'),
)


def sequential_resnet(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """A ResNet wrapped as ``nn.Sequential(*resnet.children())``, as in lightly: 0, 1, 4..7."""
    return {_apply(_SEQUENTIAL, name): tensor for name, tensor in tensors.items()}


def deep_stem_resnet(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Timm's ResNet-D: its stem is ``conv1.0, 1, 3, 4, 6, bn1``, mmseg's ``stem.0 .. stem.7``."""
    if not any(name.startswith('conv1.0.') for name in tensors):
        return dict(tensors)
    return {_apply(_DEEP_STEM, name): tensor for name, tensor in tensors.items()}


def timm_vit(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Timm's ViT names (MoCo v3, DINO, iBOT, MAE, BEiT, DINOv2) and mmpretrain's.

    For mmseg's VisionTransformer the projections of attention get torch's own names; MAE and BEiT
    keep qkv and proj. The table of relative positions that BEiT shares is given to every block.
    """
    inner = any('.attn.attn.' in name for name in targets)
    rules = _BLOCKS + (_ATTENTION if inner else ())
    named = {_apply(rules, name): tensor for name, tensor in tensors.items()}
    shared = named.pop('rel_pos_bias.relative_position_bias_table', None)
    if shared is not None:
        for name in targets:
            if name.endswith('.attn.relative_position_bias_table'):
                named.setdefault(name, shared)
    return _fold_patch_bias(_fold_layer_scale(named, targets), targets)


def official_swin(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Swin's official names, with the order of the merged patches (SimMIM and others).

    The original concatenates the four neighbours as (0,0) (1,0) (0,1) (1,1) blocks of C channels;
    mmseg's PatchMerging unfolds, so channels come first and the neighbours are (0,0) (0,1) (1,0)
    (1,1). Follows ``tools/model_converters/swin2mmseg.py`` of MMSegmentation 1.2.2.
    """
    last = max((name.split('.')[0] for name in targets if re.match(r'norm\d\.', name)), default='')
    rules = (*_SWIN, (r'^norm\.', f'{last}.')) if last else _SWIN
    named: Tensors = {}
    for name, tensor in tensors.items():
        merging = name.startswith('layers.') and '.downsample.' in name
        named[_apply(rules, name)] = _merged_order(tensor) if merging else tensor
    return named


RENAMES: tuple[tuple[str, Rename], ...] = (
    ('same names', same_names),
    ('timm ViT', timm_vit),
    ('Sequential ResNet', sequential_resnet),
    ('timm deep-stem ResNet', deep_stem_resnet),
    ('official Swin', official_swin),
)


def _apply(rules: tuple[tuple[str, object], ...], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)  # type: ignore[call-overload]
    return name


def _merged_order(tensor: Tensor) -> Tensor:
    """Reorders the last dimension of size 4C from (neighbour, C) to (C, neighbour)."""
    if tensor.shape[-1] % 4:
        return tensor
    blocks = tensor.reshape(*tensor.shape[:-1], 4, -1)  # (..., 4, C)
    return blocks[..., [0, 2, 1, 3], :].transpose(-1, -2).flatten(-2)


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
