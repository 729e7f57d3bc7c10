"""The mixed nodes of a batch, sorted by class.

Shape legend: N nodes, S x S pixels of a patch, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .canvas import FAINT, Canvas, resize, text_width
from .checks import as_labels, as_names, as_patches, as_size
from .palette import as_palette, text_colour

_MARGIN = 10  # around the page, pixels
_HEADER = 28  # pixels
_FOOTER = 22  # pixels
_BORDER = 3  # of a tile, in the colour of its class, pixels
_GAP = 4  # between tiles and between rows, pixels
_COLUMN_GAP = 24  # pixels
_LOOK = 1.5  # width over height that a page of several columns comes near to


class _Row(NamedTuple):
    """One class of the page: its index, how many nodes it has, which of them are shown."""

    label: int
    count: int
    shown: np.ndarray  # indices of nodes


def patch_mosaic(
    patches: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    palette: np.ndarray | Sequence[Sequence[int]],
    *,
    max_per_class: int = 8,
    tile: int = 64,
    width: int | None = None,
) -> np.ndarray:
    """Shows nodes in rows, one for each class that has any, in the order of the classes.

    At the left of a row the class's name and number of nodes on its colour, then its first nodes,
    framed in it. Many classes make several columns of rows.

    Args:
        patches: (N, S, S, 3) uint8 RGB.
        labels: (N,) integers in 0..K-1.
        class_names: K names.
        palette: (K, 3) RGB in 0..255.
        max_per_class: Nodes shown at most in a row; the count beside the name is of all.
        tile: Side of a shown patch, pixels, at least 8.
        width: What several columns of rows should come near to without being wider, pixels. None:
            as many columns as make a landscape page. One column may be wider.

    Returns:
        (H, W, 3) uint8 RGB. Without nodes a page that says so.

    Raises:
        ValueError: if an argument has another shape, type or range.
    """
    names = as_names(class_names)
    colours = as_palette(palette, len(names))
    patches = as_patches(patches, 'patches')
    labels = as_labels(labels, len(names), 'labels', count=len(patches))
    max_per_class, tile = as_size(max_per_class, 'max_per_class'), as_size(tile, 'tile', minimum=8)
    width = width if width is None else as_size(width, 'width')
    rows = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rows.append(_Row(int(label), len(members), members[:max_per_class]))
    return _page(rows, patches, names, colours, tile, width)


def _page(
    rows: list[_Row],
    patches: np.ndarray,
    names: list[str],
    colours: np.ndarray,
    tile: int,
    room: int | None,
) -> np.ndarray:
    """Lays the rows out in columns and draws them."""
    cell = tile + 2 * _BORDER
    height = max(cell, 24)
    one_line = height < 40
    lines = [_caption(row, names) + (f' × {row.count}' if one_line else '') for row in rows]
    longest = max((text_width(line, bold=True) for line in lines), default=0)
    if not one_line:
        counts = (text_width(_count(row), size=12) for row in rows)
        longest = max((longest, *counts))
    chip = math.ceil(min(max(longest + 16, 80), 200))
    columns = _columns(rows, chip, cell, height, room)
    widths = [_column_width(column, chip, cell) for column in columns]
    width = max(380, sum(widths) - _COLUMN_GAP + 2 * _MARGIN)
    deepest = max((len(column) for column in columns), default=0) * (height + _GAP)
    footer = _FOOTER if len(rows) < len(names) else 0
    canvas = Canvas(_HEADER + deepest + footer + _MARGIN, width)
    _write_summary(canvas, rows, names)
    left = _MARGIN
    for column, column_width in zip(columns, widths):
        for index, row in enumerate(column):
            top = _HEADER + _GAP + index * (height + _GAP)
            colour = tuple(colours[row.label])
            canvas.fill(top, left, height, chip, colour)
            _write_chip(canvas, row, _caption(row, names), top, left, chip, height, colour)
            for place, node in enumerate(row.shown):
                x, y = left + chip + _GAP + place * (cell + _GAP), top + (height - cell) // 2
                canvas.fill(y, x, cell, cell, colour)
                how = 'area' if patches.shape[1] > tile else 'smooth'
                canvas.paste(y + _BORDER, x + _BORDER, resize(patches[node], tile, tile, how))
        left += column_width
    return canvas.render()


def _column_width(column: list[_Row], chip: int, cell: int) -> int:
    """Returns the width of a column of rows with the gap after it, pixels."""
    return chip + max(len(row.shown) for row in column) * (cell + _GAP) + _COLUMN_GAP


def _columns(
    rows: list[_Row], chip: int, cell: int, height: int, room: int | None
) -> list[list[_Row]]:
    """Splits the rows into as many columns as suit the page."""
    if not rows:
        return []
    best, least = [rows], math.inf
    for count in range(1, len(rows) + 1):
        depth = math.ceil(len(rows) / count)
        columns = [rows[start : start + depth] for start in range(0, len(rows), depth)]
        width = sum(_column_width(column, chip, cell) for column in columns)
        if room is None:
            badness = abs(math.log(width / (depth * (height + _GAP)) / _LOOK))
        else:
            badness = depth if width - _COLUMN_GAP + 2 * _MARGIN <= room else math.inf
        if badness < least:
            best, least = columns, badness
    return best


def _caption(row: _Row, names: list[str]) -> str:
    return names[row.label] or f'class {row.label}'


def _count(row: _Row) -> str:
    hidden = row.count - len(row.shown)
    return f'{row.count}, {len(row.shown)} shown' if hidden else f'{row.count}'


def _write_chip(
    canvas: Canvas,
    row: _Row,
    caption: str,
    top: int,
    left: int,
    width: int,
    height: int,
    colour: tuple,
) -> None:
    """Writes a class's name and its number of nodes on its colour, in one line if it is low."""
    ink, middle = text_colour(colour), top + height / 2
    if height < 40:
        count = f'× {row.count}'
        room = width - 20 - text_width(count, size=12)
        canvas.text(middle, left + 6, caption, size=12, colour=ink, max_width=room)
        canvas.text(middle, left + width - 6, count, size=12, colour=ink, align='right')
        return
    canvas.text(middle - 9, left + 8, caption, colour=ink, bold=True, max_width=width - 14)
    canvas.text(middle + 11, left + 8, _count(row), size=12, colour=ink, max_width=width - 14)


def _write_summary(canvas: Canvas, rows: list[_Row], names: list[str]) -> None:
    """Writes what the page holds above it, and which classes it lacks below."""
    height, width = canvas.pixels.shape[:2]
    total = sum(row.count for row in rows)
    line = f'{total} node{"" if total == 1 else "s"}, {len(rows)} of {len(names)} classes'
    room = width - 2 * _MARGIN
    canvas.text(_HEADER / 2, _MARGIN, line, size=14, bold=True, max_width=room)
    present = {row.label for row in rows}
    absent = [name or f'class {i}' for i, name in enumerate(names) if i not in present]
    if absent:
        line = f'without a node ({len(absent)}): ' + ', '.join(absent)
        middle = height - _MARGIN - _FOOTER / 2 + 4
        canvas.text(middle, _MARGIN, line, size=12, colour=FAINT, max_width=room)
