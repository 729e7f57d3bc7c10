"""Bars: how often each class occurs among the pixels, and how often among the nodes.

Shape legend: K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .checks import require
from .drawing import drawing, text_width, write
from .images import FAINT, INK, PAPER, WHITE, blank, swatch
from .palette import OKABE_ITO, as_classes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARGIN = 12  # around the page and between columns of rows, pixels
_HEADER = 58  # pixels
_ROW = 30  # pixels: two bars and a gap
_BAR = 11  # pixels
_LENGTH = 230  # of the longest bar, pixels
_FIGURE = 52  # room for a percentage, pixels
_ROWS = 40  # in one column, at most
_NAME = 170  # of a name, pixels at most
_WIDEST = 420  # of the key above the bars, pixels


def frequency_bars(
    pixel_shares: Sequence[float],
    node_shares: Sequence[float],
    class_names: Sequence[str],
    palette: np.ndarray | Sequence[Sequence[int]],
) -> np.ndarray:
    """Draws two bars for each class: its share of the pixels (hollow), of the nodes (its colour).

    Lengths grow with the square root, so that a class of a thousandth is still seen. The classes
    stand in their own order; many make several columns.

    Args:
        pixel_shares: K numbers in [0, 1].
        node_shares: K numbers in [0, 1].
        class_names: K names.
        palette: (K, 3) RGB in 0..255.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: if an argument has another length or range.
    """
    names, colours = as_classes(class_names, palette)
    pixels = _as_shares(pixel_shares, len(names), 'pixel_shares')
    nodes = _as_shares(node_shares, len(names), 'node_shares')
    room = math.ceil(min(max(text_width(name) for name in names), _NAME)) + 10
    column_width = room + _LENGTH + _FIGURE + _MARGIN
    columns = math.ceil(len(names) / _ROWS)
    depth = math.ceil(len(names) / columns)
    page = blank(_HEADER + depth * _ROW + _MARGIN, max(_WIDEST, _MARGIN + columns * column_width))
    longest = math.sqrt(max(pixels.max(), nodes.max(), 1e-9))
    with drawing(page) as figure:
        _write_key(page, figure)
        for index, name in enumerate(names):
            x, y = _MARGIN + index // depth * column_width, _HEADER + index % depth * _ROW
            if index % depth % 2 == 0:
                page[y - 2 : y + _ROW - 2, x - 4 : x + column_width - _MARGIN + 4] = PAPER
            x += room
            write(figure, x - 10, y + 13, name, ha='right', room=room - 10)
            for top, share, colour in (
                (y + 1, pixels[index], WHITE),
                (y + 14, nodes[index], colours[index]),
            ):
                length = round(_LENGTH * math.sqrt(share) / longest)
                swatch(page, top, x, _BAR, length, colour)
                ink = INK if share else FAINT
                write(figure, x + length + 5, top + 5.5, percentage(share), 11, colour=ink)
    return page


def percentage(share: float) -> str:
    """A share as a short percentage: 0.123 -> '12.3 %', 0.00004 -> '<0.01 %', 0 -> '0 %'."""
    percent = 100 * share
    if percent == 0:
        return '0 %'
    if percent < 0.01:
        return '<0.01 %'
    return f'{percent:.3g} %' if percent < 99.95 else '100 %'


def _write_key(page: np.ndarray, figure: Figure) -> None:
    title, left = 'How often each class occurs', _MARGIN + 170
    x = _MARGIN + text_width(title, 14, bold=True) + 10
    write(figure, _MARGIN, 16, title, 14, bold=True)
    room = page.shape[1] - _MARGIN - x
    write(figure, x, 16, '(lengths by square root)', 12, colour=FAINT, room=room)
    swatch(page, 32, _MARGIN, _BAR, 24, WHITE)
    write(figure, _MARGIN + 30, 37.5, 'among the pixels', 12)
    for place, colour in enumerate(OKABE_ITO[:3]):
        page[32 : 32 + _BAR, left + 8 * place : left + 8 * place + 8] = colour
    write(figure, left + 30, 37.5, 'among the nodes', 12)


def _as_shares(values: Sequence[float], count: int, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    require(array.shape == (count,), name, f'{count} numbers', f'shape {array.shape}')
    inside = ((array >= 0) & (array <= 1)).all()
    require(inside, name, 'numbers from 0 to 1', array[:4].tolist())
    return array
