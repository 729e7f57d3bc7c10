"""Query nodes with their nearest neighbours, right and wrong framed.

Shape legend: Q queries, N neighbours of each, S x S pixels of a patch, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .checks import as_labels, as_patches, as_size, require
from .drawing import drawing, text_width, write
from .images import FAINT, INK, blank, mark_middle, swatch, tile_of
from .palette import OKABE_ITO, as_classes, text_colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Blue and vermilion: the pair that differs most under every kind of colour blindness.
RIGHT, WRONG = OKABE_ITO[0], OKABE_ITO[3]
_MARGIN = 12  # around the page, pixels
_HEADER = 58  # pixels
_FRAME = 4  # around a tile, pixels
_GAP = 6  # between tiles, pixels
_BETWEEN = 26  # before a panel, pixels
_CAPTION = 19  # under a tile, pixels
_BADGE = 17  # side of the mark in a tile's corner, pixels
_KEY = 32  # at the bottom, pixels


class Neighbours(NamedTuple):
    """The neighbours of all queries, the nearest first.

    Attributes:
        patches: (Q, N, S, S, 3) uint8 RGB.
        labels: (Q, N) integers in 0..K-1.
    """

    patches: np.ndarray
    labels: np.ndarray


def retrieval_gallery(
    queries: np.ndarray,
    labels: np.ndarray,
    panels: Mapping[str, Neighbours],
    class_names: Sequence[str],
    palette: np.ndarray | Sequence[Sequence[int]],
    *,
    scores: Mapping[str, float] | None = None,
    score_name: str = 'recall@1',
    marked: bool = False,
    tile: int = 72,
) -> np.ndarray:
    """Shows a row for each query: its class, the query, and its nearest neighbours in each panel.

    The query is framed in the colour of its class. A neighbour of that class is framed in blue
    and ticked, one of another class in vermilion and crossed. Its class is written below it.

    Args:
        queries: (Q, S, S, 3) uint8 RGB.
        labels: (Q,) integers in 0..K-1.
        panels: The neighbours by title: ``{'before tuning': ..., 'after tuning': ...}``.
        class_names: K names.
        palette: (K, 3) RGB in 0..255.
        scores: A number of panels by title, shown as ``recall@1 0.612``; of all queries, not only
            of those shown.
        score_name: What ``scores`` is.
        marked: Whether a ring marks the middle of every patch: for nodes that are points.
        tile: Side of a shown patch, pixels, at least 40.

    Returns:
        (H, W, 3) uint8 RGB. Without queries, a page that says so.

    Raises:
        ValueError: if an argument has another shape, type, range or number of entries.
    """
    names, colours = as_classes(class_names, palette)
    queries = as_patches(queries, 'queries')
    labels = as_labels(labels, len(names), 'labels', (len(queries),))
    tile = as_size(tile, 'tile', minimum=40)
    panels = {
        str(name): _checked(found, name, len(queries), names) for name, found in panels.items()
    }
    unknown = [name for name in scores or {} if name not in panels]
    require(not unknown, 'scores', f'names among {list(panels)}', repr(unknown[:1]))
    chip = max((text_width(names[label], bold=True) for label in labels), default=0) + 16
    chip, side = math.ceil(min(max(chip, 80), 170)), tile + 2 * _FRAME
    left, lefts = _MARGIN + chip + _GAP + side + _BETWEEN, []
    for found in panels.values():
        lefts.append(left)
        left += found.labels.shape[1] * (side + _GAP) + _BETWEEN
    deep = len(queries) * (side + _CAPTION + _GAP)
    page = blank(_HEADER + deep + _KEY + _MARGIN, max(420, left - _BETWEEN - _GAP + _MARGIN))
    with drawing(page) as figure:
        line = f'{len(labels)} {"query" if len(labels) == 1 else "queries"}'
        write(figure, _MARGIN, 20, line if len(labels) else 'no queries', 15, bold=True)
        for x, (name, found) in zip(lefts, panels.items()):
            room = found.labels.shape[1] * (side + _GAP) - _GAP
            score = f'{score_name} {scores[name]:.3f}' if name in (scores or {}) else ''
            _write_header(figure, x, room, name, found.labels == labels[:, None], score)
        for row, label in enumerate(labels):
            top, colour = _HEADER + row * (side + _CAPTION + _GAP), colours[label]
            page[top : top + side, _MARGIN : _MARGIN + chip] = colour
            look = dict(colour=text_colour(colour), bold=True, room=chip - 14)
            write(figure, _MARGIN + 8, top + side / 2, names[label], **look)
            x = _MARGIN + chip + _GAP
            page[top : top + side, x : x + side] = _framed(queries[row], tile, colour, marked)
            for left, found in zip(lefts, panels.values()):
                for patch, other in zip(found.patches[row], found.labels[row]):
                    right = other == label
                    framed = _framed(patch, tile, RIGHT if right else WRONG, marked)
                    page[top : top + side, left : left + side] = framed
                    _badge(page, figure, top + side - _BADGE, left + side - _BADGE, right)
                    middle = top + side + _CAPTION // 2
                    swatch(page, middle - 5, left, 11, 11, colours[other])
                    _write_class(figure, left + 15, middle, names[other], side - 15, right)
                    left += side + _GAP
        _write_key(page, figure)
    return page


def _checked(found: Neighbours, name: str, queries: int, names: list[str]) -> Neighbours:
    """Returns a panel's neighbours as arrays that fit the queries."""
    patches, labels = (np.asarray(part) for part in found)
    where, wanted = f'panels[{name!r}]', (*labels.shape, 'S', 'S', 3)
    fits = labels.ndim == 2 and len(labels) == queries
    require(fits, where, f'labels of shape ({queries}, N)', labels)
    fits = patches.ndim == 5 and patches.shape[:2] == labels.shape
    require(fits, where, f'patches of shape {wanted}', patches)
    as_patches(patches.reshape(-1, *patches.shape[2:]), where)
    return Neighbours(patches, as_labels(labels, len(names), where, labels.shape))


