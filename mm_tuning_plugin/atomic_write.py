"""Atomic file writes: a reader finds the old file or the complete new one, never a part.

A file is written under a temporary name, synchronised to the disk, then renamed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

from mm_tuning_plugin.errors import UserError

SUFFIX = '.part'
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path; it replaces `path` when the block ends.

    If the block raises, or the process is killed or the power fails, `path` stays as it was.

    Args:
        path: The file; missing folders are made.

    Raises:
        UserError: The file cannot be written, for example because the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}{SUFFIX}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        cause = _system_error(error)
        if cause is None:
            raise
        raise UserError(
            str(path),
            f'cannot be written: {cause.strerror or cause}',
            'expected a writable place; an earlier file of this name is unchanged',
        ) from error
    with contextlib.suppress(OSError):  # not every system can synchronise a folder
        _sync(path.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically, in UTF-8.

    Raises:
        UserError: As `atomic_write`.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding='utf-8', errors='replace')


def write_json(path: str | os.PathLike[str], content: object) -> None:
    """Write a JSON file atomically.

    Raises:
        UserError: As `atomic_write`.
    """
    write_text(path, json.dumps(content, indent=1, default=str) + '\n')


@contextlib.contextmanager
def explain_full_disk(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the error of a full disk anywhere in the block into one line.

    Args:
        folder: Named in the message if the error has no file name.

    Raises:
        UserError: The disk is full, the user's quota is used up, or the file is too large.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            str(error.filename or folder),
            f'cannot be written: {error.strerror}',
            'free disk space; finished parts are kept, and --resume (resume=True) continues there',
        ) from error


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove temporary files that a killed process left in a folder."""
    for path in Path(folder).glob(f'.*{SUFFIX}'):
        path.unlink(missing_ok=True)


def _system_error(error: BaseException | None) -> OSError | None:
    """Find the OSError behind an exception: torch wraps it if a write fails."""
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
