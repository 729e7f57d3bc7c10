"""Is there a usable OpenMMLab stack? Found out from installed metadata first, imports second.

Two families of distributions own the import names mmengine, mmcv and mmseg: the living fork
(onedl-*) and the originals. pip does not know that they overwrite each other, so this package
requires neither and looks here before a command imports them. Nothing but the standard library is
imported at module level: the check must run where torch and all of OpenMMLab are missing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import io
import re
import warnings
from contextlib import redirect_stdout
from typing import NamedTuple

from mm_tuning_plugin.errors import UserError

OK, NOTE, ERROR = 'ok', 'note', 'error'
MODULES = ('mmengine', 'mmcv', 'mmseg')
# mmseg imports without its models, and the original's models do not import without compiled ops.
IMPORTS = (*MODULES, 'mmseg.models', 'mmseg.datasets')
INSTALL_FORK = "pip install -e '.[fork]'"


class Finding(NamedTuple):
    """One line of a diagnosis.

    Attributes:
        level: 'ok', 'note' (works, worth knowing) or 'error' (does not work).
        subject: What was checked.
        found: The result.
        remedy: How to correct it; '' if nothing is wrong.
    """

    level: str
    subject: str
    found: str
    remedy: str = ''


class Distribution(NamedTuple):
    """One package on the index that provides one of the import names.

    Attributes:
        name: As pip knows it.
        module: The import name that it owns.
        family: 'fork' or 'original'.
        lowest: First version that is supported.
        below: First version that no longer is.
        pin: The version that the tests run with.
    """

    name: str
    module: str
    family: str
    lowest: str
    below: str
    pin: str


DISTRIBUTIONS = (
    Distribution('onedl-mmengine', 'mmengine', 'fork', '0.10.8', '0.11', '0.10.12'),
    Distribution('onedl-mmcv', 'mmcv', 'fork', '2.3', '2.4', '2.3.6'),
    Distribution('onedl-mmsegmentation', 'mmseg', 'fork', '1.3', '1.5', '1.4.2'),
    Distribution('mmengine', 'mmengine', 'original', '0.10.3', '0.11', '0.10.7'),
    Distribution('mmcv', 'mmcv', 'original', '2.0', '2.2', '2.1.0'),
    Distribution('mmcv-lite', 'mmcv', 'original', '2.0', '2.2', '2.1.0'),
    Distribution('mmcv-full', 'mmcv', 'original', '2.0', '2.2', '2.1.0'),
    Distribution('mmsegmentation', 'mmseg', 'original', '1.2', '1.3', '1.2.2'),
)

# Import name -> name on the package index, where they differ.
INDEX_NAMES = {
    'PIL': 'Pillow',
    'cv2': 'opencv-python-headless',
    'sklearn': 'scikit-learn',
    'yaml': 'PyYAML',
}
# Message of a failed import -> remedy.
_REMEDIES = (
    (r'libGL|libgthread', 'pip install opencv-python-headless, or install libgl1'),
    (r'pkg_resources', "pip install 'setuptools<82'"),
    (
        r'mmcv\._ext',
        f'this mmseg needs an mmcv with compiled ops: install such a wheel, or {INSTALL_FORK}',
    ),
    (r'_ARRAY_API|numpy\.core|compiled using NumPy 1', "pip install 'numpy<2', or a newer package"),
)


def check_stack(try_imports: bool = True) -> list[Finding]:
    """Looks at the OpenMMLab packages: which family, both or mixed, versions, do they import.

    Args:
        try_imports: Whether to import them; they are imported only if their metadata is sound.

    Returns:
        Findings, in the order of the questions.
    """
    findings = _check_distributions()
    if not try_imports or any(finding.level == ERROR for finding in findings):
        return findings
    for module in IMPORTS:
        error = import_error(module)
        if error:
            findings.append(
                Finding(ERROR, f'import {module}', f'fails: {error}', remedy_for(error))
            )
            break
    else:
        findings.append(Finding(OK, 'imports', ', '.join(IMPORTS)))
    return findings


def require_stack() -> None:
    """Makes sure that mmengine, mmcv and mmseg can be imported; call it before importing them.

    Raises:
        UserError: With the first problem and its remedy.
    """
    for finding in check_stack():
        if finding.level == ERROR:
            remedy = finding.remedy or 'expected a working OpenMMLab stack'
            raise UserError(
                finding.subject, finding.found, f'{remedy} (python tools/doctor.py says more)'
            )


def installed_version(name: str) -> str | None:
    """The version of a distribution from its metadata, None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def import_error(module: str) -> str | None:
    """Imports a module and returns why it failed, in one line; None if it did not."""
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            importlib.import_module(module)
    except Exception as error:  # a broken installation raises anything; it becomes a finding
        first = (str(error).strip().splitlines() or [''])[0]
        return f'{type(error).__name__}: {first}'[:200]
    return None


