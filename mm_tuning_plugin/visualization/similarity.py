"""How alike the nodes of any two classes are: a class-by-class matrix of mean cosines.

Shape legend: N nodes, D numbers of an embedding, K classes, C of them with nodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np

from .canvas import FAINT, PAPER, Canvas, text_width
from .checks import as_labels, as_names, describe
from .palette import as_palette, text_colour

_MARGIN = 14  # around the page, pixels
_BETWEEN = 26  # between panels, pixels
_TITLE = 60  # above the names of the columns, pixels
_STRIP = 8  # the colour of a class beside its row and column, pixels
_LONGEST = 150  # of a name, pixels
_FOOTER = 74  # the scale and the lines beside it, pixels
_SCALE = 260  # width of the colour scale, pixels
_WRITTEN = 30  # from this side on a cell has its number in it, pixels
#: Classes at most, and the side of a cell for them, pixels.
_CELLS = ((12, 46), (24, 34), (60, 18), (math.inf, 12))
_LARGE = 900  # side of a matrix from which on titles and scale grow with it, pixels
_PAIRS = 5  # of classes, the most alike, that are named below


class _Layout(NamedTuple):
    """Where things stand, pixels: side of a cell, length of the names, classes shown."""

    cell: int
    names: int
    count: int

    @property
    def size(self) -> int:
        """Of the letters of the names."""
        return min(12, self.cell - 2)

    def large(self, pixels: float) -> int:
        """Scales lengths and letters outside of the matrices: large ones are looked at shrunk."""
        return round(pixels * max(1.0, self.side / _LARGE))

    @property
    def top(self) -> int:
        """First row of the matrices."""
        return self.large(_TITLE) + self.names + _STRIP + 4

    @property
    def side(self) -> int:
        return self.cell * self.count

    def panel(self, index: int) -> int:
        """Left edge of a matrix."""
        first = _MARGIN + self.names + 6 + _STRIP
        return first + index * (self.side + _STRIP + _BETWEEN)


def class_similarity(embeddings: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the mean cosine between nodes of each two classes.

    On the diagonal it is the mean over pairs of different nodes of the class. By sums of unit
    vectors: O(N D + K^2 D), no pair is formed.

    Args:
        embeddings: (N, D) finite numbers; a row of zeros has cosine 0 with all others.
        labels: (N,) integers in 0..K-1.
        num_classes: K.

    Returns:
        (K, K) float64, symmetric, in -1..1; NaN for a class without nodes, and on the diagonal for
        one of a single node.

    Raises:
        ValueError: if an argument has another shape, type or range.
    """
    rows = np.asarray(embeddings)
    if rows.size == 0 and rows.shape[:1] == (0,):
        return np.full((num_classes, num_classes), np.nan)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(
            f'embeddings: expected finite numbers of shape (N, D), got {describe(rows)}'
        )
    labels = as_labels(labels, num_classes, 'labels', count=len(rows))
    lengths = np.linalg.norm(rows, axis=1)
    order = np.argsort(labels, kind='stable')
    present, starts = np.unique(labels[order], return_index=True)
    unit = (rows / np.where(lengths > 0, lengths, 1)[:, None])[order]
    sums = np.zeros((num_classes, rows.shape[1]))
    sums[present] = np.add.reduceat(unit, starts, axis=0, dtype=np.float64)
    counts = np.bincount(labels, minlength=num_classes).astype(np.float64)
    own = np.bincount(labels, weights=lengths > 0, minlength=num_classes)  # cosines with itself
    with np.errstate(invalid='ignore', divide='ignore'):
        means = sums @ sums.T / np.outer(counts, counts)
        pairs = counts * (counts - 1)
        np.fill_diagonal(means, ((sums**2).sum(axis=1) - own) / np.where(pairs > 0, pairs, np.nan))
    return np.clip(means, -1, 1)


