"""The list of parts of a file that may be left out because they do not change the features.

Any other tensor without a place in the backbone (positions, a norm, a gate, a token, a bias, rotary
frequencies) belongs to a network that computes something else, so the file is refused.

Names are those of the encoder in the file, without prefix, translated to the backbone's. The *root*
of a name is its first component.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from mm_tuning_plugin.checkpoint.match.timm_cuts import cut_off, is_chain

# Anywhere, by the last component of the name.
COUNTERS = 'num_batches_tracked|total_ops|total_params'  # those of profilers too
TABLES = (  # computed by a network for its own size
    'relative_position_index|relative_coords_table|attn_mask|attention_bias_idxs|position_ids'
)
MASKS = r'mask(?:ed)?_(?:token|tokens|emb|embed|embeddings?)'  # replace what pretext tasks hide
_LEAF = re.compile(rf'(?:.*\.)?(?:{COUNTERS}|{TABLES}|{MASKS})')
# No parameters either, but a norm without them is another one: not to be left out.
STATISTICS = 'running_mean|running_var'
_BUFFER = re.compile(rf'(?:.*\.)?(?:{COUNTERS}|{TABLES}|{STATISTICS})')

# Words of a root, set apart by '_': heads of pretext tasks and of classifiers, with all that they
# read; other networks; what a trainer keeps.
_WORDS = re.compile(
    r'(?:.*_)?(?:heads?|classifiers?|logits|aux|auxiliary|neck|decoders?|decode|pooler|'
    r'projectors?|predictors?|prototypes?|queue|loss|losses|criterion|'
    r'teacher|student|target|momentum|ema|'
    r'optimizer|scheduler|scaler|lr|steps?|iteration|rng|metrics?)(?:_.*|\d+)?'
)
# Whole roots of the same kind.
_ROOTS = re.compile(
    r'fcs?|fc\d+\w*|linear\d*|proj|projection|last_layer|pred|prediction|centers?|'
    r'attn_?pool|logit_scale|logit_bias|temperature|n_averaged|'
    r'cls_attn_blocks|cls_attn_layers|blocks_token_only|cls_pt_layers|'  # of the class token alone
    r'incre_modules|downsamp_modules|final_layer|'  # HRNet's classifier
    r'norm|ln|ln[12]|ln_post|layernorm|fc_norm|encoder_norm'  # after the last block
)
# Roots that are of this kind only if the file also has another one.
_BESIDE = (
    ('bn2', 'conv_head'),  # the norm of EfficientNet's last convolution, before its classifier
    # XCiT, CaiT: the class token enters after the last block of patches.
    ('cls_token', 'cls_attn_blocks'),
    ('cls_token', 'blocks_token_only'),
    ('cls_token', 'cls_attn_layers'),
    # DeiT's second class token: features without it are those of another network, which a note of
    # `judge_vit` tells.
    ('dist_token', 'cls_token'),
)
# Roots that count levels: what is beyond the backbone's last one is behind all that it computes.
_LEVEL = re.compile(r'(layer|stages?_?|blocks?_?|s|res|transition|patch_embed)(\d+)')
_LAYER = re.compile(r'(conv)(\d+)(?:_\d+)?')  # Caffe's; two may be a stem
_OUTPUT_NORM = re.compile(r'norm\d+')  # one norm an output, of the outputs that are read
FEW = 2


def is_buffer(name: str) -> bool:
    """Whether a name is that of a buffer, which coverage does not count."""
    return bool(_BUFFER.fullmatch(name))


def left_over(
    backbone: nn.Module, targets: Iterable[str], found: Iterable[str], unused: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What of a file is left over and not known to be without effect on the features.

    Args:
        backbone: To be loaded; shows what timm cut off.
        targets: Its own names.
        found: Translated names of the file that have a place in it.
        unused: The others under the file's prefix.
    """
    behind = _Behind(list(targets), backbone)
    beside = {name.split('.')[0] for name in (*found, *unused)}
    return {
        name: tensor
        for name, tensor in unused.items()
        if not _is_known(name, behind.roots, beside) and name not in behind
    }


def _is_known(name: str, roots: set[str], beside: set[str]) -> bool:
    """Whether the list has a name by itself.

    Args:
        name: Of a tensor that is left over.
        roots: The backbone's.
        beside: Other names of the file.
    """
    root = name.split('.')[0]
    if _LEAF.fullmatch(name):
        return True
    if root in roots and name != root:  # inside one of the backbone's modules
        return False
    if any(root == part and other in beside for part, other in _BESIDE):
        return True
    root = root.replace('-', '_')  # Caffe's layers
    return bool(_ROOTS.fullmatch(root) or _WORDS.fullmatch(root))


class _Behind:
    """Names of what comes after the last thing that a backbone computes.

    Args:
        targets: The backbone's own names.
        backbone: Its module.
    """

    def __init__(self, targets: Iterable[str], backbone: nn.Module) -> None:
        roots = {target.split('.')[0] for target in targets}
        self.roots = roots
        self.levels = _highest(_LEVEL, roots)
        layers = _highest(_LAYER, roots)
        numbered = [root for root in roots if _LAYER.fullmatch(root)]
        self.layers = layers if len(numbered) > FEW else {}
        self.has_output_norms = any(map(_OUTPUT_NORM.fullmatch, roots))
        self.cut = tuple(f'{name}.' for name in cut_off(backbone, targets))
        self.is_chain = is_chain(backbone)

    def __contains__(self, name: str) -> bool:
        root, _, rest = name.partition('.')
        if name.startswith(self.cut):
            return True
        if root in self.roots:
            return False
        if self.is_chain and rest:
            return True
        if self.has_output_norms and _OUTPUT_NORM.fullmatch(root):
            return True
        return any(
            int(found.group(2)) > highest.get(found.group(1), 1 << 30)
            for pattern, highest in ((_LEVEL, self.levels), (_LAYER, self.layers))
            for found in [pattern.fullmatch(root.replace('-', '_'))]
            if found
        )


def _highest(pattern: re.Pattern[str], roots: Iterable[str]) -> dict[str, int]:
    """The highest number of each kind of roots that a pattern knows."""
    highest: dict[str, int] = {}
    for found in filter(None, map(pattern.fullmatch, roots)):
        kind, number = found.group(1), int(found.group(2))
        highest[kind] = max(number, highest.get(kind, number))
    return highest
