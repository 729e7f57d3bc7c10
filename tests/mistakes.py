"""Checks of a user's mistakes by their fields, so that a reworded sentence breaks no test."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from mm_tuning_plugin.errors import UserError

Parts = str | re.Pattern | Sequence[str]


@contextmanager
def mistake(
    where: str | re.Pattern | None = None, problem: Parts = (), remedy: Parts = ()
) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Expect a `UserError` with these fields; see `check_mistake`."""
    with pytest.raises(UserError) as caught:
        yield caught
    check_mistake(caught.value, where, problem, remedy)


def check_mistake(
    error: UserError | str,
    where: str | re.Pattern | None = None,
    problem: Parts = (),
    remedy: Parts = (),
) -> None:
    """Check the fields of an error, or of the line that a command printed.

    Args:
        error: The error, or its line.
        where: The whole field, or a pattern that is found in it.
        problem: Facts (names, values, numbers) that the field holds, or a pattern found in it.
        remedy: The same of this field.
    """
    error = UserError(error) if isinstance(error, str) else error
    assert '\n' not in str(error), f'more than one line: {error}'
    assert error.problem, f'no problem is named: {error}'
    assert error.remedy, f'no remedy is named: {error}'
    if isinstance(where, re.Pattern):
        assert where.search(error.where), (where.pattern, error.where)
    elif where is not None:
        assert error.where == where
    for field, expected in (('problem', problem), ('remedy', remedy)):
        found = getattr(error, field)
        if isinstance(expected, re.Pattern):
            assert expected.search(found), (field, expected.pattern, found)
            continue
        for part in [expected] if isinstance(expected, str) else expected:
            assert part in found, (field, part, found)