def similarity_map(
    matrices: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    palette: np.ndarray | Sequence[Sequence[int]],
) -> np.ndarray:
    """Shows matrices of `class_similarity` side by side on one scale.

    Classes apart show as a light diagonal on dark. Classes without a node in every matrix are left
    out and named below, as are the pairs of classes that are most alike in the last matrix. Few
    classes have their numbers in the cells.

    Args:
        matrices: By title, (K, K) numbers; NaN where there are none.
        class_names: K names.
        palette: (K, 3) RGB in 0..255.

    Returns:
        (H, W, 3) uint8 RGB. Without any class a page that says so.

    Raises:
        ValueError: if an argument has another shape or number of entries, or no matrix is given.
    """
    names = as_names(class_names)
    colours = as_palette(palette, len(names))
    if not matrices:
        raise ValueError('matrices: expected at least one, got none')
    checked = {str(title): _checked(m, title, len(names)) for title, m in matrices.items()}
    known = np.any([np.isfinite(m).any(axis=1) for m in checked.values()], axis=0)
    shown = np.flatnonzero(known)
    absent = [names[i] or f'class {i}' for i in np.flatnonzero(~known)]
    kept = {title: m[np.ix_(shown, shown)] for title, m in checked.items()}
    titles = [names[i] or f'class {i}' for i in shown]
    cell = next(side for most, side in _CELLS if len(shown) <= most)
    longest = max((text_width(t, size=min(12, cell - 2)) for t in titles), default=0)
    layout = _Layout(cell, math.ceil(min(longest, _LONGEST)), len(shown))
    right = layout.panel(len(kept) - 1) + layout.side + _MARGIN
    height = layout.top + layout.side + layout.large(_FOOTER) + _MARGIN
    canvas = Canvas(height, max(right, 640))
    low, high = _range(kept)
    for index, (title, matrix) in enumerate(kept.items()):
        _write_title(canvas, layout, index, title, matrix)
        _write_columns(canvas, layout, index, titles, colours[shown])
        _draw_cells(canvas, layout, layout.panel(index), matrix, low, high)
    _write_rows(canvas, layout, titles)
    _write_footer(canvas, layout, list(kept.values())[-1], titles, absent, low, high)
    return canvas.render()


def _checked(matrix: np.ndarray, title: str, num_classes: int) -> np.ndarray:
    array = np.asarray(matrix)
    if array.shape != (num_classes, num_classes) or not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f'matrices[{title!r}]: expected numbers of shape {(num_classes, num_classes)}, '
            f'got {describe(array)}'
        )
    return array.astype(np.float64)


def _range(matrices: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Returns the ends of the scale, tenths around all that is shown."""
    values = np.concatenate([m[np.isfinite(m)] for m in matrices.values()])
    if not len(values):
        return 0.0, 1.0
    low, high = np.floor(values.min() * 10) / 10, np.ceil(values.max() * 10) / 10
    return float(low), float(max(high, low + 0.1))


def _colours(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colours numbers (...,) by cividis, even in lightness for all kinds of sight; (..., 3)."""
    unit = np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1)
    coloured = matplotlib.colormaps['cividis'](unit, bytes=True)[..., :3]
    return np.where(np.isfinite(values)[..., None], coloured, PAPER).astype(np.uint8)


def _draw_cells(
    canvas: Canvas, layout: _Layout, left: int, matrix: np.ndarray, low: float, high: float
) -> None:
    """Draws a matrix (C, C), with its numbers where they fit."""
    cell, coloured = layout.cell, _colours(matrix, low, high)
    if not layout.count:
        return
    canvas.paste(layout.top, left, coloured.repeat(cell, axis=0).repeat(cell, axis=1))
    if cell < _WRITTEN:
        return
    for (row, column), value in np.ndenumerate(matrix):
        told = f'{value:.2f}' if np.isfinite(value) else '–'
        ink = text_colour(coloured[row, column])
        middle, x = layout.top + (row + 0.5) * cell, left + (column + 0.5) * cell
        size, bold = (13 if cell > 40 else 11), row == column
        canvas.text(middle, x, told, size=size, colour=ink, bold=bold, align='center')


