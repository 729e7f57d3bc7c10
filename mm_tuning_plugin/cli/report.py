"""``tools/report.py``: write the report of a finished run again, optionally with another run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mm_tuning_plugin.cli.common.run import run
from mm_tuning_plugin.cli.common.usage import make_parser
from mm_tuning_plugin.extras import need_extra

SCRIPT = 'report.py'


def build_parser(prog: str = SCRIPT) -> argparse.ArgumentParser:
    """The options of the command."""
    parser = make_parser(
        prog,
        'Write report.html into the folder of a finished run of both stages.',
        ['work_dirs/my_config', 'work_dirs/my_config --compare work_dirs/my_config_no-tuning'],
    )
    parser.add_argument('work_dir', type=Path, help="the run's --work-dir")
    parser.add_argument(
        '--compare', type=Path, metavar='DIR', help='that of another run, set beside'
    )
    return parser


def main(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> None:
    """Run the command."""
    args = build_parser(prog).parse_args(argv)
    need_extra('report')
    from mm_tuning_plugin.engine.report.run_report import write_report

    print(write_report(args.work_dir, args.compare))


def entry(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> int:
    """Run the command; return its exit status."""
    return run(partial(main, prog=prog), argv)


if __name__ == '__main__':
    sys.exit(entry())
