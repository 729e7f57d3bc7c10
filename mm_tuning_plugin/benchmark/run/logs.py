"""What a step's process prints: how far it is, and its last words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ITERATION = re.compile(r'Iter\(train\)\s*\[\s*(\d+)/(\d+)\]')
SECONDS = re.compile(r'\btime: ([\d.]+)')
RESUMED = re.compile(r'resumed epoch: \d+, iter: (\d+)')
STAGE = re.compile(r'stage (\d) of 2')
STAGES = {'1': 'tuning', '2': 'fine-tuning'}
LONGEST_TAIL = 1 << 16  # bytes


class Reading(NamedTuple):
    """The reported progress of a step.

    Attributes:
        stage: Of a run of two stages; otherwise empty.
        iteration: Iterations done.
        of: Iterations altogether; 0 before the first line.
        seconds: An iteration takes; None if unknown.
        resumed: Iterations done before this attempt.
    """

    stage: str = ''
    iteration: int = 0
    of: int = 0
    seconds: float | None = None
    resumed: int = 0

    @property
    def fraction(self) -> float:
        """Done, from 0 to 1."""
        return self.iteration / self.of if self.of else 0.0

    @property
    def left(self) -> float | None:
        """Seconds to go; None if unknown."""
        return None if self.seconds is None else (self.of - self.iteration) * self.seconds


def read_line(line: str, reading: Reading) -> Reading:
    """Take in a line of mmengine's log."""
    stage = STAGE.search(line)
    if stage:
        return Reading(stage=STAGES.get(stage.group(1), ''))
    resumed = RESUMED.search(line)
    if resumed:
        return reading._replace(resumed=int(resumed.group(1)))
    done = ITERATION.search(line)
    if not done:
        return reading
    seconds = SECONDS.search(line)
    return reading._replace(
        iteration=int(done.group(1)),
        of=int(done.group(2)),
        seconds=float(seconds.group(1)) if seconds else reading.seconds,
    )


class LogReader:
    """Reads what is appended to a log, from its current end.

    Attributes:
        start: Its end, in bytes.
        reading: How far the step is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start = path.stat().st_size if path.is_file() else 0
        self.reading = Reading()
        self._read = self.start
        self._begun = b''  # a line whose end is not written yet

    def read(self) -> Reading:
        """Read what was written since the last call."""
        try:
            with self.path.open('rb') as file:
                file.seek(self._read)
                written = file.read()
        except FileNotFoundError:
            return self.reading
        self._read += len(written)
        *lines, self._begun = (self._begun + written).split(b'\n')
        for line in lines:
            self.reading = read_line(line.decode('utf-8', 'replace'), self.reading)
        return self.reading

    def tail(self, count: int = 10) -> list[str]:
        """The last lines of this attempt that are not blank."""
        if not self.path.is_file():
            return []
        with self.path.open('rb') as file:
            end = file.seek(0, 2)
            file.seek(max(self.start, end - LONGEST_TAIL))
            text = file.read().decode('utf-8', 'replace')
        return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]
