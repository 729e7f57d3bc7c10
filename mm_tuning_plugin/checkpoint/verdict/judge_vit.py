"""Describe the parts by which two vision transformers differ, and the backbone that would fit.

Leftovers are refused for every backbone (`judge`, `droppable_parts`). For VisionTransformer, MAE
and BEiT the message also names the part and the argument or backbone that has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from mm_tuning_plugin.checkpoint.match.fit import Fit
from mm_tuning_plugin.errors import UserError

# Words for parts that the backbone has no place for: pattern of the name that is left over, what it
# is, and what would be right.
_PARTS = tuple(
    (re.compile(pattern), found, expected)
    for pattern, found, expected in (
        (
            r'(register_tokens|reg_token|storage_tokens)$',
            'register tokens, which all others attend to',
            'a file without registers',
        ),
        (
            r'layers\.0\.(mlp|ffn)\.(w12|w3|w1|w2|weights_in|weights_out|fc1_g|gate_proj)\.',
            'a gated MLP (SwiGLU)',
            'a file with an MLP of two layers',
        ),
        (
            r'layers\.0\.attn\.[qk]_norm\.',
            'norms on queries and keys',
            'a file without them',
        ),
        (
            r'(.*\.)?(rope|rotary)\w*(\.|$)|(.*\.)?freqs(_cos|_sin|_cis)?$',
            'rotary positions',
            "a backbone that has them, such as timm's through TIMMBackbone",
        ),
        (r'ln_pre\.', 'a norm before its first block', 'pre_norm=True in a VisionTransformer'),
        (r'pos_embed$', 'absolute positions', "mmseg's MAE, which has both kinds of positions"),
        (
            r'(layers\.0\.attn|rel_pos_bias)\.relative_position_bias_table',
            'relative positions',
            "mmseg's BEiT or MAE, which have them",
        ),
        (r'layers\.0\.attn\.rel_pos_[hw]$', 'relative positions of two axes', 'a plain ViT'),
        (
            r'layers\.0\.attn\.(qkv|attn)\.(in_proj_)?bias$',
            'biases of query, key and value',
            'qkv_bias=True (BEiT: qv_bias=True)',
        ),
    )
)


def is_vit(names: Iterable[str]) -> bool:
    """Whether names are those of mmseg's VisionTransformer, MAE or BEiT."""
    return {'cls_token', 'layers.0.ln1.weight', 'patch_embed.projection.weight'} <= set(names)


def judge_parts(
    backbone: nn.Module,
    path: Path,
    fit: Fit,
    targets: Mapping[str, Tensor],
    left: Mapping[str, Tensor],
    min_matched: float,
) -> None:
    """Raises an error if the file's transformer is known to differ from the backbone's.

    Args:
        backbone: To be loaded; all but ViTs pass.
        path: The file, for the message.
        fit: The best fit.
        targets: The backbone's own tensors.
        left: What of the file is left over and may not be left out (`parts`).
        min_matched: 0 accepts whatever matches.

    Raises:
        UserError: With the part that the file's network has or lacks, and the expectation.
    """
    if not min_matched or not is_vit(targets) or 'layers.0.ln1.weight' not in fit.values:
        return
    found, expected = _foreign_part(fit, left, targets) or _lacking_part(backbone, fit, targets)
    if found:
        raise UserError(
            str(path),
            f'does not fit {type(backbone).__name__}: the file has {found}, and the backbone '
            'computes something else',
            f'expected {expected}',
        )


def note_parts(backbone: nn.Module, fit: Fit, targets: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What of a transformer that was loaded differs from its file's by choice, as lines."""
    notes = []
    if 'dist_token' in fit.unused:
        notes.append(
            "the file's distillation token is left out, for which the backbone has no place: "
            'features are those of the network without it'
        )
    if (
        is_vit(targets)
        and 'cls_token' in fit.values
        and not getattr(backbone, 'with_cls_token', True)
    ):
        notes.append(
            'the backbone leaves the class token out of attention (with_cls_token=False), which '
            "the file's network attends to: features differ"
        )
    return tuple(notes)


def _foreign_part(
    fit: Fit, left: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> tuple[str, str] | None:
    """Return (part of the file, expectation) of the first part that the backbone lacks."""
    for pattern, found, expected in _PARTS:
        if any(pattern.match(name) and name not in targets for name in left):
            return found, expected
    weights = {**fit.values, **fit.unused}
    inner, outer = (weights.get(f'layers.0.ffn.layers.{i}.weight') for i in ('0.0', '1'))
    if inner is not None and outer is not None and inner.shape[0] == 2 * outer.shape[1]:
        return 'a gated MLP (SwiGLU)', 'a file with an MLP of two layers'
    return None


def _lacking_part(backbone: nn.Module, fit: Fit, targets: Mapping[str, Tensor]) -> tuple[str, str]:
    """Return (part that the file lacks, expectation) of the first such part; ('', '') if none."""
    if not {'cls_token'} & {*fit.values, *fit.mismatched} and getattr(
        backbone, 'with_cls_token', True
    ):
        return 'no class token', 'a VisionTransformer with with_cls_token=False'
    for name, option in (('ln1.weight', 'final_norm'), ('ln_pre.weight', 'pre_norm')):
        if name in targets and name not in fit.values and name not in fit.mismatched:
            where = 'behind its last' if option == 'final_norm' else 'before its first'
            return f'no norm {where} block', f'{option}=False'
    return '', ''
