"""Bars: how often each class occurs among the pixels, and how often among the nodes.

Shape legend: K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .canvas import FAINT, INK, PAPER, WHITE, Canvas, text_width
from .checks import as_names
from .palette import OKABE_ITO, as_palette

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
    names = as_names(class_names)
    colours = as_palette(palette, len(names))
    pixels = _as_shares(pixel_shares, len(names), 'pixel_shares')
    nodes = _as_shares(node_shares, len(names), 'node_shares')
    labels = [name or f'class {i}' for i, name in enumerate(names)]
    room = math.ceil(min(max(text_width(label) for label in labels), _NAME)) + 10
    column_width = room + _LENGTH + _FIGURE + _MARGIN
    columns = math.ceil(len(names) / _ROWS)
    depth = math.ceil(len(names) / columns)
    width = max(_WIDEST, _MARGIN + columns * column_width)
    canvas = Canvas(_HEADER + depth * _ROW + _MARGIN, width)
    _write_key(canvas)
    longest = math.sqrt(max(pixels.max(), nodes.max(), 1e-9))
    for index, label in enumerate(labels):
        column, row = divmod(index, depth)
        left, top = _MARGIN + column * column_width, _HEADER + row * _ROW
        if row % 2 == 0:
            canvas.fill(top - 2, left - 4, _ROW, column_width - _MARGIN + 8, PAPER)
        canvas.text(top + 13, left + room - 10, label, align='right', max_width=room - 10)
        for shares, colour, offset in ((pixels, WHITE, 1), (nodes, tuple(colours[index]), 14)):
            share = float(shares[index])
            length = round(_LENGTH * math.sqrt(share) / longest)
            start = left + room
            canvas.fill(top + offset, start, _BAR, length, FAINT)
            canvas.fill(top + offset + 1, start + 1, _BAR - 2, length - 2, colour)
            ink = INK if share else FAINT
            figure = percentage(share)
            canvas.text(top + offset + 5.5, start + length + 5, figure, size=11, colour=ink)
    return canvas.render()


def percentage(share: float) -> str:
    """A share as a short percentage: 0.123 -> '12.3 %', 0.00004 -> '<0.01 %', 0 -> '0 %'."""
    percent = 100 * share
    if percent == 0:
        return '0 %'
    if percent < 0.01:
        return '<0.01 %'
    return f'{percent:.3g} %' if percent < 99.95 else '100 %'


def _write_key(canvas: Canvas) -> None:
    canvas.text(16, _MARGIN, 'How often each class occurs', size=14, bold=True)
    room = canvas.pixels.shape[1] - 2 * _MARGIN
    width = text_width('How often each class occurs', size=14, bold=True) + 10
    line = '(lengths by square root)'
    canvas.text(16, _MARGIN + width, line, size=12, colour=FAINT, max_width=room - width)
    canvas.fill(32, _MARGIN, _BAR, 24, FAINT)
    canvas.fill(33, _MARGIN + 1, _BAR - 2, 22, WHITE)
    canvas.text(37.5, _MARGIN + 30, 'among the pixels', size=12)
    left = _MARGIN + 170
    for place, colour in enumerate(OKABE_ITO[:3]):
        canvas.fill(32, left + 8 * place, _BAR, 8, colour)
    canvas.text(37.5, left + 30, 'among the nodes', size=12)


def _as_shares(values: Sequence[float], count: int, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (count,):
        raise ValueError(f'{name}: expected {count} numbers, got shape {array.shape}')
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f'{name}: expected numbers from 0 to 1, got {array[:4].tolist()}')
    return array
