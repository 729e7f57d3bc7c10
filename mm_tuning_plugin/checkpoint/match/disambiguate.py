"""Choose between places of a file that fit equally well.

There are two rules: a *teacher* comes before its *student* (DINO and iBOT publish the teacher), and
a trained network (query, base, online encoder) before its moving average (key, momentum, target,
EMA). Places with equal values are not rivals. In other cases the user has to choose.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_SLOW = re.compile(r'(^|_)(k|key|ema|momentum|target|offline)(_|$)')


class Choice(NamedTuple):
    """The place that is taken, and why.

    Attributes:
        taken: Position of it among the candidates.
        rule: In words, one part for each rule that was needed; '' without a rival.
        rivals: Positions of two candidates between which no rule decides, or None.
    """

    taken: int
    rule: str
    rivals: tuple[int, int] | None


def choose(prefixes: Sequence[str]) -> Choice:
    """Chooses among places that fit equally well, by their names.

    Args:
        prefixes: Of at least one candidate, in the order in which they are preferred otherwise.

    Returns:
        The first candidate that each rule which applies leaves standing.
    """
    standing = list(range(len(prefixes)))
    rules = []
    for rule in (_teacher_over_student, _trained_over_slow):
        beaten: set[int] = set()
        for a, b in itertools.permutations(standing, 2):
            words = rule(prefixes[a], prefixes[b]) if beaten.isdisjoint((a, b)) else ''
            if words:
                beaten.add(b)
                rules.append(words)
        standing = [i for i in standing if i not in beaten]
    rivals = (standing[0], standing[1]) if len(standing) > 1 else None
    return Choice(standing[0], ', '.join(dict.fromkeys(rules)), rivals)


def same_values(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two networks are one: the same names with equal tensors."""
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def _teacher_over_student(a: str, b: str) -> str:
    return 'teacher over student' if 'teacher' in a and 'student' in b else ''


def _trained_over_slow(a: str, b: str) -> str:
    if _is_slow(b) and not _is_slow(a):
        return f'the trained network over its moving average ({_slow_part(b)})'
    return ''


def _is_slow(prefix: str) -> bool:
    return bool(_slow_part(prefix))


def _slow_part(prefix: str) -> str:
    return next((part for part in prefix.split('.') if _SLOW.search(part)), '')
