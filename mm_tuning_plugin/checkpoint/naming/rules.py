"""What a naming convention is, and how a list of patterns renames tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Callable, NamedTuple, Union

from torch import Tensor

Tensors = dict[str, Tensor]
Rename = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensors]
Replacement = Union[str, Callable[['re.Match[str]'], str]]
Rules = tuple[tuple[str, Replacement], ...]


class Naming(NamedTuple):
    """One convention of naming a network's tensors.

    Attributes:
        title: What reports call it.
        rename: ``(tensors of the file, prefix stripped; the backbone's own tensors) -> tensors
            under the backbone's names``. Pure; names that it does not know pass through unchanged.
            It is also called with tensors on torch's 'meta' device, which have a shape and no
            values.
        norm_eps: Epsilon of every LayerNorm of the networks that such files come from, which the
            weights cannot carry; None where there is none or it is the backbone's in any case.
        square: Whether positions of such files are of a square grid for sure: published networks
            are trained on square images, a file of mmseg's own may be of any.
        note: What else the weights cannot carry, for the report.
    """

    title: str
    rename: Rename
    norm_eps: float | None = None
    square: bool = True
    note: str = ''


def apply_rules(rules: Rules, name: str) -> str:
    """Applies (pattern, replacement) pairs one after the other."""
    for substitute, replacement in _compiled(rules):
        name = substitute(replacement, name)
    return name


# A file is read under every naming, hundreds of names by some hundred patterns, few of which match.
@lru_cache(maxsize=256)
def _compiled(rules: Rules) -> tuple[tuple[Callable[[Replacement, str], str], Replacement], ...]:
    """Each pattern's ``sub``, and a replacement that costs nothing where it is not found."""
    return tuple((re.compile(pattern).sub, _expanding(found)) for pattern, found in rules)


def _expanding(replacement: Replacement) -> Replacement:
    if isinstance(replacement, str) and '\\' in replacement:
        template = replacement
        return lambda found: found.expand(template)
    return replacement


def last_index(names: Iterable[str], parent: str) -> int:
    """The highest index of a list of modules: 3 of ``stages.0`` to ``stages.3``; -1 without one."""
    found = map(re.compile(rf'{parent}\.(\d+)\.').match, names)
    return max((int(match.group(1)) for match in found if match), default=-1)
