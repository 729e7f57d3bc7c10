"""What all pictures share: a matplotlib figure over an array, lines of text, and a legend.

Neither pyplot nor a display nor the user's rcParams have a part in it. matplotlib is imported when
something is drawn.

Shape legend: H, W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mm_tuning_plugin.extras import need_extra

from .images import FAINT, INK, blank, swatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 72  # a point is a pixel: sizes of letters, lines and markers are in pixels
_CAPITAL = 0.729  # height of a capital letter of DejaVu Sans, em
_EVEN = {'D': 0.8, '*': 1.3}  # factors that make markers look equally large
_EDGE = (0.15, 0.15, 0.15)  # of a marker
_ROW, _SWATCH, _GAP = 20, 14, 18  # of a legend: row, marker, gap between columns, pixels


@contextmanager
def drawing(page: np.ndarray) -> Iterator[Figure]:
    """Lends a figure of a picture's size; at the end it is drawn onto the picture.

    Args:
        page: (H, W, 3) uint8 RGB, written to.

    Yields:
        The figure, without a background. Its display units are pixels.

    Raises:
        UserError: The extra ``report`` is not installed.
    """
    need_extra('report')
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = page.shape[:2]
    # the next larger number, so that the canvas does not round a pixel away
    size = np.nextafter(width / _DPI, np.inf), np.nextafter(height / _DPI, np.inf)
    with matplotlib.style.context('default'):
        figure = Figure(figsize=size, dpi=_DPI, frameon=False)
        yield figure
        renderer = FigureCanvasAgg(figure).get_renderer()
        drawn = np.asarray(renderer.buffer_rgba())  # a view
        drawn[..., :3], drawn[..., 3] = page, 255
        figure.draw(renderer)
        page[:] = drawn[..., :3]


def pixel_axes(figure: Figure) -> Axes:
    """Adds axes without a frame over a whole figure; x is to the right, y downwards, in pixels."""
    width, height = figure.bbox.size
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return axes


def write(
    figure: Figure,
    x: float,
    y: float,
    line: str,
    size: int = 13,
    *,
    colour: Sequence[int] = INK,
    bold: bool = False,
    room: float | None = None,
    **more: Any,
) -> None:
    """Writes one line, the middle of its capital letters at a place.

    Args:
        figure: Of `drawing`.
        x: Start of the line, or its middle or end, depending on ``ha``, in pixels.
        y: Pixels, downwards.
        line: Anything that the font cannot show is spelled out.
        size: Of the letters, pixels.
        colour: RGB in 0..255.
        bold: Whether in bold letters.
        room: Maximum width in pixels. Longer text ends in an ellipsis.
        more: Arguments of `Figure.text`. A line with ``rotation=90`` begins at (x, y) and reads
            upwards.
    """
    line = _showable(line) if room is None else shorten(line, room, size, bold)
    offset = _CAPITAL * size / 2
    x, y = (x + offset, y) if more.get('rotation') == 90 else (x, y + offset)
    more |= dict(transform=None, rotation_mode='anchor', parse_math=False)
    look = dict(color=np.asarray(colour) / 255, fontproperties=_font(size, bold))
    figure.text(x, figure.bbox.height - y, line, **look, **more)


def mark(
    figure: Figure, x: float, y: float, shape: str, size: float, colour: Sequence[int]
) -> None:
    """Draws a marker ``size`` pixels across, with a thin dark edge, around a place in pixels."""
    from matplotlib.lines import Line2D

    look = dict(marker=shape, markersize=size * _EVEN.get(shape, 1.0), markeredgewidth=0.5)
    look |= dict(markerfacecolor=np.asarray(colour) / 255, markeredgecolor=_EDGE, transform=None)
    figure.add_artist(Line2D([x], [figure.bbox.height - y], **look))


def text_width(line: str, size: int = 13, bold: bool = False) -> float:
    """Returns the width of a line in pixels."""
    shown = _showable(line)
    return _measure().get_text_width_height_descent(shown, _font(size, bold), False)[0]


def shorten(line: str, room: float, size: int = 13, bold: bool = False) -> str:
    """Cuts a line to a width in pixels, with an ellipsis where something was cut off."""
    line = _showable(line)
    if text_width(line, size, bold) <= room:
        return line
    low, high = 0, len(line)  # the longest beginning that fits is in low..high-1
    while high - low > 1:
        middle = (low + high) // 2
        fits = text_width(line[:middle].rstrip() + '…', size, bold) <= room
        low, high = (middle, high) if fits else (low, middle)
    return line[:low].rstrip() + '…'


def marker_look(shape: str, size: float) -> dict:
    """Returns `Axes.scatter`'s arguments for markers that look as `mark` draws them."""
    area = (size * _EVEN.get(shape, 1.0)) ** 2
    return dict(marker=shape, s=area, linewidths=0.5, edgecolors=[_EDGE])


