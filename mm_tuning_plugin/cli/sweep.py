"""``tools/sweep_configs.py``: which configs of a folder can be tuned, and why the others cannot."""

from __future__ import annotations

import argparse
import ast
import copy
import json
import re
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mm_tuning_plugin.cli.environment import require_stack
from mm_tuning_plugin.cli.run import run
from mm_tuning_plugin.errors import UserError

DERIVED, REFUSED, UNLOADABLE, FAILED = 'derived', 'refused', 'not loadable', 'FAILED'


class Outcome(NamedTuple):
    """What came of one config.

    Attributes:
        config: Its path, relative to the folder that was searched.
        status: `DERIVED`, `REFUSED`, `UNLOADABLE` (a package that it imports is missing) or
            `FAILED`.
        reason: Why not; '' if derived.
    """

    config: str
    status: str
    reason: str


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog='sweep_configs.py',
        description='Derive the tuning config of every config in a folder, without running any.',
        epilog='example: python tools/sweep_configs.py my_project/configs. Exit status 1 if a '
        'config is neither derived nor refused with a reason.',
    )
    parser.add_argument(
        'folder', nargs='?', help="a folder of configs (default: the installed mmseg's own)"
    )
    parser.add_argument('--json', metavar='FILE', help='write the outcomes there')
    return parser


def find_configs(folder: Path) -> list[Path]:
    """All configs below a folder but those of ``_base_`` folders, which are fragments.

    Raises:
        UserError: There is no such folder, or none in it.
    """
    if not folder.is_dir():
        raise UserError(f'{folder}: no such folder; expected one with configs')
    found = sorted(p for p in folder.rglob('*.py') if '_base_' not in p.relative_to(folder).parts)
    if not found:
        raise UserError(f'{folder}: no config found below it; expected .py files')
    return found


def derive_one(path: Path, name: str) -> Outcome:
    """Derive the tuning config of one file and check what was derived."""
    from mmengine.config import Config

    from mm_tuning_plugin.engine import derive_tuning_config

    try:
        cfg = Config.fromfile(str(path))
    except (ImportError, KeyError) as error:
        return Outcome(name, UNLOADABLE, _missing(error))
    except Exception as error:  # a config is code: it can raise anything
        return Outcome(name, FAILED, f'cannot be read: {_line(error)}')
    before = copy.deepcopy(cfg.to_dict())
    try:
        derived = derive_tuning_config(cfg)
    except UserError as error:
        return Outcome(name, REFUSED, _line(error))
    except Exception as error:  # this is what the sweep is to find
        return Outcome(name, FAILED, _line(error))
    return Outcome(name, *_check(before, cfg.to_dict(), derived.to_dict()))


def _check(before: dict, after: dict, derived: dict) -> tuple[str, str]:
    """Whether a derived config is what it is said to be: alone, plain, without side effects."""
    if after != before:
        return FAILED, 'the config itself was changed'
    left = [key for key in ('runner_type', 'mix_and_match') if key in derived]
    if left:
        return FAILED, f'{left[0]} is left in the derived config'
    try:
        same = ast.literal_eval(repr(derived)) == derived
    except (ValueError, SyntaxError):
        same = False
    return (DERIVED, '') if same else (FAILED, 'the derived config cannot be written as a file')


def _missing(error: Exception) -> str:
    """The package that a config imports and this environment lacks."""
    found = re.search(r"(mmdet|mmpretrain|mmcls)[\w.]*|No module named '([\w.]+)'", str(error))
    return f'needs {found.group(1) or found.group(2)}' if found else _line(error)


def _line(error: Exception) -> str:
    return ' '.join(f'{error}'.split()) or type(error).__name__


def sweep(folder: Path) -> list[Outcome]:
    """Derive every config below a folder, with a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import track

    paths = find_configs(folder)
    bar = track(paths, 'deriving', console=Console(stderr=True), transient=True)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return [derive_one(path, path.relative_to(folder).as_posix()) for path in bar]


def counts_table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: how many configs came to each end, and one of them."""
    first: dict[tuple[str, str], str] = {}
    for outcome in outcomes:
        first.setdefault(outcome[1:], outcome.config)
    rows = ['| configs | outcome | reason | for instance |', '|---:|---|---|---|']
    for (status, reason), number in Counter(o[1:] for o in outcomes).most_common():
        rows.append(f'| {number} | {status} | {reason} | `{first[status, reason]}` |')
    return '\n'.join(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        UserError: There is nothing to sweep.
        SystemExit: 1, if a config was neither derived nor refused with a reason.
    """
    args = build_parser().parse_args(argv)
    require_stack()
    import mmengine
    import mmseg

    import mm_tuning_plugin

    folder = Path(args.folder) if args.folder else Path(mmseg.__path__[0], '.mim', 'configs')
    outcomes = sweep(folder)
    print(f'{len(outcomes)} configs of {args.folder or "mmseg " + mmseg.__version__}\n')
    print(counts_table(outcomes))
    if args.json:
        from mm_tuning_plugin.checkpoint import write_aside

        record = dict(
            command='python tools/sweep_configs.py',
            mm_tuning_plugin=mm_tuning_plugin.__version__,
            mmengine=mmengine.__version__,
            mmsegmentation=mmseg.__version__,
            counts=Counter(outcome.status for outcome in outcomes),
            configs={o.config: ': '.join(filter(None, o[1:])) for o in outcomes},
        )
        with write_aside(args.json) as aside:
            aside.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')
    failed = [outcome for outcome in outcomes if outcome.status == FAILED]
    for outcome in failed:
        print(f'{outcome.config}: {outcome.reason}', file=sys.stderr)
    if failed:
        raise SystemExit(1)


def entry(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run(main, argv)
