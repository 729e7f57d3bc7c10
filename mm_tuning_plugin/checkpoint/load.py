"""The public door: any self-supervised file into any backbone, all of it or an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UserError
from .explain import explain
from .fit import Fit, best_fits
from .neutral import neutral_values
from .read import PathLike, TensorFile, read_file
from .report import Layout, LoadReport
from .stages import Stages, coverage, is_buffer, leftover
from .store import copy_into, hash_state_dict


def load_backbone_checkpoint(
    backbone: nn.Module,
    path: PathLike,
    *,
    min_matched: float = 0.9,
    allow_pickle: bool = False,
) -> LoadReport:
    """Loads a checkpoint of any of the known layouts into a backbone, or changes nothing.

    The weights are searched for in the whole file (see `fit` for the rule), translated to the
    backbone's names (`naming`), made to fit where only a size differs (`resize`) and judged stage
    by stage. A stage counts as fitting if at least `min_matched` of the backbone's parameters in
    it are found, and at least `min_matched` of what the file holds inside it is used; blocks beyond
    the end of the backbone's lists are refused too, so that a deeper network never passes for a
    shallower one. Buffers are loaded but not counted.

    Args:
        backbone: Receives the weights, converted to its own dtype and device.
        path: The file; see `read_tensors` for the formats.
        min_matched: Share in [0, 1] that every stage must reach. 0 accepts whatever matches.
        allow_pickle: Whether code in the file may run. Only for files whose origin is trusted.

    Returns:
        What was loaded, missing, dropped.

    Raises:
        UserError: If the file can't be read or does not fit; the backbone is then as it was.
    """
    if not 0 <= min_matched <= 1:
        raise UserError(f'min_matched must be a share in [0, 1], got {min_matched}')
    file = read_file(path, allow_pickle)
    targets = {name: t for name, t in backbone.state_dict().items() if isinstance(t, Tensor)}
    fits = best_fits(backbone, targets, file.tensors)
    fit = fits[0]
    filled = neutral_values(targets, fit.values)
    stages = Stages(targets)
    counts = coverage(stages, targets, {**fit.values, **filled})
    _judge(backbone, Path(path), file, fit, stages, counts, min_matched)

    before = hash_state_dict(targets)
    values = {name: value for name, value in fit.values.items() if not _is_table(name, value)}
    copy_into(targets, {**values, **filled})
    dropped, unexpected = _not_loaded(file, fit, stages)
    return LoadReport(
        path=str(path),
        layout=_layout(file, fits),
        num_loaded=len(fit.values),
        share=sum(have for have, _ in counts.values()) / max(1, _total(counts)),
        missing=tuple(name for name in targets if name not in fit.values and name not in filled),
        dropped=dropped,
        unexpected=unexpected,
        resized=fit.resized,
        filled=tuple(filled),
        notes=_notes(backbone, fit, targets),
        stages=counts,
        hash_before=before,
        hash_after=hash_state_dict(targets),
    )


def _judge(
    backbone: nn.Module,
    path: Path,
    file: TensorFile,
    fit: Fit,
    stages: Stages,
    counts: Mapping[str, tuple[int, int]],
    min_matched: float,
) -> None:
    """Raises where a stage is not covered, not used, or holds numbers that are none."""
    name = type(backbone).__name__
    hint = explain(backbone, fit, file.tensors)
    example = next((key for key, _ in backbone.named_parameters()), 'none')
    if not fit.matched:
        raise UserError(
            f'{path}: none of its {len(file.tensors)} tensors fits {name}; '
            f'expected names like {example}{hint}'
        )
    worst = min(counts, key=lambda stage: counts[stage][0] / counts[stage][1])
    loaded, total = counts[worst]
    if loaded / total < min_matched:
        raise UserError(
            f"{path}: does not fit {name}: stage '{worst}' finds {loaded:,} of {total:,} "
            f'parameters ({loaded / total:.0%}); expected at least {min_matched:.0%}{hint}'
        )
    surplus = stages.surplus(fit.unused) if min_matched else None
    if surplus:
        raise UserError(
            f"{path}: does not fit {name}: the file goes on with '{surplus}', which the backbone "
            f'does not have; expected a file of the same depth{hint}'
        )
    for stage, spare in leftover(stages, fit.unused).items():
        used = counts[stage][0] if stage in counts else 0
        if used < min_matched * (used + spare):
            raise UserError(
                f"{path}: does not fit {name}: of stage '{stage}' {spare:,} of {used + spare:,} "
                f'parameters in the file have no place in the backbone; expected at most '
                f'{1 - min_matched:.0%}{hint}'
            )
    broken = next((key for key, value in fit.values.items() if not _is_finite(value)), None)
    if broken:
        raise UserError(f'{path}: {broken} holds NaN or infinity; expected finite weights')


def _layout(file: TensorFile, fits: list[Fit]) -> Layout:
    """Splits the taken prefix into the container's keys and the rest."""
    prefix = fits[0].prefix
    inside = [c for c in file.containers if c == '' or f'{prefix}.'.startswith(f'{c}.')]
    container = max(inside, key=len, default='')
    rest = prefix[len(container) + 1 :] if container else prefix
    return Layout(container, rest, fits[0].naming.title, tuple(fit.prefix for fit in fits[1:]))


def _not_loaded(
    file: TensorFile, fit: Fit, stages: Stages
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(dropped, unexpected) under the file's own names: outside the stages, and inside them."""
    own = {id(tensor): name for name, tensor in file.tensors.items()}
    dropped: list[str] = []
    unexpected: list[str] = []
    for name, tensor in fit.unused.items():
        inside = stages.of_foreign(name) is not None
        (unexpected if inside else dropped).append(own.get(id(tensor), fit.prefix + name))
    dropped += [name for name in file.tensors if not name.startswith(fit.prefix)]
    return tuple(dropped), tuple(unexpected)


def _notes(backbone: nn.Module, fit: Fit, targets: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What the weights cannot carry."""
    notes = []
    epsilon = fit.naming.norm_eps
    others = {m.eps for m in backbone.modules() if isinstance(m, nn.LayerNorm)} - {epsilon}
    if epsilon is not None and others:
        notes.append(
            f'LayerNorm eps is {max(others):g} in the backbone and {epsilon:g} where such files '
            f"come from: norm_cfg=dict(type='LN', eps={epsilon:g}) makes them equal"
        )
    running = [name for name in targets if name.endswith(('.running_mean', '.running_var'))]
    lost = [name for name in running if name not in fit.values]
    if lost:
        notes.append(
            f'{len(lost)} of {len(running)} running statistics are not in the file and keep the '
            f'values that they have, e.g. {lost[0]}: until trained, evaluation mode is off'
        )
    return tuple(notes)


def _is_table(name: str, value: Tensor) -> bool:
    """Index tables are computed by the backbone for its own size and never overwritten."""
    return is_buffer(name) and not value.is_floating_point() and 'num_batches' not in name


def _is_finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())


def _total(counts: Mapping[str, tuple[int, int]]) -> int:
    return sum(total for _, total in counts.values())