class Entry(NamedTuple):
    """One class of a legend: RGB in 0..255, and the shape of its marker or None for a square."""

    label: int
    name: str
    colour: Sequence[int]
    marker: str | None = None


def draw_legend(
    entries: Sequence[Entry], width: int, *, margin: int, max_rows: int = 6, scale: float = 1.0
) -> np.ndarray:
    """Draws a legend in columns as wide as their names, in the order of the classes.

    Args:
        entries: The most important first: what finds no place is counted in a last line.
        width: W, pixels.
        margin: On all sides, pixels.
        max_rows: Rows at most.
        scale: How much larger than usual everything is, for pages that will be looked at shrunk.

    Returns:
        (H, W, 3) uint8 RGB; H is 0 without entries.
    """
    if not entries:
        return blank(0, width)
    size, row, side, gap = (round(n * scale) for n in (12, _ROW, _SWATCH, _GAP))
    indent = side + gap // 3
    longest = max(text_width(entry.name, size) for entry in entries)
    for limit in (190, 130, 90, 130):  # of a name: the first with which all find a place, or 130
        column_width = math.ceil(min(longest, limit * scale)) + indent + gap
        columns = max(1, (width - 2 * margin + gap) // column_width)
        if len(entries) <= columns * max_rows:
            break
    lines = min(len(entries), columns * max_rows)
    hidden = len(entries) - lines + 1 if len(entries) > lines else 0
    shown = sorted(entries[: len(entries) - hidden], key=lambda entry: entry.label)
    rows = math.ceil(lines / columns)
    index = np.arange(lines)
    places = np.stack([index // rows * column_width, (index % rows + 0.5) * row], axis=1) + margin
    strip = blank(rows * row + 2 * margin, width)
    with drawing(strip) as figure:
        for (x, y), entry in zip(places, shown):
            if entry.marker:
                mark(figure, x + side / 2, y, entry.marker, side - 3, entry.colour)
            else:
                swatch(strip, round(y) - side // 2, int(x), side, side, entry.colour)
            write(figure, x + indent, y, entry.name, size, room=column_width - indent - gap + 1)
        if hidden:
            write(figure, *places[-1], f'and {hidden} more', size, colour=FAINT)
    return strip


def stack(*parts: np.ndarray) -> np.ndarray:
    """Sets pictures (H, W, 3) over each other, left-aligned on white."""
    width = max(part.shape[1] for part in parts)
    page = blank(sum(part.shape[0] for part in parts), width)
    top = 0
    for part in parts:
        page[top : top + part.shape[0], : part.shape[1]] = part
        top += part.shape[0]
    return page


@lru_cache(maxsize=64)
def _font(size: int, bold: bool) -> Any:
    import matplotlib
    from matplotlib.font_manager import FontProperties

    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    return FontProperties(fname=Path(matplotlib.get_data_path(), 'fonts', 'ttf', name), size=size)


@lru_cache(maxsize=1)
def _measure() -> Any:
    need_extra('report')
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(1, 1, _DPI)


@lru_cache(maxsize=1)
def _glyphs() -> frozenset:
    need_extra('report')
    from matplotlib.font_manager import get_font

    return frozenset(get_font(_font(12, False).get_file()).get_charmap())


def _showable(line: str) -> str:
    """Puts the line on one line, and spells out what the font lacks as ``U+4E2D``."""
    one_line = ' '.join(str(line).split())
    return ''.join(c if ord(c) in _glyphs() else f'U+{ord(c):04X}' for c in one_line)
