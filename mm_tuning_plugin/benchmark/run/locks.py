"""Locks that keep two processes from running the same step.

``flock`` on an open file: the kernel releases the lock when its holder dies. The process of a step
inherits the open file, so it holds the lock even if the command that started it was killed. The
file is next to the folder of the step, because the folder may be renamed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

from mm_tuning_plugin.engine.common.messages import warn

# Errors of file systems without locks, such as some network file systems.
UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)


class StepLock:
    """The lock of a step's folder, held from `acquire` to `release`.

    Attributes:
        handle: File descriptor to hand to the step's process.
    """

    def __init__(self, handle: int) -> None:
        self.handle = handle

    @classmethod
    def acquire(cls, folder: Path) -> StepLock | None:
        """Make a folder and take its lock; None if another process holds it."""
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock_file(folder), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                os.close(handle)
                raise
            warn(f'{folder}: its file system has no locks: let one command at a time use it')
        os.ftruncate(handle, 0)
        os.write(handle, f'process {os.getpid()} on {socket.gethostname()}'.encode())
        return cls(handle)

    def release(self) -> None:
        """Release the lock. A process that inherited it still holds it."""
        os.close(self.handle)


def lock_file(folder: Path) -> Path:
    """The file that is locked for a folder. It is never removed."""
    return folder.with_name(f'.{folder.name}.lock')


def holder(folder: Path) -> str:
    """The process that took the lock last: 'process P on HOST'."""
    try:
        return lock_file(folder).read_text(encoding='utf-8', errors='replace') or 'another process'
    except OSError:
        return 'another process'
