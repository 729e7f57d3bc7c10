"""Finds which tensors of a file are the backbone's: container, prefix and naming in one search.

Every dotted prefix that occurs in the file is tried with every convention of `namings_for`; the
pair under which the largest share of the backbone's parameters finds a tensor of its own shape
wins. The search sees names and shapes only (tensors on torch's 'meta' device), so it neither reads
nor copies weights. Of one prefix the convention wins that leaves fewer parameters of the file
unused, then the order of the table; between prefixes that fit equally well, `choice` decides.

Where less than half of the backbone is found, the fit with most *names* in common is returned, so
that the error speaks of the right part of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from mm_tuning_plugin.checkpoint.match.droppable_parts import is_buffer
from mm_tuning_plugin.checkpoint.match.resize import Tokens, backbone_grid, resized
from mm_tuning_plugin.checkpoint.match.stages import Stages
from mm_tuning_plugin.checkpoint.naming import Naming, Tensors, namings_for


class Fit(NamedTuple):
    """One way to read a file as a backbone.

    Attributes:
        prefix: Before the names, with containers: 'state_dict.module.encoder_q.'.
        naming: The convention its names were translated from.
        values: Backbone's name -> tensor of the backbone's shape.
        resized: Names of `values` that were resized -> 'old shape -> new shape'.
        unused: Renamed tensors of the file under the prefix that found no place.
        mismatched: Names that both have, in shapes that don't fit -> (found, expected).
        matched: Parameters in `values`.
    """

    prefix: str
    naming: Naming
    values: dict[str, Tensor]
    resized: dict[str, str]
    unused: dict[str, Tensor]
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    matched: int


def best_fits(
    backbone: nn.Module,
    targets: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    prefix: str | None = None,
) -> list[Fit]:
    """The best fit of a file to a backbone, then the others that match as many parameters.

    Args:
        backbone: Read for its grid of patches only.
        targets: The backbone's own tensors by name.
        tensors: All tensors of the file by dotted name.
        prefix: The only prefix to try, containers included; None: all of them.

    Returns:
        At least one `Fit`; of one prefix only the best convention. Their `values` are on the
        'meta' device: `with_values` fills one in.

    Raises:
        KeyError: No tensor of the file is under `prefix`.
    """
    shapes = {name: tensor.to('meta') for name, tensor in tensors.items()}
    groups = _groups(shapes) if prefix is None else {prefix: _group(shapes, prefix)}
    sizes = {
        prefix: sum(tensor.numel() for name, tensor in group.items() if not is_buffer(name))
        for prefix, group in groups.items()
    }
    stages = Stages(targets)
    grid = backbone_grid(backbone)
    namings = namings_for(backbone)
    fits: list[Fit] = []
    best = 0
    for place in sorted(groups, key=lambda place: (-sizes[place], place)):
        if fits and 9 * sizes[place] < best:  # a grey stem of one channel may grow to three
            break
        readings = _readings(namings, groups[place], targets)
        choices = [_fit(place, *reading, targets, stages, grid) for reading in readings]
        fits.append(min(choices, key=_badness))
        best = max(best, fits[-1].matched)
    total = sum(target.numel() for name, target in targets.items() if not is_buffer(name))
    if 2 * best < total:  # nothing fits: take the one with most names in common, to explain why
        fits.sort(key=lambda fit: (-len(fit.values) - len(fit.mismatched), _order(fit)))
    else:
        fits.sort(key=_order)
    return [fit for fit in fits if fit.matched == fits[0].matched]


def with_values(
    fit: Fit, backbone: nn.Module, targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> Fit:
    """A fit that the search found, with the file's own values in it."""
    named = fit.naming.rename(_group(tensors, fit.prefix), targets)
    return _fit(fit.prefix, fit.naming, named, targets, Stages(targets), backbone_grid(backbone))


def _readings(
    namings: Iterable[Naming], group: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> Iterator[tuple[Naming, Tensors]]:
    """Each convention with what it makes of a group, but for those that repeat an earlier one.

    Most conventions do not change most files. The first of several equal ones is taken.
    """
    seen: list[tuple[bool, Tensors]] = []
    for naming in namings:
        named = naming.rename(group, targets)
        if any(naming.square == square and _same(named, other) for square, other in seen):
            continue
        seen.append((naming.square, named))
        yield naming, named


def _same(named: Tensors, other: Tensors) -> bool:
    return named.keys() == other.keys() and all(other[name] is named[name] for name in named)


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under one prefix, which is stripped."""
    group = {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
    if not group:
        raise KeyError(prefix)
    return group


def _groups(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Prefix ('' or ending in a dot) -> the tensors under it, the prefix stripped."""
    groups: dict[str, dict[str, Tensor]] = {'': dict(tensors)}
    for name, tensor in tensors.items():
        parts = name.split('.')
        for i in range(1, len(parts)):
            prefix = '.'.join(parts[:i]) + '.'
            groups.setdefault(prefix, {})[name[len(prefix) :]] = tensor
    return groups


def _order(fit: Fit) -> tuple[int, int, str]:
    return -fit.matched, fit.prefix.count('.'), fit.prefix


def _badness(fit: Fit) -> tuple[int, ...]:
    """The smaller, the better: of namings that match as many parameters, statistics count too."""
    return -fit.matched, _unused_size(fit), -len(fit.values), -len(fit.mismatched)


def _unused_size(fit: Fit) -> int:
    return sum(tensor.numel() for name, tensor in fit.unused.items() if not is_buffer(name))


def _fit(
    prefix: str,
    naming: Naming,
    named: Tensors,
    targets: Mapping[str, Tensor],
    stages: Stages,
    grid: tuple[int, int] | None,
) -> Fit:
    """Reads one group of tensors, renamed, as the backbone's."""
    fit = Fit(prefix, naming, {}, {}, {}, {}, 0)
    matched = 0
    tokens = Tokens(_extra_tokens(named), _extra_tokens(targets), grid, naming.square)
    for name, value in named.items():
        target = targets.get(name)
        if target is None:
            fit.unused[name] = value
            continue
        fitting = resized(name, value, target, stages.is_stem(name), tokens)
        if fitting is None:
            fit.mismatched[name] = (tuple(value.shape), tuple(target.shape))
            fit.unused[name] = value
            continue
        if fitting.shape != value.shape:
            fit.resized[name] = f'{tuple(value.shape)} -> {tuple(target.shape)}'
        fit.values[name] = fitting
        matched += 0 if is_buffer(name) else target.numel()
    return fit._replace(matched=matched)


def _extra_tokens(names: Mapping[str, Tensor]) -> int:
    return ('cls_token' in names) + ('dist_token' in names)
