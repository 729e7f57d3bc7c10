"""Twins (PCPVT and SVT): the official names, which timm shares, to mmseg's.

Epsilons are mixed in the original (1e-6 in blocks, 1e-5 behind convolutions), so none is named but
in the note.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .packing import pack
from .rules import Naming, Rules, Tensors, apply_rules, last_index, rename_all

_TWINS: Rules = (
    (r'^(patch_embeds\.\d+)\.proj\.', r'\1.projection.'),
    (r'^pos_block\.(\d+)\.proj\.0\.', r'position_encodings.\1.proj.'),
    (r'^blocks\.', 'layers.'),
    (r'\.mlp\.fc1\.', '.ffn.layers.0.0.'),
    (r'\.mlp\.fc2\.', '.ffn.layers.1.'),
)


def official_twins(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Twins' own names; ``kv`` stacks key over value.

    Only global attention becomes torch's, with one matrix for query, key and value; local attention
    (every other block of SVT) keeps its ``qkv`` and ``proj``. The norm behind the last stage
    is that of the last output, if the backbone has norms on its outputs.
    """
    last = f'norm_list.{last_index(targets, "norm_list")}.'
    rules = (*_TWINS, (r'^norm\.', last)) if f'{last}weight' in targets else _TWINS

    def renamed(name: str) -> str:
        name = apply_rules(rules, name)
        inner = name.replace('.attn.proj.', '.attn.attn.out_proj.')
        return inner if inner in targets else name

    named = rename_all(tensors, renamed)
    return pack(named, ('.attn.q.', '.attn.kv.'), '.attn.attn.in_proj_')


_NOTE = (
    'the norms of the blocks have an epsilon of 1e-06 where such files come from and 1e-05 in '
    "mmseg's class, which no argument changes; norm_after_stage=True would put norms between the "
    'stages that such files do not have'
)
RANK = 8
NAMINGS = (Naming('official Twins', official_twins, note=_NOTE),)
