"""Similarity of classes: a class-by-class matrix of mean cosines of their nodes.

Shape legend: N nodes, D numbers of an embedding, K classes, C of them with nodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .checks import as_labels, require
from .drawing import drawing, shorten, text_width, write
from .images import FAINT, PAPER, blank
from .palette import as_classes, text_colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARGIN = 14  # around the page, pixels
_BETWEEN = 26  # between panels, pixels
_TITLE = 60  # above the names of the columns, pixels
_STRIP = 8  # the colour of a class next to its row and column, in pixels
_LONGEST = 150  # of a name, pixels
_FOOTER = 74  # the scale and the lines next to it, in pixels
_SCALE = 260  # width of the colour scale, pixels
_WRITTEN = 30  # from this side on a cell has its number in it, pixels
#: Classes at most, and the side of a cell for them, pixels.
_CELLS = ((12, 46), (24, 34), (60, 18), (math.inf, 12))
_LARGE = 900  # side of a matrix from which on titles and scale grow with it, pixels
_PAIRS = 5  # of the most similar classes, which are named below


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
    finite = rows.ndim == 2 and np.isfinite(rows).all()
    require(finite, 'embeddings', 'finite numbers of shape (N, D)', rows)
    labels = as_labels(labels, num_classes, 'labels', (len(rows),))
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
        (H, W, 3) uint8 RGB. Without classes, a page that says so.

    Raises:
        ValueError: if an argument has another shape or number of entries, or no matrix is given.
    """
    names, colours = as_classes(class_names, palette)
    require(bool(matrices), 'matrices', 'at least one', 'none')
    checked = {str(title): _checked(m, title, len(names)) for title, m in matrices.items()}
    known = np.any([np.isfinite(m).any(axis=1) for m in checked.values()], axis=0)
    shown = np.flatnonzero(known)
    absent = [names[i] for i in np.flatnonzero(~known)]
    kept = {title: m[np.ix_(shown, shown)] for title, m in checked.items()}
    low, high = _range(kept)
    cell = next(side for most, side in _CELLS if len(shown) <= most)
    size = min(12, cell - 2)
    names = [shorten(names[i], _LONGEST, size) for i in shown]
    room = math.ceil(max((text_width(name, size) for name in names), default=0))
    side = cell * len(shown)
    scale = max(1.0, side / _LARGE)
    top, left = round(_TITLE * scale) + room + _STRIP + 4, _MARGIN + room + 6 + _STRIP
    lefts = [left + index * (side + _STRIP + _BETWEEN) for index in range(len(kept))]
    height, width = top + side + round(_FOOTER * scale), max(lefts[-1] + side, 640 - _MARGIN)
    page = blank(height + _MARGIN, width + _MARGIN)
    middles = (np.arange(len(shown)) + 0.5) * cell
    with drawing(page) as figure:
        for left, (title, matrix) in zip(lefts, kept.items()):
            _write_title(figure, _MARGIN if left == lefts[0] else left, title, matrix, side, scale)
            strip = colours[shown].repeat(cell, axis=0)
            page[top - _STRIP : top - 1, left : left + side] = strip
            page[top : top + side, left - _STRIP : left - 1] = strip[:, None]
            coloured = _coloured(matrix, low, high).repeat(cell, axis=0).repeat(cell, axis=1)
            page[top : top + side, left : left + side] = coloured
            for middle, name in zip(middles, names):
                write(figure, left + middle, top - _STRIP - 4, name, size, rotation=90)
            if cell >= _WRITTEN:
                _write_numbers(figure, left + middles, top + middles, matrix, coloured)
        for middle, name in zip(middles, names):
            write(figure, lefts[0] - _STRIP - 4, top + middle, name, size, ha='right')
        pairs = _closest(list(kept.values())[-1], names)
        _write_footer(page, figure, pairs, absent, (low, high), scale)
    return page


