"""Progress of steps: bars on a terminal, or a line for each step that begins or ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from mm_tuning_plugin.benchmark.run.logs import Reading

if TYPE_CHECKING:
    from mm_tuning_plugin.benchmark.steps import Outcome, Step


class Work:
    """The finished share of all steps, by FLOPs, and the remaining time.

    A step with unknown FLOPs counts as the mean of the others. Work that was done in an earlier run
    does not count for the speed.

    Args:
        steps: All steps.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        known = [step.flops for step in steps if step.flops > 0]
        mean = sum(known) / len(known) if known else 1.0
        self._weights = {step.product: step.flops if step.flops > 0 else mean for step in steps}
        self._total = sum(self._weights.values())
        self._left = dict(self._weights)
        self._resumed: dict[Path, float] = {}  # work that running steps began with
        self._before = 0.0  # the same of settled ones
        self._begun: float | None = None

    def settle(self, product: Path, made: bool) -> None:
        """A step is settled.

        Args:
            product: Its product.
            made: Whether it was made here and now.
        """
        resumed = self._resumed.pop(product, 0.0)
        self._before += resumed if made else self._weights[product]
        self._left[product] = 0.0

    def update(self, running: Sequence[tuple[Step, Reading]]) -> None:
        """How far the running steps are."""
        if self._begun is None and running:
            self._begun = time.monotonic()
        for step, reading in running:
            if reading.of:
                weight = self._weights[step.product]
                self._left[step.product] = weight * (1 - reading.fraction)
                self._resumed[step.product] = weight * reading.resumed / reading.of

    @property
    def done(self) -> float:
        """Share of the whole that is done, 0 to 1."""
        return 1 - sum(self._left.values()) / self._total if self._total else 1.0

    @property
    def left(self) -> float | None:
        """Seconds to go, at the mean speed since the first step began; None if unknown."""
        left = sum(self._left.values())
        made = self._total - left - self._before - sum(self._resumed.values())
        if self._begun is None or made <= 0:
            return None
        return (time.monotonic() - self._begun) * left / made


class Display:
    """Lines, one for each step that begins and each that is settled.

    Args:
        steps: All steps.
        stream: Of the lines.
    """

    def __init__(self, steps: Sequence[Step], stream: TextIO | None = None) -> None:
        self.work = Work(steps)
        self.count, self.settled_count = len(steps), 0
        self.stream = stream or sys.stdout
        self._ran: set[Path] = set()

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to close."""

    def note(self, text: str) -> None:
        """Show a message."""
        print(text, file=self.stream, flush=True)

    def finished_before(self, steps: Sequence[Step]) -> None:
        """Count steps that were finished before anything was run."""
        for step in steps:
            self.work.settle(step.product, made=False)
        self.settled_count += len(steps)
        if steps:
            self.note(f'{len(steps)} of {self.count} steps are finished already')

    def begun(self, step: Step) -> None:
        """A step's process has started."""
        self._ran.add(step.product)
        self.note(f'begun   {step.name}')

    def update(self, running: Sequence[tuple[Step, Reading]]) -> None:
        """How far the running steps are."""
        self.work.update(running)

    def settled(self, step: Step, outcome: Outcome) -> None:
        """A step is done, or has failed."""
        ran = step.product in self._ran
        self.settled_count += 1
        self.work.settle(step.product, ran and outcome.status == 'done')
        so_far = f'{self.settled_count} of {self.count}'
        if outcome.status == 'done':
            how = f'in {outcome.seconds:.0f} s' if ran else 'elsewhere'
            self.note(f'done    {step.name} {how}  ({so_far}, ETA {duration(self.work.left)})')
        else:
            self.note(f'failed  {failure(step, outcome)}')

    def failures(self, failed: Sequence[tuple[Step, Outcome]]) -> None:
        """Repeat at the end what failed."""
        own = [(step, outcome) for step, outcome in failed if outcome.log is not None]
        if failed:
            self.note(f'\n{len(failed)} of {self.count} steps failed:')
        for step, outcome in own:
            self.note(f'failed  {failure(step, outcome)}')
        for step, outcome in failed:
            if (step, outcome) not in own:
                self.note(f'failed  {step.name} {outcome.error}')


class Bars(Display):
    """Bars: one for the whole, and one for each running step, below the notes."""

    def __init__(self, steps: Sequence[Step], console: Any = None) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        super().__init__(steps)
        plain = {'markup': False}  # names may hold brackets
        self._progress = Progress(
            TextColumn('{task.description}', **plain),
            BarColumn(),
            TextColumn('{task.fields[count]}', **plain),
            TextColumn('{task.fields[speed]}', **plain),
            TextColumn('ETA {task.fields[eta]}', **plain),
            console=console,
        )
        self._whole = self._progress.add_task(
            'all steps', total=1.0, count=f'0 of {self.count} steps', speed='', eta='-'
        )
        self._tasks: dict[Path, Any] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """Show a message above the bars."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begun(self, step: Step) -> None:
        """A step gets a bar."""
        self._ran.add(step.product)
        self._tasks[step.product] = self._progress.add_task(
            describe(step, Reading()), total=1.0, count='starting', speed='', eta='-'
        )

    def update(self, running: Sequence[tuple[Step, Reading]]) -> None:
        """Move the bars."""
        super().update(running)
        for step, reading in running:
            if reading.of:
                self._progress.update(
                    self._tasks[step.product],
                    description=describe(step, reading),
                    completed=reading.fraction,
                    count=f'{reading.iteration}/{reading.of}',
                    speed=f'{1 / reading.seconds:.1f} it/s' if reading.seconds else '',
                    eta=duration(reading.left),
                )
        self._update_whole()

    def settled(self, step: Step, outcome: Outcome) -> None:
        """Take a step's bar away."""
        if step.product in self._tasks:
            self._progress.remove_task(self._tasks.pop(step.product))
        super().settled(step, outcome)
        self._update_whole()

    def _update_whole(self) -> None:
        self._progress.update(
            self._whole,
            completed=self.work.done,
            count=f'{self.settled_count} of {self.count} steps',
            eta=duration(self.work.left),
        )


def make_display(steps: Sequence[Step]) -> Display:
    """Return bars on a terminal, or lines."""
    return Bars(steps) if sys.stdout.isatty() else Display(steps)


def describe(step: Step, reading: Reading) -> str:
    """A running step in a few words: its name, and what it is at."""
    return f'{step.name} ({reading.stage or step.kind.replace("_", "-")})'


def failure(step: Step, outcome: Outcome) -> str:
    """Describe a failed step: the reason, the end of its log, the path of the log."""
    lines = [f'{step.name} {outcome.error}', *(f'    | {line}' for line in outcome.tail)]
    return '\n'.join(lines + ([f'    {outcome.log}'] if outcome.log else []))


def duration(seconds: float | None) -> str:
    """'1:02:03'; '-' if unknown."""
    return '-' if seconds is None else str(timedelta(seconds=round(seconds)))
