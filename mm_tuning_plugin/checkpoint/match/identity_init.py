"""Parameters that a file cannot have, given the value at which they change nothing.

A backbone of mmseg may hold more than the network that was pre-trained: MAE has LayerScale and both
kinds of positions, Swin and ConvNeXt a norm on every output, a layer may have a bias. Where a file
lacks *all* of a kind, the kind was no part of that network, and its neutral value keeps the
function that was learnt; the backbone's own initialisation need not (mmseg's MAE starts LayerScale
at 0.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Neutral(NamedTuple):
    """One kind of parameters that may be absent.

    Attributes:
        kind: Pattern of the backbone's names.
        value: What changes nothing.
        given: Pattern of a name that must have been found in the file: what the kind replaces or
            comes with.
    """

    kind: str
    value: float
    given: str


NEUTRAL = (
    Neutral(r'layers\.\d+\.gamma_[12]', 1.0, r'layers\.0\.attn\.qkv\.weight'),
    Neutral(r'layers\.\d+\.attn\.relative_position_bias_table', 0.0, r'pos_embed'),
    Neutral(r'pos_embed', 0.0, r'layers\.0\.attn\.relative_position_bias_table'),
    Neutral(r'layers\.\d+\.attn\.(qkv\.bias|[qv]_bias)', 0.0, r'layers\.0\.attn\.qkv\.weight'),
    Neutral(
        r'layers\.\d+\.attn\.attn\.in_proj_bias', 0.0, r'layers\.0\.attn\.attn\.in_proj_weight'
    ),
    Neutral(r'patch_embed\.projection\.bias', 0.0, r'patch_embed\.projection\.weight'),
    # ConvNeXt V1 has LayerScale; V2 has GRN instead, which passes its input through if it is zero.
    Neutral(r'stages\.\d+\.\d+\.gamma', 1.0, r'stages\.0\.0\.depthwise_conv\.weight'),
    Neutral(r'stages\.\d+\.\d+\.grn\.(gamma|beta)', 0.0, r'stages\.0\.0\.depthwise_conv\.weight'),
)
# A norm on each output of a pyramid: new layers of the segmentor, one per output, so that a file
# may have some (the classifier's last) and lack others. Twins' `norm_list` feeds the next stage:
# neutral norms are what mmseg and the original start with, not the classifier's function.
_OUTPUT_NORM = re.compile(r'norm(?:\d|_list\.\d+)\.(weight|bias)')
_PYRAMIDS = ('stages.', 'position_encodings.')  # Swin and ConvNeXt; Twins


def neutral_values(targets: Mapping[str, Tensor], found: Iterable[str]) -> dict[str, Tensor]:
    """Values for the parameters of a backbone that its file cannot have.

    Args:
        targets: The backbone's own tensors by name.
        found: Names among them that the file provides.

    Returns:
        Backbone's name -> tensor, only for names that were not found.
    """
    found = set(found)
    values: dict[str, Tensor] = {}
    for rule in NEUTRAL:
        names = [name for name in targets if re.fullmatch(rule.kind, name)]
        if found.isdisjoint(names) and any(re.fullmatch(rule.given, name) for name in found):
            values.update({name: torch.full_like(targets[name], rule.value) for name in names})
    if any(name.startswith(_PYRAMIDS) for name in found):
        for name in set(targets) - found:
            norm = _OUTPUT_NORM.fullmatch(name)
            if norm:
                values[name] = torch.full_like(targets[name], norm.group(1) == 'weight')
    return values
