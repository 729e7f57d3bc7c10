"""Parsers and help texts of the commands, for scripts in ``tools/`` and for ``mm-tuning``.

Only the standard library is imported, so that help is fast.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping, Sequence

WIDTH = 79
STATUSES: dict[str, str] = {
    '0': 'done',
    '2': 'a mistake of the user: the last line on stderr says what was found and expected',
    '130, 143': 'ended by Ctrl-C or SIGTERM: finished work is kept',
}
"""Exit statuses that all commands share; docs/commands.md lists them too."""
STEP_FAILED = {'1': 'a step failed; all others are finished'}


def called_as(prog: str) -> list[str]:
    """The words that run a command: 'train.py' -> python tools/train.py.

    Args:
        prog: The name of a script in ``tools/``, or a call of the console: 'mm-tuning train'.
    """
    return ['python', f'tools/{prog}'] if prog.endswith('.py') else prog.split()


def make_parser(
    prog: str, description: str, examples: Sequence[str], statuses: Mapping[str, str] | None = None
) -> argparse.ArgumentParser:
    """A parser whose help ends with examples and the exit statuses.

    Args:
        prog: See `called_as`.
        description: What the command does, in one paragraph.
        examples: Arguments of example calls.
        statuses: Exit statuses and their meanings; they extend or override `STATUSES`.
    """
    call = ' '.join(called_as(prog))
    lines = ['examples:' if len(examples) > 1 else 'example:']
    lines += [f'  {call} {example}'.rstrip() for example in examples]
    return argparse.ArgumentParser(
        prog=prog,
        description=textwrap.fill(description, WIDTH),
        epilog='\n'.join([*lines, '', *status_lines({**STATUSES, **(statuses or {})})]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the input and output of a run."""
    parser.add_argument(
        '--ssl-checkpoint',
        metavar='FILE',
        help='self-supervised weights to start from, with and without tuning',
    )
    parser.add_argument(
        '--allow-pickle',
        action='store_true',
        help='allow --ssl-checkpoint to run code while it is loaded; only for files you trust',
    )
    parser.add_argument('--work-dir', metavar='DIR', help='folder for logs and checkpoints')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        default=[],
        help='override any value of the config, for example mix_and_match.NAME=VALUE',
    )


def status_lines(statuses: Mapping[str, str]) -> list[str]:
    """The exit statuses in ascending order, one per line."""
    rows = sorted(statuses.items(), key=lambda row: int(row[0].split(',')[0]))
    return ['exit status:', *(f'  {status:<9} {meaning}' for status, meaning in rows)]
