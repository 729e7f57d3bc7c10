"""A look into a checkpoint without any config: what it holds, and what it could start."""

from __future__ import annotations

import collections
import copy
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mm_tuning_plugin.checkpoint.io.read import TensorFile, inspect_file, read_file
from mm_tuning_plugin.checkpoint.known import KNOWN, Known
from mm_tuning_plugin.checkpoint.match.disambiguate import choose
from mm_tuning_plugin.checkpoint.match.droppable_parts import is_buffer
from mm_tuning_plugin.checkpoint.match.fit import Fit, best_fits
from mm_tuning_plugin.checkpoint.match.wrappers import plain_place
from mm_tuning_plugin.errors import UserError

MOST_GROUPS = 8
FITTED = 6  # architectures whose names are compared; of the others only shapes are
SHOWN = 3
SIMILAR = 0.5  # ratio of two sizes from which on a fit is tried
FITS, NEAR = 0.9, 0.5  # shares of an architecture that must be found to be called so
LARGE = 0.15  # of the file's parameters: smaller groups are parts of networks


class Match(NamedTuple):
    """How well a file fits one architecture.

    Attributes:
        name: In `KNOWN`.
        fit: Place and naming of the weights.
        places: Prefixes that fit equally well, including that of `fit`.
        filled: Share of the backbone's parameters that are found.
        shapes: Share for which the file has a tensor of the same shape, under whatever name.
        used: Share of the parameters under the prefix that find a place.
    """

    name: str
    fit: Fit
    places: tuple[str, ...]
    filled: float
    shapes: float
    used: float


class OnMeta(TorchFunctionMode):
    """Parameters on torch's 'meta' device: no memory, no time.

    Not ``torch.device('meta')``, under which mmseg's backbones fail: they read numbers out of
    ``torch.linspace``.
    """

    FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn)
    INITIALISERS = (nn.init.constant_, nn.init.kaiming_uniform_, nn.init.normal_, nn.init.uniform_)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in self.FACTORIES:
            kwargs['device'] = kwargs.get('device') or 'meta'
        if func in self.INITIALISERS and kwargs['tensor'].is_meta:
            return kwargs['tensor']
        return func(*args, **kwargs)


def inspect_checkpoint(path: str, allow_pickle: bool = False, prefix: str | None = None) -> str:
    """What a file holds.

    Args:
        path: The file.
        allow_pickle: Whether code in it may run.
        prefix: Only tensors under it are fitted; None: all.

    Returns:
        Several lines.

    Raises:
        UserError: It can't be read, holds no tensors, or none under `prefix`.
    """
    file = read_file(path, allow_pickle)
    below = f'{plain_place(prefix.rstrip("."))}.' if prefix else ''
    shapes = {n: t.to('meta') for n, t in file.tensors.items() if n.startswith(below)}
    if not shapes:
        raise UserError(
            f'{path}', f'no tensors under {below!r} found', 'expected a prefix of the file'
        )
    groups = group_sizes(shapes)
    matches = best_matches(shapes, groups)
    if matches and matches[0].filled >= NEAR:  # parts of a network are not separate groups
        group, places = matches[0].fit.prefix, matches[0].places
        groups = {
            name: size
            for name, size in groups.items()
            if name in places or not name.startswith(places)
        }
    else:
        group = max(longest(groups), key=lambda name: groups[name][1])
    lines = [
        *_overview(Path(path), file),
        *_list_groups(longest(groups)),
        *_list_tensors(group, shapes),
        *_list_suspects(file.tensors),
        *_list_matches(matches),
    ]
    return '\n'.join(lines)


def group_sizes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Prefix ('' or ending in a dot) -> (tensors, parameters) under it, for every prefix."""
    sizes: dict[str, tuple[int, int]] = {'': (0, 0)}
    for name, tensor in tensors.items():
        parts = name.split('.')
        for i in range(len(parts)):
            prefix = ''.join(f'{part}.' for part in parts[:i])
            number, size = sizes.get(prefix, (0, 0))
            sizes[prefix] = number + 1, size + (0 if is_buffer(name) else tensor.numel())
    return sizes


def longest(groups: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Of prefixes with the same tensors under them the longest.

    'state_dict.' is left out if all of it is under 'state_dict.module.'.
    """
    parents = {prefix: prefix[:-1].rpartition('.')[0] for prefix in groups if prefix}
    parents = {prefix: f'{parent}.' if parent else '' for prefix, parent in parents.items()}
    whole = {parent for prefix, parent in parents.items() if groups[parent] == groups[prefix]}
    return {prefix: size for prefix, size in groups.items() if prefix not in whole}


