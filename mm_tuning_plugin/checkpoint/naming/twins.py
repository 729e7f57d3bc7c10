"""Twins-PCPVT and Twins-SVT: the original names to mmseg's.

Global attention keeps its query apart from key and value; mmseg's is torch's own, which packs them.
Local attention, every other block of SVT, is packed on both sides and keeps its names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .packing import pack
from .rules import Naming, Rules, Tensors, apply_rules

_NAMES: Rules = (
    (r'^patch_embeds\.(\d)\.proj\.', r'patch_embeds.\1.projection.'),
    (r'^pos_block\.(\d)\.proj\.0\.', r'position_encodings.\1.proj.'),
    (r'^blocks\.', 'layers.'),
    (r'\.mlp\.fc1\.', '.ffn.layers.0.0.'),
    (r'\.mlp\.fc2\.', '.ffn.layers.1.'),
    (r'\.attn\.qkv_packed\.(weight|bias)$', r'.attn.attn.in_proj_\1'),
)
_BLOCK = re.compile(r'blocks\.(\d+\.\d+)\.attn\.q\.weight')


def official_twins(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Names of ``pos_block``, ``blocks.i.j.attn.q`` and ``kv``; the classifier's norm stays out."""
    global_blocks = {found.group(1) for found in map(_BLOCK.fullmatch, tensors) if found}
    packed = pack(tensors, ('.attn.q.', '.attn.kv.'), '.attn.qkv_packed.')
    named: Tensors = {}
    for name, tensor in packed.items():
        block = re.match(r'blocks\.(\d+\.\d+)\.attn\.proj\.', name)
        if block and block.group(1) in global_blocks:
            name = name.replace('.attn.proj.', '.attn.attn.out_proj.')
        named[apply_rules(_NAMES, name)] = tensor
    return named


NAMINGS = (
    Naming(
        'official Twins',
        official_twins,
        note='the norms of the blocks have an epsilon of 1e-06 where such files come from and '
        "1e-05 in mmseg's class, which no argument changes; norm_after_stage=True would put norms "
        'between the stages that such files do not have',
    ),
)