def _checked(matrix: np.ndarray, title: str, num_classes: int) -> np.ndarray:
    array, shape = np.asarray(matrix), (num_classes, num_classes)
    fits = array.shape == shape and np.issubdtype(array.dtype, np.floating)
    require(fits, f'matrices[{title!r}]', f'numbers of shape {shape}', array)
    return array.astype(np.float64)


def _range(matrices: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Returns the ends of the scale, tenths around all that is shown."""
    values = np.concatenate([m[np.isfinite(m)] for m in matrices.values()])
    if not len(values):
        return 0.0, 1.0
    low, high = np.floor(values.min() * 10) / 10, np.ceil(values.max() * 10) / 10
    return float(low), float(max(high, low + 0.1))


def _coloured(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colours numbers (...,) by cividis, even in lightness for all kinds of sight; (..., 3)."""
    import matplotlib

    unit = np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1)
    coloured = matplotlib.colormaps['cividis'](unit, bytes=True)[..., :3]
    return np.where(np.isfinite(values)[..., None], coloured, PAPER).astype(np.uint8)


def _write_numbers(
    figure: Figure, xs: np.ndarray, ys: np.ndarray, matrix: np.ndarray, coloured: np.ndarray
) -> None:
    """Writes the numbers of a matrix (C, C) into its cells."""
    cell = len(coloured) // max(len(matrix), 1)
    for (row, column), value in np.ndenumerate(matrix):
        told = f'{value:.2f}' if np.isfinite(value) else '–'
        look = dict(colour=text_colour(coloured[row * cell, column * cell]), ha='center')
        look |= dict(size=13 if cell > 40 else 11, bold=row == column)
        write(figure, xs[column], ys[row], told, **look)


def _write_title(
    figure: Figure, x: float, title: str, matrix: np.ndarray, side: int, scale: float
) -> None:
    """Writes a matrix's title, and the means on and off its diagonal."""
    room = max(side, 280)
    write(figure, x, 20 * scale, title, round(16 * scale), bold=True, room=room)
    diagonal = np.eye(len(matrix), dtype=bool)
    told = []
    for what, values in (('within', matrix[diagonal]), ('between', matrix[~diagonal])):
        values = values[np.isfinite(values)]
        told += [f'{what} classes {values.mean():.2f}'] if len(values) else []
    line = ', '.join(told) or 'no class has nodes'
    write(figure, x, 41 * scale, line, round(12 * scale), colour=FAINT, room=room)


def _write_footer(
    page: np.ndarray,
    figure: Figure,
    pairs: list[str],
    absent: list[str],
    ends: tuple[float, float],
    scale: float,
) -> None:
    """Draws the scale, and names the most similar classes and those without a node."""
    size, thick = round(12 * scale), round(14 * scale)
    top, side = page.shape[0] - _MARGIN - round((_FOOTER - 14) * scale), round(_SCALE * scale)
    side = min(side, page.shape[1] - 2 * _MARGIN)
    values = np.linspace(*ends, side)
    page[top : top + thick, _MARGIN : _MARGIN + side] = _coloured(values, *ends)
    for share, align in ((0, 'left'), (0.5, 'center'), (1, 'right')):
        told = f'{ends[0] + share * (ends[1] - ends[0]):.2f}'
        write(figure, _MARGIN + share * side, top + 24 * scale, told, round(11 * scale), ha=align)
    write(figure, _MARGIN, top + 45 * scale, 'mean cosine of their nodes', size, colour=FAINT)
    left = _MARGIN + side + 30 * scale
    room = page.shape[1] - left - _MARGIN
    lines = ['most alike: ' + ', '.join(pairs[:count]) for count in range(1, len(pairs) + 1)]
    fitting = [line for line in lines if text_width(line, size) <= room]
    if fitting:
        write(figure, left, top + 7 * scale, fitting[-1], size)
    if absent:
        line = f'without a node ({len(absent)}): ' + ', '.join(absent)
        write(figure, left, top + 28 * scale, line, size, colour=FAINT, room=room)


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
