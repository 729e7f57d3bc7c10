"""A legend that keeps to its place: columns as wide as their names, rows up to a limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from .canvas import FAINT, INK, Canvas, Colour, text_width

_SIZE = 12  # of the letters, pixels
_ROW = 20  # pixels
_SWATCH = 14  # pixels
_LONGEST = (190, 130, 90)  # of a name, pixels: the first with which all names find a place
_GAP = 18  # between columns, pixels


class Entry(NamedTuple):
    """One line of a legend.

    Attributes:
        name: The text.
        colour: RGB in 0..255 of its swatch; None for a line without one.
        marker: The matplotlib marker of the swatch; None for a filled square.
        order: Its place among those shown, the class.
    """

    name: str
    colour: Colour | None
    marker: str | None = None
    order: int = 0


class Legend(NamedTuple):
    """A legend that has been laid out.

    Attributes:
        entries: In reading order, downwards.
        rows: Rows in each column.
        column_width: Pixels.
        height: Pixels of the whole.
    """

    entries: tuple[Entry, ...]
    rows: int
    column_width: int
    height: int


def plan_legend(entries: Sequence[Entry], width: int, *, max_rows: int = 6) -> Legend:
    """Lays a legend out in a width.

    Args:
        entries: The lines, the most important first: what finds no place is counted in a last line.
        width: Pixels.
        max_rows: Rows at most.

    Returns:
        The layout; of height 0 where there is no entry.
    """
    if not entries:
        return Legend((), 0, 0, 0)
    longest = math.ceil(max(text_width(entry.name, size=_SIZE) for entry in entries))
    for limit in _LONGEST:
        column_width = min(longest, limit) + _SWATCH + 6 + _GAP
        columns = max(1, (width + _GAP) // column_width)
        room = columns * max_rows
        if len(entries) <= room:
            break
    kept = entries if len(entries) <= room else entries[: room - 1]
    shown = sorted(kept, key=lambda entry: entry.order)
    if len(kept) < len(entries):
        shown.append(Entry(f'and {len(entries) - len(kept)} more', None))
    rows = math.ceil(len(shown) / columns)
    return Legend(tuple(shown), rows, column_width, rows * _ROW)


def draw_legend(canvas: Canvas, legend: Legend, top: int, left: int) -> None:
    """Draws a legend on a canvas, its top left at a place in pixels."""
    for index, entry in enumerate(legend.entries):
        column, row = divmod(index, legend.rows)
        x, middle = left + column * legend.column_width, top + row * _ROW + _ROW // 2
        if entry.marker is not None:
            canvas.marker(middle, x + _SWATCH / 2, entry.marker, _SWATCH - 3, entry.colour)
        elif entry.colour is not None:
            canvas.fill(middle - _SWATCH // 2, x, _SWATCH, _SWATCH, FAINT)
            canvas.fill(middle - _SWATCH // 2 + 1, x + 1, _SWATCH - 2, _SWATCH - 2, entry.colour)
        indent = _SWATCH + 6 if entry.colour is not None else 0
        colour = INK if entry.colour is not None else FAINT
        width = legend.column_width - _GAP - indent
        canvas.text(middle, x + indent, entry.name, size=_SIZE, colour=colour, max_width=width)
