"""What a split file (``ann_file``) holds that cannot be seen, but makes names of no file.

mmseg takes a line for a name: spaces around it are removed, the suffix of images or label maps is
added. A byte-order mark, a blank line or a suffix that is there already becomes part of the name.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Mapping

from mmengine.dataset import BaseDataset
from mmengine.fileio import list_from_file

BYTE_ORDER_MARK = '\ufeff'
SUFFIXES = (
    '.bmp', '.jpeg', '.jpg', '.npy', '.npz', '.png', '.ppm', '.tif', '.tiff', '.webp',
)  # fmt: skip


def split_hint(leaf: BaseDataset, key: str, path: str) -> tuple[str, str]:
    """Find what is unusual about the line of a split file that names a missing file.

    Args:
        leaf: The data set, built, without wrapper.
        key: ``img_path`` or ``seg_map_path``.
        path: Of the missing file.

    Returns:
        What is found there, and its remedy, for the message that the file is missing; both empty
        where nothing is unusual.
    """
    ann_file = getattr(leaf, 'ann_file', None)
    prefix = getattr(leaf, 'data_prefix', None)
    suffix = getattr(leaf, 'img_suffix' if key == 'img_path' else 'seg_map_suffix', None)
    root = prefix.get(key) if isinstance(prefix, Mapping) else None
    if not ann_file or not isinstance(suffix, str) or not isinstance(root, str):
        return '', ''
    try:
        lines = list_from_file(ann_file, backend_args=getattr(leaf, 'backend_args', None))
    except Exception:  # it serves a message about another failure, which it must not hide
        return '', ''
    for number, line in enumerate(lines, start=1):
        if os.path.join(root, line.strip() + suffix) == path:
            found, remedy = describe_line(line, number, suffix)
            return (f'{ann_file}: {found}', remedy) if found else ('', '')
    return '', ''


def describe_line(line: str, number: int, suffix: str) -> tuple[str, str]:
    """Return what is unusual about a line of a split file, and its remedy; empty for nothing.

    Args:
        line: As read, without the line break.
        number: From 1.
        suffix: That mmseg adds to it.
    """
    name = line.strip()
    if not name:
        return f'line {number} is blank', 'remove it'
    if name.startswith(BYTE_ORDER_MARK):
        where = 'it' if number == 1 else f'line {number}'
        return f'{where} starts with a byte-order mark', 'save it as UTF-8 without one'
    if not name.isprintable():
        return f'line {number} is {line!r}', 'remove what cannot be seen'
    suffixes = (suffix.lower(), *SUFFIXES)
    parts = name.lower().replace(',', ' ').split()
    if len(parts) > 1 and parts[0].endswith(suffixes):
        return f'line {number} is {line!r}', 'expected one name a line, without suffix'
    if name.lower().endswith(suffixes):
        return (
            f'line {number} is {line!r}, a name with a suffix, and {suffix!r} is added to it',
            'expected names without suffix',
        )
    return '', ''


def wrong_encoding(path: object) -> bool:
    """Whether a split file is UTF-16, as some editors and shells write text."""
    try:
        with open(path, 'rb') as file:
            head = file.read(2)
    except (OSError, TypeError):
        return False
    return head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
