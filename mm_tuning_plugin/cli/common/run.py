"""Run a command: a mistake of the user becomes one line on stderr and exit status 2."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mm_tuning_plugin.errors import UserError


def run(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        main: The command; raises `UserError` for a user's mistake.
        argv: Its arguments; None: those of the process.

    Returns:
        The exit status: 0; 2 after a mistake of the user; 130 after a Ctrl-C that the command did
        not handle itself. The last line on stderr is the reason.
    """
    try:
        main(argv)
    except UserError as error:
        sys.stdout.flush()
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print('interrupted by SIGINT: what was finished is kept', file=sys.stderr, flush=True)
        return 128 + signal.SIGINT
    return 0


def make_folder(path: str, option: str = '--work-dir') -> Path:
    """Make a folder for results and its parents.

    Args:
        path: The folder.
        option: The option that names it.

    Raises:
        UserError: It cannot be made.
    """
    folder = Path(path).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            option, f'{path} cannot be made ({error})', 'expected a folder that can be written'
        ) from error
    return folder
