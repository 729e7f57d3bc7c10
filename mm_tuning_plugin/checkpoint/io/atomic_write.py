"""Files that are whole or not there: written aside, synchronised to the disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from mm_tuning_plugin.checkpoint.io.read import PathLike
from mm_tuning_plugin.errors import UserError

SUFFIX = '.part'
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def write_aside(path: PathLike) -> Iterator[Path]:
    """Yields a neighbouring path to write to; it takes the place of `path` when the block ends.

    Whoever reads `path` finds what was there before or all of what is new, also if the process is
    killed or the power fails in between. If the block raises, `path` is left as it was.

    Args:
        path: The file; missing folders are made.

    Raises:
        UserError: If it can't be written, on a full disk for instance.
    """
    path = Path(path)
    aside = path.with_name(f'.{path.name}.{os.getpid()}{SUFFIX}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        _sync(aside)
        os.replace(aside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        cause = _system_error(error)
        if cause is None:
            raise
        raise UserError(
            str(path),
            f'cannot be written: {cause.strerror or cause}',
            'expected a place that can be written: what was there is left as it was',
        ) from error
    with contextlib.suppress(OSError):  # not every system can synchronise a folder
        _sync(path.parent)


@contextlib.contextmanager
def full_disk_named(folder: PathLike) -> Iterator[None]:
    """Turns the error of a full disk, wherever the block meets it, into one line.

    Args:
        folder: What is named if the error names no file.

    Raises:
        UserError: The disk, the user's share of it, or the largest size of a file is used up.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            str(error.filename or folder),
            f'cannot be written: {error.strerror}',
            'expected room on the disk: what was finished is kept, and --resume (resume=True) goes '
            'on from there',
        ) from error


def remove_leftovers(folder: PathLike) -> None:
    """Removes what a process that was killed while writing has left in a folder."""
    for path in Path(folder).glob(f'.*{SUFFIX}'):
        path.unlink(missing_ok=True)


def _system_error(error: BaseException | None) -> OSError | None:
    """The error of the system behind an exception: torch wraps it when a write fails."""
    if not isinstance(error, (OSError, RuntimeError)):
        return None
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