def build_on_meta(config: Mapping[str, Any]) -> nn.Module | None:
    """Build a backbone without values; None if its package is not installed."""
    import mmseg.models  # noqa: F401  registers them
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS

    with DefaultScope.overwrite_default_scope('mmseg'), OnMeta(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            return MODELS.build(copy.deepcopy(dict(config)))
        except (ImportError, KeyError):
            return None


def best_matches(
    shapes: Mapping[str, Tensor], groups: Mapping[str, tuple[int, int]]
) -> list[Match]:
    """The known architectures that a file fits, best first.

    First by size, then by the shapes that both have whatever their names, and only the nearest few
    as a loader would.

    Args:
        shapes: All tensors, on the 'meta' device.
        groups: Of `group_sizes`.
    """
    largest = max(size for _, size in groups.values())
    sizes = {prefix: size for prefix, (_, size) in groups.items() if size > LARGE * largest}
    found = collections.Counter(tuple(tensor.shape) for tensor in shapes.values())
    candidates = []
    for name, known in KNOWN.items():
        ratio = max(_ratio(known, size) for size in sizes.values())
        backbone = build_on_meta(known.config) if ratio > SIMILAR else None
        if backbone is not None:
            candidates.append((name, backbone, _common(backbone, found), ratio))
    candidates.sort(key=lambda candidate: -candidate[2] * candidate[3])
    matches = []
    for name, backbone, common, _ in candidates[:FITTED]:
        places = [prefix for prefix, size in sizes.items() if _ratio(KNOWN[name], size) > SIMILAR]
        fit, equals = _best_fit(backbone, shapes, places)
        total = sum(p.numel() for p in backbone.parameters())
        filled = fit.matched / total
        used = min(1.0, fit.matched / sizes[fit.prefix])  # positions may have been enlarged
        matches.append(Match(name, fit, equals, filled, common, used))
    matches = [match for match in matches if max(match.filled, match.shapes) >= NEAR]
    return sorted(matches, key=lambda m: (-m.filled * m.used, -m.shapes))


def _ratio(known: Known, size: int) -> float:
    """Ratio in [0, 1] of an architecture's size and a group's."""
    ratio = max(1, size) / (1e6 * known.millions)
    return min(ratio, 1 / ratio)


def _best_fit(
    backbone: nn.Module, shapes: Mapping[str, Tensor], places: list[str]
) -> tuple[Fit, tuple[str, ...]]:
    """Return the best fit under some prefixes, and all prefixes that fit equally well."""
    targets = backbone.state_dict()
    fits = [best_fits(backbone, targets, shapes, place)[0] for place in places]
    most = max(fit.matched for fit in fits)
    fits = [fit for fit in fits if fit.matched == most]
    fits = [fit for fit in fits if not any(_inside(other.prefix, fit.prefix) for other in fits)]
    equals = tuple(fit.prefix for fit in fits)
    return fits[choose(equals).taken], equals


def _inside(inner: str, outer: str) -> bool:
    return inner != outer and inner.startswith(outer)


def _common(backbone: nn.Module, found: Mapping[tuple[int, ...], int]) -> float:
    """Share of a backbone's parameters for which a file has a tensor of the same shape."""
    wanted = collections.Counter(tuple(p.shape) for p in backbone.parameters())
    total = common = 0
    for shape, number in wanted.items():
        size = torch.Size(shape).numel()
        total += number * size
        common += min(number, found.get(shape, 0)) * size
    return common / total


def _overview(path: Path, file: TensorFile) -> Iterator[str]:
    head = inspect_file(path)
    kind = file.format
    if kind == 'torch':
        kind = 'torch.save, zip' if head.startswith(b'PK') else 'torch.save, before torch 1.6'
    types = collections.Counter(str(t.dtype).split('.')[-1] for t in file.tensors.values())
    yield f'{path}: {kind}, {path.stat().st_size / 1e6:,.1f} MB'
    yield f'  containers: {", ".join(repr(name) for name in file.containers if name) or "none"}'
    yield '  types: ' + ', '.join(f'{number} {dtype}' for dtype, number in types.most_common())


def _list_groups(groups: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    rows = sorted(groups.items(), key=lambda row: (-row[1][1], row[0]))[:MOST_GROUPS]
    width = max(len(repr(prefix)) for prefix, _ in rows)
    yield f'  largest prefixes ({len(rows)} of {len(groups)}):'
    for prefix, (number, size) in rows:
        yield f'    {prefix!r:<{width}}  {number:>5} tensors  {size:>13,} parameters'


def _list_tensors(group: str, shapes: Mapping[str, Tensor]) -> Iterator[str]:
    names = [name for name in shapes if name.startswith(group)]
    yield f'  under {group!r}:'
    shown = names if len(names) <= 6 else [*names[:3], '', *names[-3:]]
    for name in shown:
        yield f'    {name[len(group) :]} {tuple(shapes[name].shape)}' if name else '    ...'


def _list_suspects(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    broken, zero = [], []
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
            broken.append(name)
        elif tensor.ndim > 1 and not tensor.any():
            zero.append(name)
    for title, names in (('with NaN or infinity', broken), ('all zero, biases aside', zero)):
        more = ', ...' if len(names) > 3 else ''
        yield f'  {title}: {len(names)}' + (f' ({", ".join(names[:3])}{more})' if names else '')


def _list_matches(matches: list[Match]) -> Iterator[str]:
    if not matches:
        yield f'  fits none of the {len(KNOWN)} known architectures'
        return
    fits = matches[0].filled >= FITS
    title = 'best fits' if fits else 'no full fit; nearest'
    yield f'  {title} among {len(KNOWN)} known architectures:'
    for match in matches[:SHOWN]:
        by_shape = '' if fits else f' ({match.shapes:.1%} by shapes alone)'
        yield (
            f'    {match.name}: {match.filled:.1%} of it filled{by_shape}, {match.used:.1%} of '
            f'{match.fit.prefix!r} used, {match.fit.naming.title}'
        )
    if fits:
        arguments = ', '.join(f'{k}={v!r}' for k, v in KNOWN[matches[0].name].config.items())
        yield f'  backbone=dict({arguments})'
