"""Run steps in dependency order, several at once; finished steps are not run again.

A step is finished if its product exists, whoever made it. Each step runs in its own process, which
resumes an unfinished run from its folder. So a pool that was stopped or killed continues when it is
started again, and two pools over the same folders share the work.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from mm_tuning_plugin.benchmark.run.executors import Executor, Handle
from mm_tuning_plugin.benchmark.run.locks import StepLock, holder
from mm_tuning_plugin.benchmark.run.logs import LogReader
from mm_tuning_plugin.benchmark.run.progress import Display, make_display
from mm_tuning_plugin.benchmark.steps import Outcome, Step
from mm_tuning_plugin.benchmark.steps import prepare as prepare_step
from mm_tuning_plugin.engine.resume.signals import Interruption
from mm_tuning_plugin.errors import UserError

LOG = 'log.txt'
GRACE = 60.0  # seconds that a stopped step has to write its checkpoint
FAILED = 1  # exit status of a benchmark in which a step failed; a mistake in its plan is 2


class Running(NamedTuple):
    """A step whose process is running."""

    step: Step
    handle: Handle
    lock: StepLock
    log: LogReader
    begun: float


def step_command(step: Step) -> list[str]:
    """The command that runs a step."""
    return [sys.executable, '-m', 'mm_tuning_plugin.cli.step', str(step.folder)]


def run_steps(
    steps: Sequence[Step],
    executor: Executor,
    on_done: Callable[[Step, Outcome], None] | None = None,
    *,
    display: Display | None = None,
    command_of: Callable[[Step], Sequence[str]] = step_command,
    prepare: Callable[[Step], None] = prepare_step,
    go_on: str = 'the same command goes on from there',
) -> dict[Path, Outcome]:
    """Run steps in dependency order.

    Steps start in the given order, as far as their needs and free slots allow. A step that another
    process is running is left to it. A failure is shown at once and again at the end. Steps that
    depend on a failed one fail without being run; all others continue.

    Args:
        steps: Steps. Of several with the same product only the first is run.
        executor: Where they run.
        on_done: Called with each step and its outcome when it is settled.
        display: Shows progress; None: bars on a terminal, lines elsewhere.
        command_of: The command that runs a step.
        prepare: Called before a step is run, while its folder is locked.
        go_on: How to continue, for the message of an interruption.

    Returns:
        Product of a step -> outcome; see `exit_status`.

    Raises:
        UserError: A step needs a file that does not exist and that no step makes.
        graphlib.CycleError: Steps depend on each other in a circle.
        SystemExit: After SIGINT or SIGTERM. Running steps were told to end and have written a
            checkpoint; those that took more than `GRACE` seconds were killed.
    """
    pool = Pool(steps, executor, on_done, command_of, prepare)
    pool.display = display or make_display(list(pool.steps.values()))
    with Interruption() as interruption, pool.display:
        try:
            pool.settle_finished()
            while pool.unfinished() and not interruption.signum:
                pool.turn()
        finally:
            pool.stop()
        pool.display.failures(pool.failures())
    if interruption.signum and pool.unfinished():
        done = sum(outcome.status == 'done' for outcome in pool.outcomes.values())
        interruption.end(f'{done} of {len(pool.steps)} steps are finished; {go_on}')
    return pool.outcomes


def exit_status(outcomes: Mapping[Path, Outcome]) -> int:
    """The exit status of a command that ran steps: 0, or `FAILED`."""
    return FAILED if any(outcome.status != 'done' for outcome in outcomes.values()) else 0


class Pool:
    """The state of `run_steps`: each step is waiting, running, or settled."""

    display: Display

    def __init__(
        self,
        steps: Sequence[Step],
        executor: Executor,
        on_done: Callable[[Step, Outcome], None] | None,
        command_of: Callable[[Step], Sequence[str]],
        prepare: Callable[[Step], None],
    ) -> None:
        self.steps: dict[Path, Step] = {}
        for step in steps:
            self.steps.setdefault(step.product, step)
        _check_needs(self.steps)
        self.executor = executor
        self.on_done, self.command_of, self.prepare = on_done, command_of, prepare
        self.waiting = dict(self.steps)
        self.running: dict[Path, Running] = {}
        self.outcomes: dict[Path, Outcome] = {}
        self._elsewhere: set[Path] = set()

    def unfinished(self) -> bool:
        """Whether a step is not settled."""
        return bool(self.waiting or self.running)

    def failures(self) -> list[tuple[Step, Outcome]]:
        """The steps that failed, in the order in which they did."""
        return [
            (self.steps[product], outcome)
            for product, outcome in self.outcomes.items()
            if outcome.status != 'done'
        ]

    def settle_finished(self) -> None:
        """Settle the steps whose products exist."""
        finished = [step for step in self.waiting.values() if step.product.exists()]
        self.display.finished_before(finished)
        for step in finished:
            self._note(step, Outcome('done'))

    def turn(self) -> None:
        """Settle steps that have ended, start those that can start, then wait for a moment."""
        self._collect()
        self._start_ready()
        running = [(run.step, run.log.read()) for run in self.running.values()]
        self.display.update(running)
        if self.unfinished():
            time.sleep(self.executor.interval)

    def stop(self) -> None:
        """End running steps and settle those that are done; kill others after `GRACE` seconds."""
        if not self.running:
            return
        self.display.note(f'stopping: {len(self.running)} running steps write their checkpoints')
        try:
            for run in self.running.values():
                run.handle.terminate()
            end = time.monotonic() + GRACE
            while self.running and time.monotonic() < end:
                self._collect(stopping=True)
                time.sleep(min(self.executor.interval, 1.0))
        finally:
            for run in self.running.values():
                run.handle.kill()
                run.lock.release()

    def _start_ready(self) -> None:
        for step in list(self.waiting.values()):
            if not self.executor.free():
                break
            if step.product in self.waiting and self._made(step):
                self._start(step)

    def _made(self, step: Step) -> bool:
        """Whether all needs of a step exist; files that no step makes were checked before."""
        return all(need not in self.steps or need in self.outcomes for need in step.needs)

    def _start(self, step: Step) -> None:
        try:
            lock = StepLock.acquire(step.folder)
            if lock is None:
                self._note_elsewhere(step)
                return
            if step.product.exists():  # another pool has run it
                lock.release()
                self._settle(step, Outcome('done'))
                return
            try:
                self.prepare(step)
                log = LogReader(step.folder / LOG)  # after `prepare`, which may replace the folder
                command = self.command_of(step)
                handle = self.executor.start(step.name, command, log.path, lock.handle)
            except BaseException:
                lock.release()
                raise
        except (UserError, OSError) as error:
            self._settle(step, Outcome('failed', error=f'cannot be started: {error}'))
            return
        del self.waiting[step.product]
        self.running[step.product] = Running(step, handle, lock, log, time.monotonic())
        self.display.begun(step)

    def _note_elsewhere(self, step: Step) -> None:
        if step.product not in self._elsewhere:
            self._elsewhere.add(step.product)
            self.display.note(f'{step.name}: left to {holder(step.folder)}, which is at it')

    def _collect(self, stopping: bool = False) -> None:
        for product, run in list(self.running.items()):
            status = run.handle.poll()
            if status is None:
                continue
            run.lock.release()
            del self.running[product]
            seconds = time.monotonic() - run.begun
            if product.exists():
                self._settle(run.step, Outcome('done', seconds))
            elif stopping:
                self.waiting[product] = run.step
            else:
                tail = tuple(run.log.tail())
                error = _how_it_ended(status, tail)
                self._settle(run.step, Outcome('failed', seconds, error, tail, run.log.path))

    def _settle(self, step: Step, outcome: Outcome) -> None:
        """Note the outcome of a step. If it failed, the steps that depend on it fail too."""
        self.display.settled(step, outcome)
        self._note(step, outcome)
        if outcome.status == 'done':
            return
        reason = outcome.error if outcome.error.startswith('behind ') else (
            f'behind {step.name}, which failed: {outcome.error}'
        )  # fmt: skip
        for other in list(self.waiting.values()):
            if step.product in other.needs and other.product in self.waiting:
                self._settle(other, Outcome('failed', error=reason))

    def _note(self, step: Step, outcome: Outcome) -> None:
        self.waiting.pop(step.product, None)
        self.outcomes[step.product] = outcome
        if self.on_done is not None:
            self.on_done(step, outcome)


def _check_needs(steps: Mapping[Path, Step]) -> None:
    for step in steps.values():
        for need in step.needs:
            if need not in steps and not need.exists():
                raise UserError(
                    f'{need}',
                    f'no such file, and {step.name} needs it',
                    'expected the file or a step that makes it',
                )
    TopologicalSorter({product: step.needs for product, step in steps.items()}).prepare()


def _how_it_ended(status: int, tail: Sequence[str]) -> str:
    if status < 0:
        short = ', as happens where memory is short' if -status == signal.SIGKILL else ''
        return f'was ended by signal {-status} ({signal.strsignal(-status)}){short}'
    if status == 0:
        return 'ended with 0, but its product is missing'
    return f'ended with {status}: {tail[-1].strip() if tail else "nothing was printed"}'
