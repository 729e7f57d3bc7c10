"""Extras of the installation: packages that training does not need."""

from __future__ import annotations

import importlib

from mm_tuning_plugin.errors import UserError

REPORT = ('matplotlib', 'jinja2', 'sklearn')
EXTRAS = {'report': REPORT, 'benchmark': (*REPORT, 'pandas', 'scipy')}


def missing_packages(extra: str) -> list[str]:
    """The packages of an extra that cannot be imported."""
    missing = []
    for name in EXTRAS[extra]:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    return missing


def need_extra(extra: str) -> None:
    """Check that the packages of an extra are installed.

    Raises:
        UserError: One is not.
    """
    missing = missing_packages(extra)
    if missing:
        raise UserError(
            extra,
            f'{", ".join(missing)} not installed',
            f"pip install 'mm_tuning_plugin[{extra}]'",
        )
