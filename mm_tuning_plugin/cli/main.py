"""``mm-tuning``: all commands behind one name, with the options of the scripts in ``tools/``."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from mm_tuning_plugin import __version__
from mm_tuning_plugin.cli import run as running
from mm_tuning_plugin.errors import UserError

# Command -> its module in this package, and what it does.
COMMANDS = {
    'train': ('train', 'tune the backbone of an mmseg config, then fine-tune it'),
    'benchmark': ('benchmark', 'compare tuning with its baselines, over seeds and label shares'),
    'convert': ('convert', 'write a self-supervised file so that stock mmseg loads all of it'),
    'doctor': ('doctor', 'say what is installed and whether it will work'),
    'report': ('report', 'write the report of a finished run once more, beside another run'),
    'sweep': ('sweep', 'say which configs of a project can be tuned'),
    'demo': ('demo', 'see everything once, on a data set that is drawn for it'),
}
EXAMPLES = """examples:
  mm-tuning train my_config.py --ssl-checkpoint moco_r50.pth
  mm-tuning train my_config.py --ssl-checkpoint moco_r50.pth --no-tuning
  mm-tuning benchmark my_plan.py --work-dir work_dirs/compared
  mm-tuning convert --inspect moco_r50.pth
  mm-tuning doctor"""
EXIT_CODES = """exit status:
  0    done
  1    some jobs of a benchmark or configs of a sweep failed; the rest are finished
  2    a mistake that you can mend: the last line of stderr names the thing, what was found and what
       was expected
  128+n  ended by signal n, with a checkpoint: --resume goes on (130: Ctrl-C, 143: SIGTERM)"""


def overview() -> str:
    """The text of ``mm-tuning --help``."""
    width = max(map(len, COMMANDS))
    rows = '\n'.join(f'  {name:<{width}}  {what}' for name, (_, what) in COMMANDS.items())
    return (
        'usage: mm-tuning COMMAND [OPTIONS]\n\n'
        'The stage between a self-supervised backbone and segmentation fine-tuning.\n\n'
        f'commands:\n{rows}\n\n`mm-tuning COMMAND --help` tells the options.\n\n'
        f'{EXAMPLES}\n\n{EXIT_CODES}'
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the overview or the version; or name what is wrong with the command.

    Raises:
        UserError: There is no such command.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    if words and words[0] in ('--version', '-V'):
        print(f'mm_tuning_plugin {__version__}')
    elif not words or words[0] in ('-h', '--help', 'help'):
        print(overview())
    else:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1, cutoff=0.0)[0]
        raise UserError(
            f'{words[0]!r} found, expected a command of mm-tuning; the nearest is {near}'
        )


def entry(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    if not words or words[0] not in COMMANDS:
        return running.run(main, words)
    running.through_mm_tuning = True
    module = importlib.import_module(f'mm_tuning_plugin.cli.{COMMANDS[words[0]][0]}')
    return int(module.entry(words[1:]))


if __name__ == '__main__':
    sys.exit(entry())
