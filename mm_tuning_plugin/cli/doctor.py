"""``tools/doctor.py``: check what is installed, whether it works, and how to repair it.

Each finding is one line with its remedy. The doctor runs even if nothing is installed: it imports
other packages than the standard library only inside checks.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import platform
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.machinery import EXTENSION_SUFFIXES

from mm_tuning_plugin.cli.common.environment import (
    ERROR,
    INDEX_NAMES,
    NOTE,
    OK,
    Finding,
    check_stack,
    import_error,
    installed_version,
    release,
    remedy_for,
)
from mm_tuning_plugin.cli.common.run import run
from mm_tuning_plugin.cli.common.usage import add_run_options, make_parser
from mm_tuning_plugin.errors import UserError

SCRIPT = 'doctor.py'
PYTHON_MIN = (3, 9)
TORCH_MIN = '2.1'
TORCH_SAFE = '2.6'  # loads checkpoints safely (CVE-2025-32434) and allow-lists by name
PACKAGES = ('numpy', 'scipy', 'sklearn', 'matplotlib', 'safetensors', 'packaging', 'rich')


def build_parser(prog: str = SCRIPT) -> argparse.ArgumentParser:
    """The options of the command."""
    parser = make_parser(
        prog,
        'Say what is installed, whether it will work, and how to mend what will not. With a '
        'config, also look at its data, its start and the room on the disk, and run two steps of '
        'both stages in a temporary folder, of which nothing stays.',
        ['', 'my_config.py --ssl-checkpoint moco_r50.pth'],
        {'0': 'usable', '2': 'not usable: the last line on stderr says what to mend first'},
    )
    parser.add_argument('config', nargs='?', help='a config of an mmseg project')
    add_run_options(parser)
    parser.add_argument('--no-trial', action='store_true', help='leave out the two steps')
    parser.add_argument(
        '--trial-seconds', type=int, metavar='N', default=300, help='stop the two steps then (300)'
    )
    return parser


def diagnose() -> list[Finding]:
    """All findings, in the order in which they are best mended.

    A check that builds on a broken one is left out: one cause, one line.
    """
    findings: list[Finding] = [check_python(), check_plugin()]
    torch = check_torch()
    findings += torch
    if _sound(torch):
        findings.append(check_devices())
    stack = check_stack(try_imports=_sound(torch))  # they cannot be imported without torch
    findings += stack
    packages = check_packages()
    findings += packages
    if _sound([*torch, *stack, *packages]):
        findings.append(check_ops())
        findings += check_locations()
    return findings


def check_python() -> Finding:
    """The interpreter's version."""
    version = platform.python_version()
    if sys.version_info[:2] < PYTHON_MIN:
        needed = '.'.join(map(str, PYTHON_MIN))
        return Finding(ERROR, 'python', version, f'use Python {needed} or later')
    return Finding(OK, 'python', version)


def check_plugin() -> Finding:
    """Whether this package is installed, so that ``mm_tuning_plugin.X`` resolves in any config."""
    version = installed_version('mm_tuning_plugin')
    if version is None:
        return Finding(ERROR, 'mm_tuning_plugin', 'not installed', 'pip install -e .')
    return Finding(OK, 'mm_tuning_plugin', version)


def check_torch() -> list[Finding]:
    """Torch's version, and whether it imports."""
    version = installed_version('torch')
    if version is None:
        return [Finding(ERROR, 'torch', 'not installed', "pip install 'torch>=2.6'")]
    if release(version) < release(TORCH_MIN):
        return [Finding(ERROR, 'torch', version, f"pip install 'torch>={TORCH_SAFE}'")]
    error = import_error('torch')
    if error:
        return [Finding(ERROR, 'torch', f'{version}, import fails: {error}', remedy_for(error))]
    if release(version) < release(TORCH_SAFE):
        found = f'{version}: checkpoints with pickled arguments are refused, safe loading is not'
        return [Finding(NOTE, 'torch', found, f"pip install 'torch>={TORCH_SAFE}'")]
    return [Finding(OK, 'torch', version)]


