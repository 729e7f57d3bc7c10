"""The public door: any self-supervised file into any backbone, all of it or an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from mm_tuning_plugin.checkpoint.io.read import PathLike, TensorFile, read_file
from mm_tuning_plugin.checkpoint.io.store import copy_into, hash_state_dict, own_tensors
from mm_tuning_plugin.checkpoint.match.arguments import fitting_arguments
from mm_tuning_plugin.checkpoint.match.disambiguate import choose, same_values
from mm_tuning_plugin.checkpoint.match.droppable_parts import is_buffer, left_over
from mm_tuning_plugin.checkpoint.match.fit import Fit, best_fits, with_values
from mm_tuning_plugin.checkpoint.match.identity_init import neutral_values
from mm_tuning_plugin.checkpoint.match.nested import Encoder, encoders
from mm_tuning_plugin.checkpoint.match.stages import Stages, coverage, lacking_kinds
from mm_tuning_plugin.checkpoint.match.wrappers import plain_place
from mm_tuning_plugin.checkpoint.verdict.judge import judge_fit, judge_told, judge_values
from mm_tuning_plugin.checkpoint.verdict.judge_vit import judge_parts
from mm_tuning_plugin.checkpoint.verdict.leftovers import sort_leftovers
from mm_tuning_plugin.checkpoint.verdict.notes import all_notes
from mm_tuning_plugin.checkpoint.verdict.notes_cnn import is_added
from mm_tuning_plugin.checkpoint.verdict.report import Layout, LoadReport

from ..errors import UserError


def load_backbone_checkpoint(
    backbone: nn.Module,
    path: PathLike,
    *,
    min_matched: float = 0.9,
    allow_pickle: bool = False,
    prefix: str | None = None,
) -> LoadReport:
    """Loads a checkpoint of any of the known layouts into a backbone, or changes nothing.

    The weights are searched for in the whole file (see `fit` for the rule), translated to the
    backbone's names (`naming`), made to fit where only a size differs (`resize`) and judged stage
    by stage (`judge`). A stage counts as fitting if at least `min_matched` of the backbone's
    parameters in it are found, and at least `min_matched` of what the file holds inside it is used;
    blocks beyond the end of the backbone's lists are refused too, so that a deeper network never
    passes for a shallower one. Buffers are loaded but not counted.

    Args:
        backbone: Receives the weights, converted to its own dtype and device.
        path: The file; see `read_tensors` for the formats.
        min_matched: Share in [0, 1] that every stage must reach. 0 accepts whatever matches.
        allow_pickle: Whether code in the file may run. Only for files whose origin is trusted.
        prefix: Where in the file the weights are, container's keys included: 'state_dict.net_a'.
            None: searched for. Needed only where two networks of a file fit equally well and
            neither is known to be meant (`choice`).

    Returns:
        The report: loaded, missing, dropped.

    Raises:
        UserError: If the file can't be read or does not fit, or two places of it fit equally well;
            the backbone is then unchanged.
    """
    if not 0 <= min_matched <= 1:
        raise UserError('min_matched', f'{min_matched} found', 'expected a share in [0, 1]')
    path = Path(path)
    file = read_file(path, allow_pickle)
    encoder, fits = _search(backbone, path, file, prefix)
    network, targets = encoder.module, encoder.targets
    fit, others, rule, rivals = _take(network, targets, file.tensors, fits)
    filled = neutral_values(targets, fit.values)
    left = left_over(network, targets, fit.values, fit.unused)
    counts = _judge(path, file, encoder, fit, filled, left, min_matched)
    if rivals:
        raise UserError(
            str(path),
            f"'{rivals[0]}' and '{rivals[1]}' fit {type(network).__name__} equally well",
            'name one of them as mix_and_match.checkpoint_prefix (--prefix, prefix=)',
        )
    judge_values(path, fit.values)

    whole = own_tensors(backbone)
    before = hash_state_dict(whole)
    values = {name: value for name, value in fit.values.items() if not _is_table(name, value)}
    copy_into(targets, {**values, **filled})
    dropped, unexpected = sort_leftovers(file.tensors, fit, left)
    own = {name: encoder.name + full for name, full in encoder.names.items()}
    got = {own[name] for name in (*fit.values, *filled)}
    total = sum(t.numel() for name, t in whole.items() if not is_buffer(name))
    return LoadReport(
        path=str(path),
        layout=_layout(file, fit, others),
        rule=rule,
        arguments=fitting_arguments(network, fit),
        num_loaded=len(fit.values),
        share=sum(have for have, _ in counts.values()) / max(1, total),
        missing=tuple(name for name in whole if name not in got),
        dropped=tuple(file.names.get(name, name) for name in dropped),
        unexpected=tuple(file.names.get(name, name) for name in unexpected),
        resized={own[name]: change for name, change in fit.resized.items()},
        filled=tuple(own[name] for name in filled),
        notes=all_notes(backbone, encoder, fit, targets, filled, file),
        stages={encoder.name + stage: count for stage, count in counts.items()},
        hash_before=before,
        hash_after=hash_state_dict(whole),
    )


def _judge(
    path: Path,
    file: TensorFile,
    encoder: Encoder,
    fit: Fit,
    filled: Mapping[str, Tensor],
    left: Mapping[str, Tensor],
    min_matched: float,
) -> dict[str, tuple[int, int]]:
    """Raises where the fit is not good enough; else what each stage got, as `coverage` counts."""
    network, targets = encoder.module, encoder.targets
    stages = Stages(targets)
    given = {**fit.values, **filled}
    counts = coverage(stages, targets, given)
    judge_parts(network, path, fit, targets, left, min_matched)
    lacking = [name for name in lacking_kinds(targets, given) if not is_added(name)]
    judge_fit(network, path, file, fit, stages, counts, left, lacking, min_matched)
    judge_told(network, path, file, fit, min_matched)
    return counts


def _search(
    backbone: nn.Module, path: Path, file: TensorFile, prefix: str | None
) -> tuple[Encoder, list[Fit]]:
    """The fits that match most, under the given prefix if there is one, and to which network."""
    tensors = file.tensors
    if prefix:
        prefix = plain_place(prefix.rstrip('.')) + '.'
    try:
        found = [
            (encoder, best_fits(encoder.module, encoder.targets, tensors, prefix))
            for encoder in encoders(backbone)
        ]
    except KeyError:
        counts = Counter(
            '.'.join(parts[:i])
            for parts in (name.split('.') for name in tensors)
            for i in range(1, len(parts))
        )
        largest = ', '.join(f"'{name}.'" for name, _ in counts.most_common(3)) or 'none'
        raise UserError(
            str(path),
            f"nothing stands under the prefix '{prefix}'",
            f"expected one of the file's, such as {largest}",
        ) from None
    taken = found[0]
    for encoder, fits in found[1:]:
        matched, most = fits[0].matched, taken[1][0].matched
        if matched > most or (matched == most and _is_alone(taken, encoder)):
            taken = encoder, fits
    return taken


def _is_alone(whole: tuple[Encoder, list[Fit]], inner: Encoder) -> bool:
    """Whether a file that fills an encoder as well as the module around it has nothing else.

    Then it is the encoder's; otherwise it is a file of the whole, with other sizes.
    """
    encoder, fits = whole
    if not inner.name.startswith(encoder.name) or not fits[0].matched:
        return False
    inside = inner.name[len(encoder.name) :]
    return all(name.startswith(inside) for name in fits[0].mismatched)


def _take(
    backbone: nn.Module,
    targets: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    fits: list[Fit],
) -> tuple[Fit, tuple[str, ...], str, tuple[str, str] | None]:
    """The fit that is meant, with values; the other prefixes; the rule; two that no rule parts."""
    standing = fits if fits[0].matched else fits[:1]  # where nothing fits, nothing is to choose
    while True:
        choice = choose([fit.prefix for fit in standing])
        taken = with_values(standing[choice.taken], backbone, targets, tensors)
        rivals = choice.rivals and tuple(standing[i] for i in choice.rivals)
        if rivals:
            second = with_values(rivals[1], backbone, targets, tensors)
            if same_values(taken.values, second.values):  # one network, found twice
                standing = [fit for fit in standing if fit is not rivals[1]]
                continue
        others = tuple(fit.prefix for fit in fits if fit.prefix != taken.prefix)
        names = (rivals[0].prefix, rivals[1].prefix) if rivals else None
        return taken, others, choice.rule, names


def _layout(file: TensorFile, fit: Fit, others: tuple[str, ...]) -> Layout:
    """Splits the taken prefix into the container's keys and the rest."""
    inside = [c for c in file.containers if c == '' or f'{fit.prefix}.'.startswith(f'{c}.')]
    container = max(inside, key=len, default='')
    rest = fit.prefix[len(container) + 1 :] if container else fit.prefix
    return Layout(container, rest, fit.naming.title, others, file.format)


def _is_table(name: str, value: Tensor) -> bool:
    """Index tables are computed by the backbone for its own size and never overwritten."""
    return is_buffer(name) and not value.is_floating_point() and 'num_batches' not in name
