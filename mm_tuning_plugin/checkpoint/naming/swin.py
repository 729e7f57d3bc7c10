"""Swin transformers: the original names to mmseg's, with the order of the merged patches."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .rules import Naming, Rules, Tensors, apply_rules

_SWIN: Rules = (
    (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
    (r'^layers\.', 'stages.'),
    (r'\.attn\.(?!w_msa)', '.attn.w_msa.'),
    (r'\.mlp\.fc1\.', '.ffn.layers.0.0.'),
    (r'\.mlp\.fc2\.', '.ffn.layers.1.'),
)


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
        named[apply_rules(rules, name)] = _merged_order(tensor) if merging else tensor
    return named


def _merged_order(tensor: Tensor) -> Tensor:
    """Reorders the last dimension of size 4C from (neighbour, C) to (C, neighbour)."""
    if tensor.shape[-1] % 4:
        return tensor
    blocks = tensor.reshape(*tensor.shape[:-1], 4, -1)  # (..., 4, C)
    return blocks[..., [0, 2, 1, 3], :].transpose(-1, -2).flatten(-2)


NAMINGS = (Naming('official Swin', official_swin),)
