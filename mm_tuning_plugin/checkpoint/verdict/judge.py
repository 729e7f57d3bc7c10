"""Decide whether a fit is good enough: every stage covered, all values finite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mm_tuning_plugin.checkpoint.io.file_metadata import declared_rotary, has_rotary
from mm_tuning_plugin.checkpoint.io.read import TensorFile
from mm_tuning_plugin.checkpoint.match.droppable_parts import is_buffer
from mm_tuning_plugin.checkpoint.match.fit import Fit
from mm_tuning_plugin.checkpoint.match.stages import Stages, leftover
from mm_tuning_plugin.checkpoint.verdict.explain import explain
from mm_tuning_plugin.checkpoint.verdict.leftovers import own_names
from mm_tuning_plugin.errors import UserError

# Matrices that may be zero in a trained network: positions, tokens, biases by position.
_MAY_BE_ZERO = ('pos_embed', 'token', 'bias_table')


def judge_fit(
    backbone: nn.Module,
    path: Path,
    file: TensorFile,
    fit: Fit,
    stages: Stages,
    counts: Mapping[str, tuple[int, int]],
    left: Mapping[str, Tensor],
    lacking: Sequence[str],
    min_matched: float,
) -> None:
    """Raises an error if a stage is not covered, or differs from the file's.

    A tensor that is left over may be few numbers (a norm, the scale of a residual, a bias), and the
    network without it computes something else: `parts` lists what may be left out.

    Args:
        backbone: To be loaded.
        path: The file, for the message.
        file: It.
        fit: The best fit.
        stages: Of the backbone.
        counts: Stage -> (parameters found or filled, parameters there are).
        left: Leftovers of the file that the list of `droppable_parts` does not have.
        lacking: Names of the backbone's parameters whose whole kind the file lacks.
        min_matched: Share in [0, 1] that every stage must reach, in both directions.

    Raises:
        UserError: With the stage, the finding, the expectation and the nearest explanation.
    """
    name = type(backbone).__name__
    hint = explain(backbone, fit, file.tensors)
    if not fit.matched:
        example = next((key for key, _ in backbone.named_parameters()), 'none')
        raise UserError(
            str(path),
            f'none of its {len(file.tensors)} tensors fits {name}{hint}',
            f'expected names like {example}',
        )
    worst = min(counts, key=lambda stage: counts[stage][0] / counts[stage][1])
    loaded, total = counts[worst]
    if loaded / total < min_matched:
        raise UserError(
            str(path),
            f"does not fit {name}: stage '{worst}' finds {loaded:,} of {total:,} parameters "
            f'({loaded / total:.0%}){hint}',
            f'expected at least {min_matched:.0%}',
        )
    surplus = stages.surplus(left) if min_matched else None
    if surplus:
        raise UserError(
            str(path),
            f"does not fit {name}: the file goes on with '{surplus}', which the backbone does not "
            f'have{hint}',
            'expected a file of the same depth',
        )
    for stage, spare in leftover(stages, left).items():
        used = counts[stage][0] if stage in counts else 0
        if used < min_matched * (used + spare):
            raise UserError(
                str(path),
                f"does not fit {name}: of stage '{stage}' {spare:,} of {used + spare:,} parameters "
                f'in the file have no place in the backbone{hint}',
                f'expected at most {1 - min_matched:.0%}',
            )
    strange = next(iter(left), '') if min_matched else ''
    if strange in fit.mismatched:
        shape, wanted = fit.mismatched[strange]
        raise UserError(
            str(path),
            f"does not fit {name}: '{strange}' is {shape} in the file{hint}",
            f'expected {wanted}',
        )
    if strange:
        raise UserError(
            str(path),
            f"does not fit {name}: '{_own_name(file, fit, strange)}' of the file has no place in "
            f'the backbone, which computes something else without it{hint}',
            'expected the same modules, or a file without it where it is a head',
        )
    if lacking and min_matched:
        raise UserError(
            str(path),
            f"does not fit {name}: no '{lacking[0]}' nor any of its kind in the file, which would "
            f'keep their random start{hint}',
            'expected one in each block',
        )


def _own_name(file: TensorFile, fit: Fit, name: str) -> str:
    own = own_names(file.tensors, fit)[name]
    return file.names.get(own, own)


def judge_told(
    backbone: nn.Module, path: Path, file: TensorFile, fit: Fit, min_matched: float
) -> None:
    """Raises an error if a file's network has rotary positions and the backbone does not.

    Args:
        backbone: To be loaded.
        path: The file, for the message.
        file: It.
        fit: The best fit.
        min_matched: 0 accepts whatever matches.

    Raises:
        UserError: With the place of this information.
    """
    below = {n[len(fit.prefix) :] for n in file.tensors if n.startswith(fit.prefix)}
    rotary = declared_rotary(file.metadata, below) if min_matched else ''
    if rotary and not has_rotary(backbone):
        raise UserError(
            str(path),
            f'does not fit {type(backbone).__name__}: its network has rotary positions ({rotary}), '
            'and the backbone computes something else without them',
            "expected a backbone that has them, such as timm's through TIMMBackbone",
        )


def judge_values(path: Path, values: Mapping[str, Tensor]) -> None:
    """Raises where what would be loaded is no trained network.

    Args:
        path: The file, for the message.
        values: Backbone's name -> the file's tensor.

    Raises:
        UserError: A parameter holds integers, NaN, infinity, or a matrix nothing but zeros.
    """
    for name, value in values.items():
        if value.is_floating_point():
            if not torch.isfinite(value).all():
                raise UserError(
                    str(path), f'{name} holds NaN or infinity', 'expected finite weights'
                )
        elif not is_buffer(name):
            raise UserError(
                str(path),
                f'{name} holds {value.dtype}',
                'expected floating-point weights: quantised files do not fit',
            )
    zero = [name for name in _matrices(values) if not values[name].any()]
    if zero:
        raise UserError(
            str(path),
            f'{len(zero)} of its weights are all zero, e.g. {zero[0]}',
            'expected a trained network',
        )


def _matrices(values: Mapping[str, Tensor]) -> Iterable[str]:
    """Names of kernels and matrices, which no training leaves at zero."""
    return (
        name
        for name, value in values.items()
        if value.ndim >= 2
        and not is_buffer(name)
        and not any(part in name for part in _MAY_BE_ZERO)
    )
