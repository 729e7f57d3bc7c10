"""SIGINT and SIGTERM: the run ends at the next iteration, with a checkpoint and one line."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, is_distributed, is_main_process

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A terminal sends Ctrl-C to every process, and torchrun passes its own on: that makes two.
PATIENCE = 2
PARENT_IS_LOOKED_FOR = 5.0  # seconds between two looks, as torch's workers have it


class Interruption:
    """Remembers, inside a ``with`` block, that a signal asks the run to end.

    Loading workers, which are forked with the handlers, are not disturbed by a Ctrl-C that reaches
    them too; for SIGTERM see `OutliveSigterm`. After `PATIENCE` signals the next one does what it
    did before.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._count = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # Python allows no other
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signum, self._count = number, self._count + 1
        if self._count >= PATIENCE:
            signal.signal(number, self._previous[number])

    def asked(self) -> bool:
        """Whether any rank was asked to end; every rank gets the same answer."""
        if is_distributed():
            # mmengine waits for the device in every iteration anyway, to log its scalars.
            heard = torch.tensor([self.signum])
            all_reduce(heard, op='max')
            self.signum = int(heard)
        return self.signum != 0

    def end(self, message: str) -> None:
        """End the process with one line and the exit status that its signal is known by.

        Raises:
            SystemExit: Always.
        """
        if is_main_process():
            name = signal.Signals(self.signum).name
            sys.stdout.flush()
            print(f'interrupted by {name}: {message}', file=sys.stderr, flush=True)
        raise SystemExit(128 + self.signum)


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
