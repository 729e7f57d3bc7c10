"""``mm-tuning COMMAND ...``, also ``python -m mm_tuning_plugin COMMAND ...``: run a command.

The module of a command is imported only when the command is run. Its own parser reads its options.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from mm_tuning_plugin import __version__
from mm_tuning_plugin.cli.common.run import run
from mm_tuning_plugin.cli.common.usage import STATUSES, status_lines
from mm_tuning_plugin.errors import UserError

PROG = 'mm-tuning'
SOME_FAILED = 'benchmark, demo: a step failed; sweep: a config failed; the rest is finished'


class Command(NamedTuple):
    """One command.

    Attributes:
        module: In `mm_tuning_plugin.cli`; its ``entry(argv, prog)`` returns the exit status.
        summary: What it does, in half a line.
        example: Arguments of an example call.
    """

    module: str
    summary: str
    example: str


COMMANDS = {
    'train': Command(
        'train',
        'tune the backbone of an mmseg config, then fine-tune it',
        'my_config.py --ssl-checkpoint moco_r50.pth',
    ),
    'benchmark': Command(
        'benchmark',
        'compare tuning with its baselines, over seeds',
        'my_plan.py --work-dir work_dirs/plan',
    ),
    'convert': Command(
        'convert',
        'write a checkpoint that stock mmseg loads in full, or inspect one',
        'moco_r50.pth.tar r50.pth --config my_config.py',
    ),
    'browse': Command(
        'browse',
        'show which nodes will be sampled from your data, before training',
        'my_config.py --out nodes',
    ),
    'doctor': Command(
        'doctor',
        'check the installation and, with a config, everything a run needs',
        'my_config.py --ssl-checkpoint moco_r50.pth',
    ),
    'report': Command(
        'report',
        'write the report of a finished run again, compared with another run',
        'work_dirs/my_config --compare work_dirs/my_config_no-tuning',
    ),
    'sweep': Command(
        'sweep',
        'list which configs can be tuned, and why others cannot',
        'my_project/configs',
    ),
    'list': Command(
        'list', 'print the losses, nodes, recipes, hooks and so on that are registered', 'losses'
    ),
    'demo': Command('demo', 'run all steps on a small synthetic data set', ''),
}


def help_text(prog: str = PROG) -> str:
    """What ``--help`` prints."""
    calls = [f'  {prog} {name} {command.example}'.rstrip() for name, command in COMMANDS.items()]
    return '\n'.join(
        [
            f'usage: {prog} COMMAND [ARGUMENT ...]',
            '',
            'Mix-and-match tuning: the stage between a self-supervised backbone and fine-tuning.',
            '',
            'commands:',
            *(f'  {name:<10} {command.summary}' for name, command in COMMANDS.items()),
            '',
            'options:',
            f'  -h, --help  this text; {prog} COMMAND --help: the options of a command',
            '  --version   the version of the package',
            '',
            'examples:',
            *calls,
            '',
            *status_lines({**STATUSES, '1': SOME_FAILED}),
        ]
    )


def find_command(name: str) -> Command:
    """Look up a command.

    Raises:
        UserError: It does not exist.
    """
    if name in COMMANDS:
        return COMMANDS[name]
    if name.startswith('-'):
        raise UserError(
            name, f'no such option of {PROG}', f'expected a command first, of {_names()}'
        )
    near = difflib.get_close_matches(name.lower(), COMMANDS, n=1, cutoff=0.0)
    raise UserError(
        'COMMAND', f'there is no {name!r}', f'use {near[0]}, the nearest one of {_names()}'
    )


def _names() -> str:
    return ', '.join(COMMANDS)


def entry(argv: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run a command; return its exit status.

    Args:
        argv: The command's name and its arguments; None: those of the process.
        prog: How the console entry was called.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in ('-h', '--help'):
        print(help_text(prog))
        return 0
    if words == ['--version']:
        print(__version__)
        return 0
    found: list[Command] = []

    def look_up(words: Sequence[str] | None) -> None:
        if not words:
            raise UserError(
                'COMMAND', 'none found', f'expected one of {_names()} ({prog} --help explains them)'
            )
        found.append(find_command(words[0]))

    status = run(look_up, words)
    if status:
        return status
    module = importlib.import_module(f'mm_tuning_plugin.cli.{found[0].module}')
    return int(module.entry(words[1:], f'{prog} {words[0]}'))


if __name__ == '__main__':
    sys.exit(entry())
