"""MiT, the encoder of SegFormer: the names of two projects to those of MixVisionTransformer.

mmseg holds a stage as ``layers.i.0`` (patch embedding), ``layers.i.1`` (blocks), ``layers.i.2``
(norm), query, key and value in one matrix, and the FFN's linear layers as 1x1 convolutions.

Epsilons are mixed in the original (1e-6 in blocks, 1e-5 behind convolutions) and 1e-5 throughout in
Hugging Face's copy of the same weights, so none is named.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .packing import pack, pointwise
from .rules import Naming, Replacement, Rules, Tensors, rename_by_rules


def _counted_from_one(rest: str) -> Replacement:
    return lambda found: f'layers.{int(found.group(1)) - 1}.{rest}'


_OFFICIAL: Rules = (
    (r'^patch_embed(\d)\.', _counted_from_one('0.')),
    (r'^block(\d)\.', _counted_from_one('1.')),
    (r'^norm(\d)\.', _counted_from_one('2.')),
    (r'^(layers\.\d+\.0)\.proj\.', r'\1.projection.'),
    (r'\.attn\.q\.', '.attn.query.'),
    (r'\.attn\.proj\.', '.attn.attn.out_proj.'),
    (r'\.mlp\.fc1\.', '.ffn.layers.0.'),
    (r'\.mlp\.dwconv\.dwconv\.', '.ffn.layers.1.'),
    (r'\.mlp\.fc2\.', '.ffn.layers.4.'),
)
# Names on the hub, and those of the same tensors in transformers 5.
_HUGGING_FACE: Rules = (
    (r'^encoder\.patch_embeddings\.(\d+)\.', r'layers.\1.0.'),
    (r'^encoder\.block\.(\d+)\.', r'layers.\1.1.'),
    (r'^encoder\.layer_norm\.(\d+)\.', r'layers.\1.2.'),
    (r'^stages\.(\d+)\.patch_embeddings\.', r'layers.\1.0.'),
    (r'^stages\.(\d+)\.blocks\.', r'layers.\1.1.'),
    (r'^stages\.(\d+)\.layer_norm\.', r'layers.\1.2.'),
    (r'^(layers\.\d+\.0)\.proj\.', r'\1.projection.'),
    (r'^(layers\.\d+\.0)\.layer_norm\.', r'\1.norm.'),
    (r'\.(layer_norm_1|layernorm_before)\.', '.norm1.'),
    (r'\.(layer_norm_2|layernorm_after)\.', '.norm2.'),
    (r'\.attention\.self\.(query|key|value)\.', r'.attn.\1.'),
    (r'\.attention\.self\.sr\.', '.attn.sr.'),
    (r'\.attention\.self\.layer_norm\.', '.attn.norm.'),
    (r'\.attention\.output\.dense\.', '.attn.attn.out_proj.'),
    (r'\.attention\.q_proj\.', '.attn.query.'),
    (r'\.attention\.k_proj\.', '.attn.key.'),
    (r'\.attention\.v_proj\.', '.attn.value.'),
    (r'\.attention\.o_proj\.', '.attn.attn.out_proj.'),
    (r'\.attention\.sequence_reduction\.sequence_reduction\.', '.attn.sr.'),
    (r'\.attention\.sequence_reduction\.layer_norm\.', '.attn.norm.'),
    (r'\.mlp\.(dense1|fc1)\.', '.ffn.layers.0.'),
    (r'\.mlp\.dwconv\.dwconv\.', '.ffn.layers.1.'),
    (r'\.mlp\.(dense2|fc2)\.', '.ffn.layers.4.'),
)


def official_mit(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """SegFormer's own names: ``block1.0.attn.q`` and ``.kv``, which stacks key over value."""
    named = rename_by_rules(_OFFICIAL, tensors)
    named = pack(named, ('.attn.query.', '.attn.kv.'), '.attn.attn.in_proj_')
    return pointwise(named, targets)


def hugging_face_mit(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """``SegformerModel`` of transformers: query, key and value apart."""
    named = rename_by_rules(_HUGGING_FACE, tensors)
    parts = ('.attn.query.', '.attn.key.', '.attn.value.')
    return pointwise(pack(named, parts, '.attn.attn.in_proj_'), targets)


RANK = 6
NAMINGS = (
    Naming('official MiT', official_mit),
    Naming('Hugging Face MiT', hugging_face_mit),
)
