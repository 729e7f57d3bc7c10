"""SIGINT and SIGTERM: the run ends at the next iteration, with a checkpoint and one line."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, is_distributed, is_main_process

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A terminal sends Ctrl-C to every process, and torchrun passes its own on: that makes two.
PATIENCE = 2


class Interruption:
    """Remembers, inside a ``with`` block, that a signal asks the run to end.

    Loading workers, which are forked with the handlers, are not disturbed by a Ctrl-C that reaches
    them too. After `PATIENCE` signals the next one does what it did before.
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
