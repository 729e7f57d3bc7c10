"""Estimate of the remaining time of a run."""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import NamedTuple

# The speed is the mean of this many iterations: enough to include those that load, save or log.
WINDOW = 100
# Iterations left out at the start of a process: the first starts workers and allocates memory.
UNCOUNTED = 1


class TimeLeft(NamedTuple):
    """The known part of the remaining time.

    Attributes:
        seconds: Of the parts with a known speed; None if there are none.
        unknown: The other parts, in words; '' if there are none.
    """

    seconds: float | None
    unknown: str = ''

    def __str__(self) -> str:
        return ' + '.join(part for part in (self._known(), self.unknown) if part) or '-'

    def shortly(self) -> str:
        """Short form: a plus means that parts are unknown."""
        return (self._known() + ('+' if self.unknown else '')) or '-'

    def _known(self) -> str:
        return '' if self.seconds is None else str(timedelta(seconds=round(self.seconds)))


class Pace:
    """Speed of one stage, of iterations and validations apart.

    The caller passes all times, in seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self.iterations: deque[float] = deque(maxlen=WINDOW)
        self.validations: list[float] = []
        self._uncounted = UNCOUNTED
        self._last: float | None = None  # end of the previous iteration, validations cut out
        self._validation: float | None = None

    def begin(self, now: float) -> None:
        """Start training."""
        self._last = now

    def iterated(self, now: float) -> None:
        """End an iteration."""
        if self._last is not None:
            if self._uncounted:
                self._uncounted -= 1
            else:
                self.iterations.append(now - self._last)
        self._last = now

    def begin_validation(self, now: float) -> None:
        """Start a validation."""
        self._validation = now

    def validated(self, now: float) -> None:
        """End the validation; its time does not count as an iteration's."""
        if self._validation is None:
            return
        took = now - self._validation
        self.validations.append(took)
        self._validation = None
        if self._last is not None:
            self._last += took

    def left(self, iterations: int, validations: int) -> TimeLeft:
        """Estimate the time of further iterations and validations of this stage."""
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
    """Number of validations that mmengine's training loop has still to run.

    Args:
        done: Iterations (or epochs) done.
        total: Total number; a validation runs after the last.
        interval: Between validations.
        begin: Iterations before the first validation.
    """
    regular = range(interval * (done // interval + 1), total, interval)
    return sum(i >= begin for i in regular) + int(done < total and total >= begin)
