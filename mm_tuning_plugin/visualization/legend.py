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
_ELSE = 130  # of a name where they do not, pixels
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
        scale: How much larger than usual everything is.
    """

    entries: tuple[Entry, ...]
    rows: int
    column_width: int
    height: int
    scale: float


def plan_legend(
    entries: Sequence[Entry], width: int, *, max_rows: int = 6, scale: float = 1.0
) -> Legend:
    """Lays a legend out in a width.

    Args:
        entries: The lines, the most important first: what finds no place is counted in a last line.
        width: Pixels.
        max_rows: Rows at most.
        scale: How much larger than usual everything is, for pages that will be looked at shrunk.

    Returns:
        The layout; of height 0 where there is no entry.
    """
    if not entries:
        return Legend((), 0, 0, 0, scale)
    longest = max(text_width(entry.name, size=_SIZE) for entry in entries)
    for limit in (*_LONGEST, _ELSE):
        column_width = math.ceil((min(longest, limit) + _SWATCH + 6 + _GAP) * scale)
        columns = max(1, int((width + _GAP * scale) // column_width))
        if len(entries) <= columns * max_rows:
            break
    kept = entries
    if len(entries) > columns * max_rows:
        kept = entries[: columns * max_rows - 1]
    shown = sorted(kept, key=lambda entry: entry.order)
    if len(kept) < len(entries):
        shown.append(Entry(f'and {len(entries) - len(kept)} more', None))
    rows = math.ceil(len(shown) / columns)
    return Legend(tuple(shown), rows, column_width, math.ceil(rows * _ROW * scale), scale)


def draw_legend(canvas: Canvas, legend: Legend, top: int, left: int) -> None:
    """Draws a legend on a canvas, its top left at a place in pixels."""
    size, swatch = round(_SIZE * legend.scale), round(_SWATCH * legend.scale)
    for index, entry in enumerate(legend.entries):
        column, row = divmod(index, legend.rows)
        x, middle = (
            left + column * legend.column_width,
            top + round((row + 0.5) * _ROW * legend.scale),
        )
        if entry.marker is not None:
            canvas.marker(middle, x + swatch / 2, entry.marker, swatch - 3, entry.colour)
        elif entry.colour is not None:
            canvas.fill(middle - swatch // 2, x, swatch, swatch, FAINT)
            canvas.fill(middle - swatch // 2 + 1, x + 1, swatch - 2, swatch - 2, entry.colour)
        indent = swatch + round(6 * legend.scale) if entry.colour is not None else 0
        colour = INK if entry.colour is not None else FAINT
        room = legend.column_width - _GAP * legend.scale - indent + 1
        canvas.text(middle, x + indent, entry.name, size=size, colour=colour, max_width=room)