def _write_title(
    canvas: Canvas, layout: _Layout, index: int, title: str, matrix: np.ndarray
) -> None:
    """Writes a matrix's title, and the means on and off its diagonal."""
    left = layout.panel(index) if index else _MARGIN
    room = max(layout.side, 280)
    large = layout.large
    canvas.text(large(20), left, title, size=large(16), bold=True, max_width=room)
    diagonal = np.eye(len(matrix), dtype=bool)
    told = []
    for what, values in (('within', matrix[diagonal]), ('between', matrix[~diagonal])):
        values = values[np.isfinite(values)]
        told += [f'{what} classes {values.mean():.2f}'] if len(values) else []
    line = ', '.join(told) or 'no class has nodes'
    canvas.text(large(41), left, line, size=large(12), colour=FAINT, max_width=room)


def _write_columns(
    canvas: Canvas, layout: _Layout, index: int, titles: list[str], colours: np.ndarray
) -> None:
    """Writes the classes above and their colours above and beside a matrix."""
    cell, left = layout.cell, layout.panel(index)
    for place, (title, colour) in enumerate(zip(titles, colours)):
        start = place * cell
        canvas.fill(layout.top - _STRIP, left + start, _STRIP - 1, cell, tuple(colour))
        canvas.fill(layout.top + start, left - _STRIP, cell, _STRIP - 1, tuple(colour))
        x, bottom = left + start + cell / 2, layout.top - _STRIP - 4
        canvas.text_upward(bottom, x, title, size=layout.size, max_width=layout.names)


def _write_rows(canvas: Canvas, layout: _Layout, titles: list[str]) -> None:
    """Writes the classes left of the first matrix."""
    right = layout.panel(0) - _STRIP - 4
    for place, title in enumerate(titles):
        middle = layout.top + (place + 0.5) * layout.cell
        canvas.text(middle, right, title, size=layout.size, align='right', max_width=layout.names)


def _write_footer(
    canvas: Canvas,
    layout: _Layout,
    matrix: np.ndarray,
    titles: list[str],
    absent: list[str],
    low: float,
    high: float,
) -> None:
    """Draws the scale, and names the classes most alike and those without a node."""
    (height, width), large = canvas.pixels.shape[:2], layout.large
    top = height - _MARGIN - large(_FOOTER - 14)
    side = min(large(_SCALE), width - 2 * _MARGIN)
    ramp = _colours(np.linspace(low, high, side), low, high)
    canvas.paste(top, _MARGIN, np.broadcast_to(ramp, (large(14), side, 3)))
    for share, align in ((0, 'left'), (0.5, 'center'), (1, 'right')):
        x, value = _MARGIN + share * side, low + share * (high - low)
        canvas.text(top + large(24), x, f'{value:.2f}', size=large(11), align=align)
    what = 'mean cosine of their nodes'
    canvas.text(top + large(45), _MARGIN, what, size=large(12), colour=FAINT)
    left = _MARGIN + side + large(30)
    room = width - left - _MARGIN
    alike = 'most alike: '
    for pair in _closest(matrix, titles):
        if text_width(alike + pair, size=large(12)) > room:
            break
        alike += pair + ', '
    if alike.endswith(', '):
        canvas.text(top + large(7), left, alike[:-2], size=large(12))
    if absent:
        line = f'without a node ({len(absent)}): ' + ', '.join(absent)
        canvas.text(top + large(28), left, line, size=large(12), colour=FAINT, max_width=room)


def _closest(matrix: np.ndarray, titles: list[str]) -> list[str]:
    """Names the pairs of classes of the highest mean cosine, the highest first."""
    rows, columns = np.triu_indices(len(matrix), k=1)
    values = matrix[rows, columns]
    ranked = np.argsort(-np.nan_to_num(values, nan=-2), kind='stable')[:_PAIRS]
    return [
        f'{titles[rows[i]]} – {titles[columns[i]]} {values[i]:.2f}'
        for i in ranked
        if np.isfinite(values[i])
    ]
