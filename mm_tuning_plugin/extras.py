"""Extras of the installation: packages that training does not need."""

from __future__ import annotations

from importlib.util import find_spec

from mm_tuning_plugin.errors import UserError

REPORT = ('matplotlib', 'jinja2', 'sklearn')
EXTRAS = {'report': REPORT, 'benchmark': (*REPORT, 'pandas', 'scipy')}


def missing_packages(extra: str) -> list[str]:
    """The packages of an extra that are not installed."""
    return [name for name in EXTRAS[extra] if find_spec(name) is None]


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
