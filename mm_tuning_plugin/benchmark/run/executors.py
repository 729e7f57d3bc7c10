"""Executors run the processes of steps: their interface, and the one for this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from mm_tuning_plugin.errors import UserError

CORES_PER_WORKER = 2  # one computes, the other loads images
THREADS = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')


class Handle(Protocol):
    """The process of a step."""

    def poll(self) -> int | None:
        """Its exit status, negative for the signal that killed it; None while it runs."""

    def terminate(self) -> None:
        """Ask it to write a checkpoint and end."""

    def kill(self) -> None:
        """Kill it and all its child processes."""


class Executor(Protocol):
    """Runs several commands at once.

    Attributes:
        interval: Seconds between two polls of the running processes.
    """

    interval: float

    def free(self) -> bool:
        """Whether another command may start."""

    def start(self, name: str, command: Sequence[str], log: Path, lock: int) -> Handle:
        """Start a command.

        Args:
            name: For messages.
            command: Program and arguments.
            log: Its output is appended to this file in the folder of the step.
            lock: File descriptor that the command should inherit, if it runs on this machine.
        """


class Slot(NamedTuple):
    """Runs one step at a time.

    Attributes:
        name: For messages.
        env: Environment variables of the step's process.
    """

    name: str
    env: dict[str, str]


def local_slots(
    workers: int | None = None,
    jobs_per_gpu: int = 1,
    gpus: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> list[Slot]:
    """Return the slots of this machine: its GPUs, or its CPU cores if it has none.

    The slots share the cores evenly, as threads of OpenMP and MKL, unless the environment sets
    their number. Nothing is pinned.

    Args:
        workers: Number of slots without a GPU; None: one for each `CORES_PER_WORKER` cores.
        jobs_per_gpu: Number of slots on each GPU.
        gpus: Names of the GPUs in CUDA_VISIBLE_DEVICES; None: all visible ones.
        environ: The environment.

    Raises:
        UserError: A number below 1.
    """
    for name, value in (('workers', workers), ('jobs_per_gpu', jobs_per_gpu)):
        if value is not None and (isinstance(value, bool) or value < 1):
            raise UserError(name, f'{value!r} found', 'expected 1 or more')
    gpus = visible_gpus(environ) if gpus is None else gpus
    cores = usable_cores()
    if gpus:
        # alternate between GPUs, so that the first steps use all of them
        names = [gpu for _ in range(jobs_per_gpu) for gpu in gpus]
        devices = [{'CUDA_VISIBLE_DEVICES': gpu} for gpu in names]
    else:
        count = max(1, cores // CORES_PER_WORKER) if workers is None else workers
        names, devices = [''] * count, [{} for _ in range(count)]
    share = str(max(1, cores // len(devices)))
    threads = {name: share for name in THREADS if name not in environ}
    return [
        Slot(f'GPU {name}' if name else f'worker {i}', {**threads, **device})
        for i, (name, device) in enumerate(zip(names, devices))
    ]


def usable_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Names, in CUDA_VISIBLE_DEVICES, of the GPUs that torch sees."""
    import torch

    if not torch.cuda.is_available():
        return []
    named = environ.get('CUDA_VISIBLE_DEVICES')
    if named is None:
        return [str(i) for i in range(torch.cuda.device_count())]
    # CUDA, and so torch's count, stops at the first entry that is no device
    return [name.strip() for name in named.split(',')][: torch.cuda.device_count()]


class LocalExecutor:
    """Runs each command as a process of this machine, in a slot.

    Each process has its own session, so a Ctrl-C in the terminal reaches only the pool, which then
    asks each process to end once.

    Args:
        slots: From `local_slots`.
    """

    interval = 0.2

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = list(slots)

    def free(self) -> bool:
        """Whether a slot is free."""
        return bool(self.slots)

    def start(self, name: str, command: Sequence[str], log: Path, lock: int) -> LocalHandle:
        """Start a command in the first free slot; see `Executor`."""
        with log.open('ab') as file:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, 'PYTHONUNBUFFERED': '1', **self.slots[0].env},
                start_new_session=True,
                pass_fds=(lock,),
            )
        return LocalHandle(process, self.slots.pop(0), self.slots)


class LocalHandle:
    """A process of this machine. It frees its slot when it has ended."""

    def __init__(self, process: subprocess.Popen, slot: Slot, slots: list[Slot]) -> None:
        self.process = process
        self._slot: Slot | None = slot
        self._slots = slots

    def poll(self) -> int | None:
        """See `Handle`."""
        status = self.process.poll()
        if status is not None and self._slot is not None:
            self._slots.append(self._slot)
            self._slot = None
        return status

    def terminate(self) -> None:
        """See `Handle`. The process ends its own data loading workers."""
        self.process.terminate()

    def kill(self) -> None:
        """See `Handle`."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.poll()