def missing_package(error: BaseException | None) -> str | None:
    """Return the missing top-level package from an error, also from a wrapped one."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            return error.name.split('.')[0]
        error = error.__cause__ or error.__context__
    return None


def remedy_for(error: str) -> str:
    """What to do about a failed import."""
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, error):
            return remedy
    missing = re.search(r"No module named '([\w-]+)", error)
    if not missing:
        return f'install the pinned versions: {INSTALL_FORK}'
    name = missing.group(1)
    if name in MODULES:
        return INSTALL_FORK
    return (
        'pip install -e .'
        if name == 'mm_tuning_plugin'
        else f'pip install {INDEX_NAMES.get(name, name)}'
    )


def release(version: str) -> tuple[int, ...]:
    """'2.13.0+cpu' -> (2, 13, 0): enough for ranges, without needing `packaging`."""
    return tuple(int(part) for part in re.findall(r'\d+', version.split('+')[0])[:3])


def _check_distributions() -> list[Finding]:
    """Read the metadata without importing anything."""
    have = [(d, v) for d in DISTRIBUTIONS for v in [installed_version(d.name)] if v is not None]
    for module in MODULES:
        owners = [f'{d.name} {version}' for d, version in have if d.module == module]
        if len(owners) > 1:
            return [
                Finding(
                    ERROR,
                    module,
                    f'{" and ".join(owners)} are both installed and overwrite each other',
                    f'pip uninstall -y {" ".join(d.name for d, _ in have)}, then {INSTALL_FORK}',
                )
            ]
    families = sorted({d.family for d, _ in have})
    if len(families) > 1:
        names = ', '.join(f'{d.name} {version}' for d, version in have)
        return [
            Finding(
                ERROR,
                'OpenMMLab packages',
                f'a mixture of the fork and the originals: {names}',
                f'pip uninstall -y {" ".join(d.name for d, _ in have)}, then {INSTALL_FORK}',
            )
        ]
    findings = []
    owned = {d.module for d, _ in have}
    for module in MODULES:
        if module not in owned:
            findings.append(_unowned(module, families))
    findings += [_check_version(d, version) for d, version in have]
    return findings


def _unowned(module: str, families: list[str]) -> Finding:
    """A module that no known distribution provides: missing, or a bare source tree."""
    if _on_path(module):
        return Finding(NOTE, module, 'a source tree without metadata: its version is not checked')
    remedy = "pip install -e '.[original]'" if families == ['original'] else INSTALL_FORK
    return Finding(ERROR, module, 'not installed', remedy)


def _on_path(module: str) -> bool:
    """Whether a top-level module can be found; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _check_version(distribution: Distribution, version: str) -> Finding:
    d = distribution
    subject, found = d.module, f'{d.name} {version} ({d.family})'
    if release(d.lowest) <= release(version) < release(d.below):
        return Finding(OK, subject, found)
    expected = f'outside {d.lowest} <= version < {d.below}'
    # mmseg itself refuses an mmcv outside its range; others may work and are reported only
    level = ERROR if (d.family, d.module) == ('original', 'mmcv') else NOTE
    return Finding(level, subject, f'{found}, {expected}', f'pip install {d.name}=={d.pin}')
