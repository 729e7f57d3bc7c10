"""``python -m mm_tuning_plugin.cli.step FOLDER``: run one step of a benchmark."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mm_tuning_plugin.cli.common.environment import require_stack
from mm_tuning_plugin.cli.common.run import run


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog='step.py',
        description='Run the step that tools/benchmark.py prepared a folder for. Run again, it '
        'goes on where it was interrupted; a finished one is left as it is.',
    )
    parser.add_argument('folder', help='holds step.json and config.py')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run a step.

    Raises:
        UserError: A mistake of the user's.
    """
    args = build_parser().parse_args(argv)
    require_stack()
    from mm_tuning_plugin.benchmark.worker.step_kinds import run_step

    run_step(Path(args.folder).resolve())


def entry(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run(main, argv)


if __name__ == '__main__':
    sys.exit(entry())
