"""``tools/sweep_configs.py``: which configs of a folder can be tuned, and why the others cannot."""

from __future__ import annotations

import argparse
import copy
import glob
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mm_tuning_plugin.cli.common.derived_config_checks import (
    check_built,
    check_plain,
    check_start,
    check_types,
)
from mm_tuning_plugin.cli.common.environment import missing_package, require_stack
from mm_tuning_plugin.cli.common.run import run
from mm_tuning_plugin.cli.common.usage import make_parser
from mm_tuning_plugin.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

SCRIPT = 'sweep_configs.py'
CONFIG_FAILED = {'1': 'a config was neither derived nor refused with a reason'}
DERIVED, REFUSED, UNLOADABLE, FAILED = 'derived', 'refused', 'not loadable', 'FAILED'


class Outcome(NamedTuple):
    """What came of one config.

    Attributes:
        config: Its path, relative to the folder that was searched.
        status: `DERIVED`, `REFUSED`, `UNLOADABLE` (a package that it imports is missing) or
            `FAILED`.
        reason: Why not; of a derived one, the package that its fine-tuning lacks, if any.
    """

    config: str
    status: str
    reason: str


def build_parser(prog: str = SCRIPT) -> argparse.ArgumentParser:
    """The options of the command."""
    parser = make_parser(
        prog,
        'Derive the tuning config of every config in a folder, without running any, and check '
        'what was derived.',
        ['', 'my_project/configs --build'],
        CONFIG_FAILED,
    )
    parser.add_argument(
        'configs',
        nargs='*',
        help="folders of configs, or patterns of files (default: the installed mmseg's own)",
    )
    parser.add_argument('--json', metavar='FILE', help='write the outcomes there')
    parser.add_argument(
        '--build',
        action='store_true',
        help='also build each backbone, without weights, and the optimizer over it',
    )
    return parser


def find_configs(place: str | Path) -> list[Path]:
    """Find all configs in a folder or matching a pattern, except fragments in ``_base_``.

    Raises:
        UserError: The folder does not exist, or has no config.
    """
    folder = Path(place)
    if folder.is_dir():
        found = sorted(folder.rglob('*.py'))
        parts = [path.relative_to(folder).parts for path in found]
    elif any(character in str(place) for character in '*?['):
        found = sorted(Path(path) for path in glob.glob(str(place), recursive=True))
        found = [path for path in found if path.suffix == '.py' and path.is_file()]
        parts = [path.parts for path in found]
    else:
        raise UserError(f'{place}', 'no such folder', 'expected one with configs, or a pattern')
    found = [path for path, names in zip(found, parts) if '_base_' not in names]
    if not found:
        raise UserError(f'{place}', 'no config found there', 'expected .py files')
    return found


def derive_one(path: Path, name: str, built: set[str] | None = None) -> Outcome:
    """Derive the tuning config of one file and check the result.

    Args:
        path: The file.
        name: What it is called in the outcome.
        built: Where given, backbone and optimizer are built too, unless equal ones were before:
            their configs are collected here.
    """
    from mmengine.config import Config

    from mm_tuning_plugin.engine import derive_tuning_config
    from mm_tuning_plugin.engine.preflight.data import missing_packages

    try:
        cfg = Config.fromfile(str(path))
    except Exception as error:  # a config is code: it can raise anything
        package = missing_package(error)
        if package is not None:
            return Outcome(name, UNLOADABLE, f'needs {package}')
        return Outcome(name, FAILED, f'cannot be read: {_line(error)}')
    before = copy.deepcopy(cfg.to_dict())
    try:
        derived = derive_tuning_config(cfg)
        wrong = check_start(cfg)
        if cfg.to_dict() != before:
            wrong = 'the config itself was changed'
        wrong = wrong or check_plain(derived) or check_types(derived)
        if built is not None and not wrong:
            wrong = _build_once(derived, built)
    except UserError as error:
        return Outcome(name, REFUSED, _line(error))
    except Exception as error:  # this is what the sweep is to find
        return Outcome(name, FAILED, _line(error))
    needs = sorted({package for _, package in missing_packages(cfg.get('model'))})
    reason = f'fine-tuning needs {", ".join(needs)}' if needs else ''
    return Outcome(name, FAILED, wrong) if wrong else Outcome(name, DERIVED, reason)


def _build_once(derived: Config, built: set[str]) -> str:
    key = repr((derived['model']['backbone'], derived['optim_wrapper']))
    if key in built:
        return ''
    built.add(key)
    return check_built(derived)


def _line(error: Exception) -> str:
    return ' '.join(f'{error}'.split()) or type(error).__name__


def sweep(places: Sequence[str | Path], build: bool = False) -> list[Outcome]:
    """Derive every config of some folders and patterns, with a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import track

    paths: dict[Path, str] = {}
    for place in places:
        for path in find_configs(place):
            inside = Path(place).is_dir()
            paths[path] = (path.relative_to(place) if inside else path).as_posix()
    built: set[str] | None = set() if build else None
    bar = track(paths.items(), 'deriving', len(paths), console=Console(stderr=True), transient=True)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return [derive_one(path, name, built) for path, name in bar]


def counts_table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: how many configs came to each end, and one of them."""
    first: dict[tuple[str, str], str] = {}
    for outcome in outcomes:
        first.setdefault(outcome[1:], outcome.config)
    rows = ['| configs | outcome | reason | for instance |', '|---:|---|---|---|']
    for (status, reason), number in Counter(o[1:] for o in outcomes).most_common():
        rows.append(f'| {number} | {status} | {reason} | `{first[status, reason]}` |')
    return '\n'.join(rows)


def write_record(file: str, outcomes: Sequence[Outcome], args: argparse.Namespace) -> None:
    """Write the outcomes with the versions and the command that they come from, as JSON."""
    import mmengine
    import mmseg

    import mm_tuning_plugin
    from mm_tuning_plugin.atomic_write import write_json

    options = [*args.configs, *(['--build'] if args.build else [])]
    record = dict(
        command=' '.join(['python tools/sweep_configs.py', *options]),
        mm_tuning_plugin=mm_tuning_plugin.__version__,
        mmengine=mmengine.__version__,
        mmsegmentation=mmseg.__version__,
        counts=Counter(outcome.status for outcome in outcomes),
        configs={o.config: ': '.join(filter(None, o[1:])) for o in outcomes},
    )
    write_json(file, record)


def main(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> None:
    """Run the command.

    Raises:
        UserError: There is no config.
        SystemExit: 1, if a config was neither derived nor refused with a reason.
    """
    args = build_parser(prog).parse_args(argv)
    require_stack()
    import mmseg

    own = Path(mmseg.__path__[0], '.mim', 'configs')
    outcomes = sweep(args.configs or [own], args.build)
    print(f'{len(outcomes)} configs of {", ".join(args.configs) or "mmseg " + mmseg.__version__}\n')
    print(counts_table(outcomes))
    if args.json:
        write_record(args.json, outcomes, args)
    failed = [outcome for outcome in outcomes if outcome.status == FAILED]
    for outcome in failed:
        print(f'{outcome.config}: {outcome.reason}', file=sys.stderr)
    if failed:
        raise SystemExit(1)


def entry(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> int:
    """Run the command and return its exit status."""
    return run(partial(main, prog=prog), argv)
