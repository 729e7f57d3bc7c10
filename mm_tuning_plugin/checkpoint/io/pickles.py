"""Which classes and functions a pickle names, found without running any of it."""

from __future__ import annotations

import contextlib
import pickletools
import struct
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from pathlib import Path
from typing import BinaryIO

MAX_STREAMS = 8
DAMAGED = (
    ValueError,
    OSError,
    EOFError,
    IndexError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def global_names(path: Path) -> list[str]:
    """Names (module.attribute) that the pickles of a file refer to, in order, once each.

    Reads the opcodes only (`pickletools`), so nothing is imported or called.

    Args:
        path: A file of ``torch.save``, zipped or legacy, or a bare pickle.
    """
    names: list[str] = []
    # DAMAGED: the end of what can be read as opcodes
    with contextlib.suppress(*DAMAGED):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    if member.endswith('data.pkl'):
                        with archive.open(member) as stream:
                            _scan(stream, names)  # type: ignore[arg-type]
        else:
            with open(path, 'rb') as stream:
                for _ in range(MAX_STREAMS):  # the legacy format is several pickles in a row
                    _scan(stream, names)
    return list(dict.fromkeys(map(modern_name, names)))


def modern_name(name: str) -> str:
    """Return the Python 3 name: pickles of protocol 2 have 'commands' for 'subprocess'."""
    module, _, attribute = name.rpartition('.')
    module, attribute = NAME_MAPPING.get((module, attribute), (module, attribute))
    return f'{IMPORT_MAPPING.get(module, module)}.{attribute}'.lstrip('.')


def _scan(stream: BinaryIO, names: list[str]) -> None:
    """Appends the globals of one pickle; strings are tracked for STACK_GLOBAL (protocol 4)."""
    strings: list[str] = []
    memo: dict[int, str] = {}
    last = ''
    for opcode, arg, _ in pickletools.genops(stream):
        if opcode.name == 'GLOBAL':
            names.append(str(arg).replace(' ', '.'))
        elif opcode.name == 'STACK_GLOBAL' and len(strings) >= 2:
            names.append(f'{strings[-2]}.{strings[-1]}')
        elif opcode.name in ('PUT', 'BINPUT', 'LONG_BINPUT'):
            memo[int(arg or 0)] = last
        elif opcode.name == 'MEMOIZE':
            memo[len(memo)] = last
        elif opcode.name in ('GET', 'BINGET', 'LONG_BINGET'):
            strings.append(memo.get(int(arg or 0), ''))
        elif isinstance(arg, str):
            strings.append(arg)
        if opcode.name not in ('PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE'):
            last = arg if isinstance(arg, str) else ''
