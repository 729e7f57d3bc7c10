"""Why torch could not read a file, in one line, and what helps; nothing is advised that does not.

``allow_pickle`` runs the code of a file, so it helps only where that code is installed.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from mm_tuning_plugin.checkpoint.io.array_pickles import NAMES
from mm_tuning_plugin.checkpoint.io.pickles import global_names, modern_name
from mm_tuning_plugin.checkpoint.io.safe_globals import ALLOWS_NAMES, STAND_INS

_ALLOW = 'or --allow-pickle (allow_pickle=True) if you trust its origin'
_PLAIN = ('collections.OrderedDict', 'collections.Counter', '_codecs.encode', 'torch.Size')


def reason(
    path: Path, error: Exception, allow_pickle: bool, pickled: bool, plain: bool
) -> tuple[str, str]:
    """Why a file could not be read.

    Args:
        path: The file.
        error: The exception.
        allow_pickle: Whether its code was allowed to run.
        pickled: Whether it begins as a file of torch's or a pickle does.
        plain: Whether it is one plain pickle, which torch has not written.

    Returns:
        The problem and the remedy, as `UserError` takes them.
    """
    message = str(error)
    found = re.search(r'GLOBAL ([\w.]+)', message)
    if not allow_pickle:
        known = NAMES if plain else _PLAIN
        foreign = [modern_name(found.group(1))] if found else []
        foreign += [name for name in global_names(path) if not _known(name, known, plain)]
        if foreign:
            return _refused(foreign)
        if pickled and not plain and 'Unsupported operand' in message:
            return (
                'written with another pickle protocol than torch.save uses, which the safe loader '
                'does not read',
                f'expected a file of torch.save, {_ALLOW}',
            )
    missing = re.search(r"No module named '([\w.]+)'", message)
    if missing:
        return (
            f"needs the package '{missing.group(1)}', which is not installed",
            'expected a file of tensors alone: save them where it is, '
            'torch.save(model.state_dict(), FILE)',
        )
    writer = 'a pickle of arrays' if plain else 'torch.save'
    damage = r'EOF|corrupt|truncated|failed (finding|reading)|bytes$'
    if isinstance(error, EOFError) or re.search(damage, message):
        return f'truncated or damaged ({first_line(error)})', f'expected a whole file of {writer}'
    reader = 'as a pickle of arrays' if plain else 'by torch.load'
    return (
        f'cannot be read {reader} ({first_line(error)})',
        f'expected {"a pickle of arrays" if plain else "a file of torch.save"}',
    )


def first_line(error: Exception) -> str:
    """The first line of a message, short."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip('.')[:160]


def _refused(foreign: list[str]) -> tuple[str, str]:
    """Problem and remedy of names that could run code."""
    absent = next((name for name in foreign if not _is_installed(name)), None)
    refused = f'holds a pickled {foreign[0]}, which could run code and was refused'
    if absent:
        return (
            f"{refused}; '{absent.split('.')[0]}' is not installed, so it cannot be allowed either",
            'expected tensors and plain containers: save the weights alone where it is installed, '
            'torch.save(model.state_dict(), FILE)',
        )
    return refused, f'expected tensors and plain containers, {_ALLOW}'


def _is_installed(name: str) -> bool:
    """Whether the package of a dotted name can be found; nothing of it is imported."""
    if '.' not in name:  # one of Python's own
        return True
    try:
        return importlib.util.find_spec(name.split('.')[0]) is not None
    except (ImportError, ValueError):  # __main__ of another program
        return False


def _known(name: str, known: tuple[str, ...], plain: bool) -> bool:
    """Whether the safe loader accepts a global of this name."""
    if plain:
        return name in known
    return (
        (ALLOWS_NAMES and name in STAND_INS)
        or name in known
        or name.startswith(('torch._utils.', 'torch.nn.parameter.', 'torch.storage.'))
        or (name.startswith('torch.') and name.count('.') == 1)
    )
