"""Swin transformers: the names of three projects to mmseg's, with the order of merged patches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from .packing import pack
from .rules import Naming, Rules, Tensors, last_index, rename_by_rules

_SWIN: Rules = (
    (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
    (r'^layers\.', 'stages.'),
    (r'\.attn\.(?!w_msa)', '.attn.w_msa.'),
    (r'\.mlp\.fc1\.', '.ffn.layers.0.0.'),
    (r'\.mlp\.fc2\.', '.ffn.layers.1.'),
)
# Hugging Face's names on the hub, then those of the same tensors in transformers 5.
_HUGGING_FACE: Rules = (
    (r'^embeddings\.patch_embeddings\.projection\.', 'patch_embed.proj.'),
    (r'^embeddings\.norm\.', 'patch_embed.norm.'),
    (r'^embeddings\.position_embeddings$', 'absolute_pos_embed'),
    (r'^encoder\.layers\.', 'layers.'),
    (r'^layernorm\.', 'norm.'),
    (r'\.attention\.self\.(query|key|value)\.', r'.attn.\1.'),
    (r'\.attention\.self\.relative_position_', '.attn.relative_position_'),
    (r'\.attention\.output\.dense\.', '.attn.proj.'),
    (r'\.intermediate\.dense\.', '.mlp.fc1.'),
    (r'\.output\.dense\.', '.mlp.fc2.'),
    (r'\.attention\.q_proj\.', '.attn.query.'),
    (r'\.attention\.k_proj\.', '.attn.key.'),
    (r'\.attention\.v_proj\.', '.attn.value.'),
    (r'\.attention\.o_proj\.', '.attn.proj.'),
    (r'\.attention\.relative_position_bias\.', '.attn.'),
    (r'\.layernorm_before\.', '.norm1.'),
    (r'\.layernorm_after\.', '.norm2.'),
)
_REDUCTION = re.compile(r'(layers\.\d+\.downsample)\.reduction\.weight')


def official_swin(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Swin's official names, with the order of the merged patches (SimMIM and others).

    The original concatenates the four neighbours as (0,0) (1,0) (0,1) (1,1) blocks of C channels;
    mmseg's PatchMerging unfolds, so channels come first and the neighbours are (0,0) (0,1) (1,0)
    (1,1). Follows ``tools/model_converters/swin2mmseg.py`` of MMSegmentation 1.2.2. The norm behind
    the last stage is that of the backbone's last output, if it has this output.
    """
    last = f'norm{last_index(targets, "stages")}.'
    rules = (*_SWIN, (r'^norm\.', last)) if f'{last}weight' in targets else _SWIN
    named = rename_by_rules(rules, _unfolded_order(tensors))
    return _moved(named, 'stages', 1) if _ends(named) and not _ends(targets) else named


def timm_swin(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Timm's names since 0.9: the official ones, but stages *begin* with the merging of patches.

    Its ``layers.1.downsample`` is the official ``layers.0.downsample``; the neighbours stand in the
    official order.
    """
    if any(name.startswith('layers.0.downsample.') for name in tensors):
        return dict(tensors)
    return official_swin(_moved(tensors, 'layers', -1), targets)


def hugging_face_swin(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """``SwinModel`` of transformers: separate query, key and value; official names otherwise."""
    official = rename_by_rules(_HUGGING_FACE, tensors)
    official = pack(official, ('.attn.query.', '.attn.key.', '.attn.value.'), '.attn.qkv.')
    return official_swin(official, targets)


def _ends(names: Iterable[str]) -> bool:
    """Whether stages end with the merging of patches, as all but mmpretrain's SwinV2's do."""
    return any(name.startswith('stages.0.downsample.') for name in names)


def _moved(tensors: Mapping[str, Tensor], stages: str, by: int) -> Tensors:
    """The merging of patches as a part of the next stage (1), or of the one before (-1)."""
    place = rf'^{stages}\.(\d+)\.downsample\.'
    rules: Rules = ((place, lambda found: f'{stages}.{int(found.group(1)) + by}.downsample.'),)
    return rename_by_rules(rules, tensors)


def _unfolded_order(tensors: Mapping[str, Tensor]) -> Tensors:
    """Reorders what reads merged patches: the reduction, and a norm only where it stands before it.

    The norm of V1 has the 4C channels that are merged, that of V2 the 2C that they are reduced to.
    """
    ordered: Tensors = dict(tensors)
    for name, weight in tensors.items():
        found = _REDUCTION.fullmatch(name)
        if not found or weight.ndim != 2 or weight.shape[1] % 4:
            continue
        ordered[name] = _merged_order(weight)
        for kind in ('weight', 'bias'):
            norm = f'{found.group(1)}.norm.{kind}'
            if norm in tensors and tensors[norm].shape == weight.shape[1:]:
                ordered[norm] = _merged_order(tensors[norm])
    return ordered


def _merged_order(tensor: Tensor) -> Tensor:
    """Reorders the last dimension of size 4C from (neighbour, C) to (C, neighbour)."""
    blocks = tensor.reshape(*tensor.shape[:-1], 4, -1)  # (..., 4, C)
    return blocks[..., [0, 2, 1, 3], :].transpose(-1, -2).flatten(-2)


RANK = 5
NAMINGS = (
    Naming('official Swin', official_swin, norm_eps=1e-5),
    Naming('timm Swin', timm_swin, norm_eps=1e-5),
    Naming('Hugging Face Swin', hugging_face_swin, norm_eps=1e-5),
)