def _framed(patch: np.ndarray, tile: int, colour: Sequence[int], marked: bool) -> np.ndarray:
    """Returns a patch in its frame, with a ring around its middle if that is a point."""
    framed = blank(tile + 2 * _FRAME, tile + 2 * _FRAME, colour)
    shown = tile_of(patch, tile)
    framed[_FRAME:-_FRAME, _FRAME:-_FRAME] = mark_middle(shown) if marked else shown
    return framed


def _badge(page: np.ndarray, figure: Figure, top: int, left: int, right: bool) -> None:
    """Draws a tick or a cross on its colour, which is never the only sign."""
    colour = RIGHT if right else WRONG
    page[top : top + _BADGE, left : left + _BADGE] = colour
    look = dict(colour=text_colour(colour), bold=True, ha='center')
    write(figure, left + _BADGE / 2, top + _BADGE / 2, '✓' if right else '✗', **look)


def _write_class(figure: Figure, x: float, y: float, name: str, room: float, right: bool) -> None:
    """Writes a neighbour's class under it, faint if it is the query's."""
    size = next((s for s in (11, 10) if text_width(name, s) <= room), 9)
    write(figure, x, y, name, size, colour=FAINT if right else INK, room=room)


def _write_header(
    figure: Figure, x: float, room: int, title: str, right: np.ndarray, score: str
) -> None:
    """Writes a panel's title, its score, and how many (Q, N) neighbours shown are right."""
    taken = text_width(score, 15) + 12 if score else 0
    write(figure, x, 20, title, 15, bold=True, room=max(20, room - taken))
    write(figure, x + room, 20, score, 15, ha='right')
    if right.size:
        line = f'{right.sum()} of {right.size} shown have the class of their query'
        write(figure, x, 42, line, 12, colour=FAINT, room=room)


def _write_key(page: np.ndarray, figure: Figure) -> None:
    """Writes at the bottom what frames and marks mean."""
    top, left = page.shape[0] - _MARGIN - _BADGE, _MARGIN
    for right, line in ((True, 'class of the query'), (False, 'another class')):
        _badge(page, figure, top, left, right)
        write(figure, left + _BADGE + 6, top + _BADGE / 2, line, 12)
        left += _BADGE + 30 + math.ceil(text_width(line, 12))
