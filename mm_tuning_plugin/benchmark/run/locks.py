"""One process a step, whatever benchmark commands use its folder at the same time.

A lock of the kernel's on an open file: nothing is left to clear away when its holder dies. A step's
own process inherits the open file, so that the lock lasts as long as anybody works in the folder,
also where the command that began the step was killed and the step was not. The file lies beside the
folder, which may be renamed when another step takes its place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

from mm_tuning_plugin.engine.common.messages import warn

# Of file systems that know no such locks, some network ones among them.
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
        """Take the lock of a folder, which is made; None where another process holds it."""
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
        """Let go; a process that inherited the lock still holds it."""
        os.close(self.handle)


def lock_file(folder: Path) -> Path:
    """The file that stands for the lock of a folder; it stays."""
    return folder.with_name(f'.{folder.name}.lock')


def holder(folder: Path) -> str:
    """Who took the lock last: 'process P on HOST'."""
    try:
        return lock_file(folder).read_text(encoding='utf-8', errors='replace') or 'another process'
    except OSError:
        return 'another process'
