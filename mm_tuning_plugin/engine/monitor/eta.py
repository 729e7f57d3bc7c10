"""How long the rest of a run will take."""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import NamedTuple

# Iterations whose mean is the speed now: long enough for those that load, save or log.
WINDOW = 100
# The first of a process starts workers and allocates: it says nothing of the others.
UNCOUNTED = 1


class TimeLeft(NamedTuple):
    """What is known of the time to go.

    Attributes:
        seconds: Of all whose speed is known; None if that is nothing.
        unknown: What comes on top, in words; '' if nothing does.
    """

    seconds: float | None
    unknown: str = ''

    def __str__(self) -> str:
        return ' + '.join(part for part in (self._known(), self.unknown) if part) or '-'

    def shortly(self) -> str:
        """The same, with a plus for all that is not known."""
        return (self._known() + ('+' if self.unknown else '')) or '-'

    def _known(self) -> str:
        return '' if self.seconds is None else str(timedelta(seconds=round(self.seconds)))


class Pace:
    """Speed of one stage, iterations apart from validations.

    Every time is given by the caller, seconds of any clock that only rises.
    """

    def __init__(self) -> None:
        self.iterations: deque[float] = deque(maxlen=WINDOW)
        self.validations: list[float] = []
        self._uncounted = UNCOUNTED
        self._last: float | None = None  # end of the previous iteration, validations cut out
        self._validation: float | None = None

    def begin(self, now: float) -> None:
        """Training begins."""
        self._last = now

    def iterated(self, now: float) -> None:
        """An iteration ends."""
        if self._last is not None:
            if self._uncounted:
                self._uncounted -= 1
            else:
                self.iterations.append(now - self._last)
        self._last = now

    def begin_validation(self, now: float) -> None:
        """A validation begins."""
        self._validation = now

    def validated(self, now: float) -> None:
        """It ends; its time is no iteration's."""
        if self._validation is None:
            return
        took = now - self._validation
        self.validations.append(took)
        self._validation = None
        if self._last is not None:
            self._last += took

    def left(self, iterations: int, validations: int) -> TimeLeft:
        """The time that so much more of this stage takes."""
        seconds, unknown = 0.0, []
        if iterations and not self.iterations:
            return TimeLeft(None, f'{iterations} iterations')
        if iterations:
            seconds += iterations * sum(self.iterations) / len(self.iterations)
        if validations and self.validations:
            seconds += validations * sum(self.validations) / len(self.validations)
        elif validations:
            unknown.append('validation')
        return TimeLeft(seconds, ' + '.join(unknown))


def validations_left(done: int, total: int, interval: int, begin: int) -> int:
    """How many validations mmengine's training loops have still to come.

    Args:
        done: Iterations (or epochs) done.
        total: All of them; a validation is due after the last.
        interval: Between validations.
        begin: None before so many are done.
    """
    regular = range(interval * (done // interval + 1), total, interval)
    return sum(i >= begin for i in regular) + int(done < total and total >= begin)
