"""SIGINT and SIGTERM: the run ends within seconds, with a checkpoint and one line."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size, is_distributed, is_main_process

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A terminal sends Ctrl-C to every process, and torchrun passes its own on: that makes two.
PATIENCE = 2
PARENT_IS_LOOKED_FOR = 5.0  # seconds between two looks, as torch's workers have it
RANKS_ASK = 2.0  # seconds between two questions of ranks that validate
GOES_ON = '--resume (resume=True) goes on from there'
BEFORE = f'before an iteration began; {GOES_ON}'


class EndedAtOnce(SystemExit):
    """Raised by the handler of a signal, where nothing is lost by it."""


class Interruption:
    """Records, inside a ``with`` block, that a signal asks the run to end.

    While nothing is trained (see `idle`), the process ends at once. With several ranks, the signal
    is only recorded, because a rank that ends alone would leave the others waiting.

    Loading workers, which are forked with the handlers, are not disturbed by a Ctrl-C that reaches
    them too; for SIGTERM see `OutliveSigterm`. After `PATIENCE` signals the next one does what it
    did before.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._count = 0
        self._previous: dict[int, Any] = {}
        self._process = os.getpid()
        self._where: str | None = None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # Python allows no other
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if isinstance(error, EndedAtOnce):
            self._tell(self._where or BEFORE)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signum, self._count = number, self._count + 1
        if self._count >= PATIENCE:
            signal.signal(number, self._previous[number])
        if self._count == 1 and self._where is not None and self._is_alone():
            raise EndedAtOnce(128 + number)

    def _is_alone(self) -> bool:
        return os.getpid() == self._process and get_world_size() == 1

    def idle(self, where: str) -> None:
        """From here on nothing is trained, and all that was is kept: a signal ends the run.

        Args:
            where: Description of it in the line.
        """
        self._where = where

    def busy(self) -> None:
        """From here on a signal waits for `asked`."""
        self._where = None

    def asked(self) -> bool:
        """Whether any rank was asked to end; every rank gets the same answer."""
        self.exchange(0.0)
        return self.signum != 0

    def exchange(self, number: float) -> float:
        """Let all ranks know of a signal to one of them; the largest `number` of any rank."""
        if is_distributed():
            # mmengine waits for the device in every iteration anyway, to log its scalars.
            heard = torch.tensor([float(self.signum), number])
            all_reduce(heard, op='max')
            self.signum, number = int(heard[0]), float(heard[1])
        return number

    def end_if_idle(self) -> None:
        """End the process, if a rank was asked to while nothing is trained; all ranks come here.

        Raises:
            SystemExit: It was.
        """
        if self.asked():
            self.end(self._where or BEFORE)

    def end(self, message: str) -> None:
        """End the process with one line and the exit status that its signal is known by.

        Raises:
            SystemExit: Always.
        """
        self._tell(message)
        raise SystemExit(128 + self.signum)

    def _tell(self, message: str) -> None:
        if is_main_process():
            name = signal.Signals(self.signum).name
            sys.stdout.flush()
            print(f'interrupted by {name}: {message}', file=sys.stderr, flush=True)


class Rounds:
    """At which batches of a pass several ranks ask each other whether to end.

    They wait for each other there, so about every `RANKS_ASK` seconds of the slowest, and at no
    batch that one of them does not have.

    Args:
        batches: How many this rank has.
    """

    def __init__(self, batches: int) -> None:
        least = torch.tensor([batches])
        if is_distributed():
            all_reduce(least, op='min')
        self.batches = int(least)
        self.next, self.step = 0, 1
        self._last, self._then = 0, time.monotonic()

    def due(self, batch: int) -> bool:
        """Whether they ask before this batch; all ranks come to the same answer."""
        return batch == self.next and batch < self.batches

    def ask(self, batch: int, interruption: Interruption) -> bool:
        """Ask before a batch that is due: whether to end; every rank gets the same answer."""
        now, passed = time.monotonic(), batch - self._last
        pace = interruption.exchange((now - self._then) / max(1, passed))
        self._last, self._then = batch, now
        if passed:  # never far more steps than before: batches may become slower
            self.step = max(1, min(2 * self.step, int(RANKS_ASK / max(pace, 1e-6))))
        self.next = batch + self.step
        return interruption.signum != 0


class OutliveSigterm:
    """A loading worker's initialisation that lets it outlive a SIGTERM to the whole group.

    Slurm and torchrun send one. torch's handler in a worker then ends the worker, and the run with
    it, by an error in the middle of whatever it does. Here a worker ends on a SIGTERM of its
    parent's alone, which is how torch ends those that it no longer needs, and soon after its
    parent is gone: torch's own watch over that misses a parent that is killed as the worker starts.

    Args:
        init: The initialisation that comes next, if any.
    """

    def __init__(self, init: Callable[[int], None] | None) -> None:
        self.init = init
        self.parent = os.getpid()

    def __call__(self, index: int) -> None:
        """Initialise worker `index`."""
        if hasattr(signal, 'sigtimedwait'):  # not on every system
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            threading.Thread(target=self._wait_for_parent, daemon=True).start()
        if self.init is not None:
            self.init(index)

    def _wait_for_parent(self) -> None:
        while os.getppid() == self.parent:
            received = signal.sigtimedwait({signal.SIGTERM}, PARENT_IS_LOOKED_FOR)
            if received is not None and received.si_pid == self.parent:
                break
        os._exit(0)