def check_devices() -> Finding:
    """CUDA devices and NCCL; their absence is no fault."""
    import torch

    if not torch.cuda.is_available():
        return Finding(NOTE, 'cuda', 'no device: everything runs on the CPU, slowly')
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
    found = f'{len(names)} x {names[0]}, ' + ('NCCL' if nccl else 'no NCCL')
    if len(names) > 1 and not nccl:
        return Finding(NOTE, 'cuda', found, 'a torch build with NCCL is needed for several GPUs')
    return Finding(OK, 'cuda', found)


def check_packages() -> list[Finding]:
    """The other packages that this one is built on."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if not missing:
        return [Finding(OK, 'packages', ', '.join(PACKAGES))]
    names = ' '.join(INDEX_NAMES.get(name, name) for name in missing)
    return [Finding(ERROR, 'packages', f'{names} missing', f'pip install {names}')]


def check_ops() -> Finding:
    """Whether mmcv has compiled operators; nothing of this package uses them.

    Python source in their place is a stub, which lets the original mmseg import and no more.
    """
    spec = importlib.util.find_spec('mmcv._ext')
    needs = 'nothing here needs them, a few heads of mmseg do'
    if spec is None:
        return Finding(OK, 'mmcv ops', f'not compiled; {needs}')
    if str(spec.origin).endswith(tuple(EXTENSION_SUFFIXES)):
        return Finding(OK, 'mmcv ops', 'compiled; nothing here needs them')
    found = f'not compiled: {spec.origin} is a stub of them; {needs}'
    return Finding(NOTE, 'mmcv ops', found, 'an mmcv with compiled ops, where one is called')


def check_locations() -> list[Finding]:
    """Whether every module that our registries import by name does import."""
    error = import_error('mm_tuning_plugin.registry')
    if error:
        return [Finding(ERROR, 'registry', f'fails: {error}', remedy_for(error))]
    registries = importlib.import_module('mm_tuning_plugin.registry').REGISTRIES
    locations = sorted({place for registry in registries for place in registry._locations})
    findings = []
    for location in locations:
        error = import_error(location)
        if error:
            findings.append(Finding(ERROR, location, f'fails: {error}', remedy_for(error)))
    return findings or [Finding(OK, 'registry', f'{len(locations)} locations import')]


def show(finding: Finding) -> str:
    """One line for one finding."""
    remedy = f'  ->  {finding.remedy}' if finding.remedy else ''
    return f'{finding.level:<6} {finding.subject}: {finding.found}{remedy}'


def main(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> None:
    """Print the findings, each as soon as it is known.

    Raises:
        UserError: If one of them is an error, or an option makes no sense.
    """
    args = build_parser(prog).parse_args(argv)
    _check_options(args)
    errors = []
    for finding in _all_findings(args):
        print(show(finding), flush=True)
        errors += [finding] if finding.level == ERROR else []
    if errors:
        first = errors[0]
        raise UserError(
            first.subject, f'{first.found} (not usable, {len(errors)} to mend)', first.remedy
        )
    print('usable')


def _all_findings(args: argparse.Namespace) -> Iterator[Finding]:
    """The installation's, then, if that is sound, the config's."""
    findings = diagnose()
    yield from findings
    if args.config is not None and _sound(findings):
        from mm_tuning_plugin.cli.common.config_checks import examine

        yield from examine(args)


def _check_options(args: argparse.Namespace) -> None:
    if args.trial_seconds < 1:
        raise UserError(
            '--trial-seconds', f'{args.trial_seconds} found', 'expected an integer of at least 1'
        )
    for name in ('ssl_checkpoint', 'allow_pickle', 'work_dir', 'cfg_options', 'no_trial'):
        if args.config is None and getattr(args, name):
            option = '--' + name.replace('_', '-')
            raise UserError(option, 'found without a config', 'expected CONFIG before it')


def entry(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> int:
    """Run the command; return its exit status."""
    return run(partial(main, prog=prog), argv)


def _sound(findings: Sequence[Finding]) -> bool:
    return all(finding.level != ERROR for finding in findings)


if __name__ == '__main__':
    sys.exit(entry())
