"""Import every module of a package, so that a new file registers itself by being there."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType


def import_modules(package: str, folder: Iterable[str]) -> list[ModuleType]:
    """Import every module of a package and return them, sorted by name.

    Args:
        package: Its ``__name__``.
        folder: Its ``__path__``.
    """
    found = sorted(module.name for module in pkgutil.iter_modules(folder))
    return [importlib.import_module(f'{package}.{name}') for name in found]
