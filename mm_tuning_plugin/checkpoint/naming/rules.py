"""What a naming convention is, and how a list of patterns renames tensors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from typing import Callable, NamedTuple, Union

from torch import Tensor

Tensors = dict[str, Tensor]
Rename = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensors]
Replacement = Union[str, Callable[['re.Match[str]'], str]]
Rules = tuple[tuple[str, Replacement], ...]
Compiled = tuple[tuple[Callable[[Replacement, str], str], Replacement], ...]


class Naming(NamedTuple):
    """One convention of naming a network's tensors.

    Attributes:
        title: What reports call it.
        rename: ``(tensors of the file, prefix stripped; the backbone's own tensors) -> tensors
            under the backbone's names``. Pure; names that it does not know pass through unchanged.
            It is also called with tensors on torch's 'meta' device, which have a shape and no
            values.
        norm_eps: Epsilon of every LayerNorm of the networks that such files come from, which the
            weights cannot carry; None if there is none or it always equals the backbone's.
        square: Whether positions of such files are of a square grid for sure: published networks
            are trained on square images, a file of mmseg's own may be of any.
        note: Other things that the weights cannot carry, for the report.
    """

    title: str
    rename: Rename
    norm_eps: float | None = None
    square: bool = True
    note: str = ''


def apply_rules(rules: Rules, name: str) -> str:
    """Applies (pattern, replacement) pairs one after the other."""
    return _apply(_compiled(rules), name)


def _apply(compiled: Compiled, name: str) -> str:
    for substitute, replacement in compiled:
        name = substitute(replacement, name)
    return name


# A file is read under every naming, hundreds of names by some hundred patterns, few of which match.
@lru_cache(maxsize=256)
def _compiled(rules: Rules) -> Compiled:
    """Return each pattern's ``sub``, and a replacement that is free if nothing matches."""
    return tuple((re.compile(pattern).sub, _expanding(found)) for pattern, found in rules)


def _expanding(replacement: Replacement) -> Replacement:
    if isinstance(replacement, str) and '\\' in replacement:
        template = replacement
        return lambda found: found.expand(template)
    return replacement


def rename_all(tensors: Mapping[str, Tensor], rename: Callable[[str], str]) -> Tensors:
    """Renames tensors so that none takes the place of another.

    Args:
        tensors: By name.
        rename: A name -> the new one.

    Returns:
        The same tensors. Where several would get one name, one that has it already keeps it, and
        the others keep their own: they are then left over, and seen.
    """
    wanted = {name: rename(name) for name in tensors}
    if all(name == new for name, new in wanted.items()):
        return dict(tensors)
    counts = Counter(wanted.values())
    kept = {name for name, new in wanted.items() if counts[new] > 1}
    while True:
        more = {name for name, new in wanted.items() if new in kept and name not in kept}
        if not more:
            break
        kept |= more
    return {name if name in kept else wanted[name]: tensor for name, tensor in tensors.items()}


def rename_by_rules(rules: Rules, tensors: Mapping[str, Tensor]) -> Tensors:
    """Renames tensors by a list of patterns, so that none takes the place of another."""
    return rename_all(tensors, partial(_apply, _compiled(rules)))


def last_index(names: Iterable[str], parent: str) -> int:
    """The highest index of a list of modules: 3 of ``stages.0`` to ``stages.3``; -1 without one."""
    found = map(re.compile(rf'{parent}\.(\d+)\.').match, names)
    return max((int(match.group(1)) for match in found if match), default=-1)
