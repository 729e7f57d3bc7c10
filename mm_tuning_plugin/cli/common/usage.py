"""Help texts that say how a command was called: as a script of ``tools/``, or by ``mm-tuning``.

Nothing but the standard library is imported: help must come at once.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping, Sequence

WIDTH = 79
STATUSES: dict[str, str] = {
    '0': 'done',
    '2': "a mistake of the user's: the last line on stderr says what was found and expected",
    '130, 143': 'ended by Ctrl-C or SIGTERM: what was finished is kept',
}
"""Exit statuses that all commands share; docs/commands.md lists them too."""
STEP_FAILED = {'1': 'a step failed; everything else is finished'}


def called_as(prog: str) -> list[str]:
    """The words that call a command: 'train.py' -> python tools/train.py.

    Args:
        prog: The name of a script in ``tools/``, or words of the console entry: 'mm-tuning train'.
    """
    return ['python', f'tools/{prog}'] if prog.endswith('.py') else prog.split()


def make_parser(
    prog: str, description: str, examples: Sequence[str], statuses: Mapping[str, str] | None = None
) -> argparse.ArgumentParser:
    """A parser whose help ends with examples and the exit statuses.

    Args:
        prog: See `called_as`.
        description: What the command does, in one paragraph.
        examples: Arguments of calls that make sense.
        statuses: Exit statuses and their meanings, besides or instead of `STATUSES`.
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
    """The options that say what a run reads and where it writes."""
    parser.add_argument(
        '--ssl-checkpoint',
        metavar='FILE',
        help='self-supervised weights to start from, in both arms',
    )
    parser.add_argument(
        '--allow-pickle',
        action='store_true',
        help='let --ssl-checkpoint run code while it is read; only for files you trust',
    )
    parser.add_argument('--work-dir', metavar='DIR', help='where logs and checkpoints go')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        default=[],
        help='override any value of the config, mix_and_match.NAME=VALUE among them',
    )


def status_lines(statuses: Mapping[str, str]) -> list[str]:
    """The exit statuses, one a line, in their order."""
    rows = sorted(statuses.items(), key=lambda row: int(row[0].split(',')[0]))
    return ['exit status:', *(f'  {status:<9} {meaning}' for status, meaning in rows)]
