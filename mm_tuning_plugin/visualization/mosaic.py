"""The mixed nodes of a batch, sorted by class.

Shape legend: N nodes, S x S pixels of a patch, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .checks import as_labels, as_patches, as_size
from .drawing import drawing, text_width, write
from .images import FAINT, blank, tile_of
from .palette import as_classes, text_colour

_MARGIN = 10  # around the page, pixels
_HEADER = 32  # pixels
_FOOTER = 22  # pixels
_BORDER = 3  # of a tile, in the colour of its class, pixels
_GAP = 4  # between tiles and between rows, pixels
_COLUMN_GAP = 24  # pixels
_LOOK = 1.5  # width over height that a page of several columns comes near to


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
        max_per_class: Maximum number of nodes in a row. The count next to the name is of all nodes.
        tile: Side of a shown patch, pixels, at least 8.
        width: What several columns of rows should come near to without being wider, pixels. None:
            as many columns as make a landscape page. One column may be wider.

    Returns:
        (H, W, 3) uint8 RGB. Without nodes, a page that says so.

    Raises:
        ValueError: if an argument has another shape, type or range.
    """
    names, colours = as_classes(class_names, palette)
    patches = as_patches(patches, 'patches')
    labels = as_labels(labels, len(names), 'labels', (len(patches),))
    max_per_class, tile = as_size(max_per_class, 'max_per_class'), as_size(tile, 'tile', minimum=8)
    width = width if width is None else as_size(width, 'width')
    present, totals = np.unique(labels, return_counts=True)
    absent = [names[i] for i in np.setdiff1d(np.arange(len(names)), present)]
    shown = np.minimum(totals, max_per_class).tolist()
    counts = [f'{n}' if n == few else f'{n}, {few} shown' for n, few in zip(totals, shown)]
    row = max(tile + 2 * _BORDER, 40) + _GAP
    titles = (text_width(names[label], bold=True) for label in present)
    chip = max([64, *titles, *(text_width(count, 12) for count in counts)]) + 16
    chip = math.ceil(min(chip, 200))
    depth, lefts = _columns([chip + few * (tile + 2 * _BORDER + _GAP) for few in shown], row, width)
    page = blank(
        _HEADER + depth * row - _GAP + (_FOOTER if absent else 0) + _MARGIN,
        max(380, lefts[-1] - _COLUMN_GAP + _MARGIN),
    )
    room = page.shape[1] - 2 * _MARGIN
    with drawing(page) as figure:
        nodes = f'{len(labels)} node{"" if len(labels) == 1 else "s"}'
        line = f'{nodes}, {len(present)} of {len(names)} classes'
        write(figure, _MARGIN, 14, line, 14, bold=True, room=room)
        for index, (label, few) in enumerate(zip(present, shown)):
            top, left = _HEADER + index % depth * row, lefts[index // depth]
            page[top : top + row - _GAP, left : left + chip] = colours[label]
            ink = text_colour(colours[label])
            middle, x = top + (row - _GAP) / 2, left + 8
            write(figure, x, middle - 9, names[label], colour=ink, bold=True, room=chip - 14)
            write(figure, x, middle + 11, counts[index], 12, colour=ink, room=chip - 14)
            nodes = np.flatnonzero(labels == label)[:few]
            strip = _strip(patches[nodes], tile, colours[label])
            left += chip + _GAP
            page[top : top + strip.shape[0], left : left + strip.shape[1]] = strip
        if absent:
            line = f'without a node ({len(absent)}): ' + ', '.join(absent)
            middle = page.shape[0] - _MARGIN - 7
            write(figure, _MARGIN, middle, line, 12, colour=FAINT, room=room)
    return page


def _strip(patches: np.ndarray, tile: int, colour: np.ndarray) -> np.ndarray:
    """Sets patches (N, S, S, 3) side by side, each in a frame; (H, W, 3)."""
    side = tile + 2 * _BORDER
    strip = blank(side, len(patches) * (side + _GAP) - _GAP)
    for place, patch in enumerate(patches):
        left = place * (side + _GAP)
        strip[:, left : left + side] = colour
        left += _BORDER
        strip[_BORDER:-_BORDER, left : left + tile] = tile_of(patch, tile)
    return strip


def _columns(widths: list[int], row: int, room: int | None) -> tuple[int, list[int]]:
    """Splits rows into as many columns as suit the page.

    Args:
        widths: Of the rows, pixels.
        row: Height of a row, pixels.
        room: As in `patch_mosaic`.

    Returns:
        Rows in a column, and the left edges of all columns, and of one more, pixels.
    """

    def edges(depth: int) -> list[int]:
        columns = [max(widths[i : i + depth]) for i in range(0, len(widths), depth)]
        return np.cumsum([_MARGIN, *(width + _COLUMN_GAP for width in columns)]).tolist()

    def badness(depth: int) -> float:
        width = edges(depth)[-1] - _COLUMN_GAP + _MARGIN
        if room is None:
            return abs(math.log(width / (depth * row) / _LOOK))
        return depth if width <= room else math.inf

    count = len(widths)
    depths = sorted({math.ceil(count / n) for n in range(1, count + 1)}, reverse=True)
    depth = min(depths, key=badness, default=0)
    return depth, edges(depth) if count else [_MARGIN]
