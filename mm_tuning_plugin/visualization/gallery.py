"""Query nodes with their nearest neighbours, right and wrong framed.

Shape legend: Q queries, N neighbours of each, S x S pixels of a patch, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .canvas import FAINT, INK, Canvas, resize, text_width
from .checks import as_labels, as_names, as_patches, as_size, describe
from .overlay import mark_middle
from .palette import OKABE_ITO, as_palette, text_colour

#: Blue and vermilion: the pair that differs most under every kind of colour blindness.
RIGHT, WRONG = OKABE_ITO[0], OKABE_ITO[3]
_MARKS = {True: '✓', False: '✗'}  # colour is never the only sign
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


class _Layout(NamedTuple):
    """Where things stand, pixels: side of a framed tile, width of a name, neighbours of a panel."""

    tile: int
    chip: int
    columns: tuple[int, ...]

    @property
    def side(self) -> int:
        return self.tile + 2 * _FRAME

    @property
    def row(self) -> int:
        return self.side + _CAPTION + _GAP

    def panel(self, index: int) -> int:
        """Left edge of a panel."""
        before = sum(count * (self.side + _GAP) + _BETWEEN for count in self.columns[:index])
        return _MARGIN + self.chip + _GAP + self.side + _BETWEEN + before


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
    and ticked, one of another class framed in vermilion and crossed; its class stands below it.

    Args:
        queries: (Q, S, S, 3) uint8 RGB.
        labels: (Q,) integers in 0..K-1.
        panels: By title, what was found: ``{'before tuning': ..., 'after tuning': ...}``.
        class_names: K names.
        palette: (K, 3) RGB in 0..255.
        scores: A number of panels by title, shown as ``recall@1 0.612``; of all queries, not only
            of those shown.
        score_name: What ``scores`` is.
        marked: Whether a ring marks the middle of every patch: for nodes that are points.
        tile: Side of a shown patch, pixels, at least 40.

    Returns:
        (H, W, 3) uint8 RGB. Without queries a page that says so.

    Raises:
        ValueError: if an argument has another shape, type, range or number of entries.
    """
    names = as_names(class_names)
    colours = as_palette(palette, len(names))
    queries = as_patches(queries, 'queries')
    labels = as_labels(labels, len(names), 'labels', count=len(queries))
    tile = as_size(tile, 'tile', minimum=40)
    panels = {
        str(name): _checked(found, name, len(queries), names) for name, found in panels.items()
    }
    unknown = [name for name in scores or {} if name not in panels]
    if unknown:
        raise ValueError(f'scores: expected names among {list(panels)}, got {unknown[0]!r}')
    captions = [names[label] or f'class {label}' for label in labels]
    longest = max((text_width(caption, bold=True) for caption in captions), default=0)
    chip = math.ceil(min(max(longest + 16, 80), 170))
    layout = _Layout(tile, chip, tuple(found.labels.shape[1] for found in panels.values()))
    width = max(420, layout.panel(len(panels)) - _BETWEEN - _GAP + _MARGIN)
    canvas = Canvas(_HEADER + len(queries) * layout.row + _KEY + _MARGIN, width)
    _write_header(canvas, layout, labels, panels, scores or {}, score_name)
    for row, label in enumerate(labels):
        top, colour = _HEADER + row * layout.row, tuple(colours[label])
        canvas.fill(top, _MARGIN, layout.side, chip, colour)
        canvas.text(
            top + layout.side / 2,
            _MARGIN + 8,
            captions[row],
            bold=True,
            colour=text_colour(colour),
            max_width=chip - 14,
        )
        _draw_tile(canvas, layout, top, _MARGIN + chip + _GAP, queries[row], colour, marked)
        for index, found in enumerate(panels.values()):
            for place in range(layout.columns[index]):
                left = layout.panel(index) + place * (layout.side + _GAP)
                other = int(found.labels[row, place])
                frame = RIGHT if other == label else WRONG
                _draw_tile(canvas, layout, top, left, found.patches[row, place], frame, marked)
                _write_badge(canvas, layout, top, left, other == label)
                _write_class(canvas, layout, top, left, other, names, colours, other == label)
    _write_key(canvas)
    return canvas.render()


def _checked(found: Neighbours, name: str, queries: int, names: list[str]) -> Neighbours:
    """Returns a panel's neighbours as arrays that fit the queries."""
    patches, labels = (np.asarray(part) for part in found)
    if labels.ndim != 2 or len(labels) != queries:
        raise ValueError(
            f'panels[{name!r}]: expected labels of shape ({queries}, N), got {describe(labels)}'
        )
    if patches.ndim != 5 or patches.shape[:2] != labels.shape:
        raise ValueError(
            f'panels[{name!r}]: expected patches of shape {(*labels.shape, "S", "S", 3)}, '
            f'got {describe(patches)}'
        )
    as_patches(patches.reshape(-1, *patches.shape[2:]), f'panels[{name!r}]')
    flat = as_labels(labels.ravel(), len(names), f'panels[{name!r}]', count=labels.size)
    return Neighbours(patches, flat.reshape(labels.shape))


def _draw_tile(
    canvas: Canvas,
    layout: _Layout,
    top: int,
    left: int,
    patch: np.ndarray,
    frame: tuple,
    marked: bool,
) -> None:
    """Draws one patch in its frame, with a ring around its middle if that is a point."""
    tile = layout.tile
    canvas.fill(top, left, layout.side, layout.side, frame)
    how = 'area' if len(patch) > tile else 'smooth'
    shown = resize(patch, tile, tile, how)
    canvas.paste(top + _FRAME, left + _FRAME, mark_middle(shown) if marked else shown)


def _write_badge(canvas: Canvas, layout: _Layout, top: int, left: int, right: bool) -> None:
    """Writes a tick or a cross into the lower right corner of a tile."""
    y, x = top + layout.side - _BADGE, left + layout.side - _BADGE
    _badge(canvas, y, x, right)


def _badge(canvas: Canvas, top: int, left: int, right: bool) -> None:
    colour = RIGHT if right else WRONG
    canvas.fill(top, left, _BADGE, _BADGE, colour)
    ink, middle = text_colour(colour), left + _BADGE / 2
    canvas.text(top + _BADGE / 2, middle, _MARKS[right], colour=ink, bold=True, align='center')


def _write_class(
    canvas: Canvas,
    layout: _Layout,
    top: int,
    left: int,
    label: int,
    names: list[str],
    colours: np.ndarray,
    right: bool,
) -> None:
    """Writes a neighbour's class under it, with its colour; faint where it is the query's."""
    middle, swatch = top + layout.side + _CAPTION // 2, 9
    canvas.fill(middle - 5, left, swatch + 2, swatch + 2, FAINT)
    canvas.fill(middle - 4, left + 1, swatch, swatch, tuple(colours[label]))
    name = names[label] or f'class {label}'
    room, ink = layout.side - swatch - 6, FAINT if right else INK
    size = next((s for s in (11, 10) if text_width(name, size=s) <= room), 9)
    canvas.text(middle, left + swatch + 6, name, size=size, colour=ink, max_width=room)


def _write_header(
    canvas: Canvas,
    layout: _Layout,
    labels: np.ndarray,
    panels: Mapping[str, Neighbours],
    scores: Mapping[str, float],
    score_name: str,
) -> None:
    """Writes each panel's title, its score, and how many of the neighbours shown are right."""
    count = len(labels)
    line = f'{count} {"query" if count == 1 else "queries"}' if count else 'no queries'
    canvas.text(20, _MARGIN, line, size=15, bold=True)
    for index, (name, found) in enumerate(panels.items()):
        left = layout.panel(index)
        room = layout.columns[index] * (layout.side + _GAP) - _GAP
        score = f'{score_name} {scores[name]:.3f}' if name in scores else ''
        taken = text_width(score, size=15) + 12 if score else 0
        canvas.text(20, left, name, size=15, bold=True, max_width=max(20, room - taken))
        canvas.text(20, left + room, score, size=15, align='right')
        right = int((found.labels == labels[:, None]).sum())
        if found.labels.size:
            told = f'{right} of {found.labels.size} shown have the class of their query'
            canvas.text(42, left, told, size=12, colour=FAINT, max_width=room)


def _write_key(canvas: Canvas) -> None:
    """Writes at the bottom what frames and marks mean."""
    top, left = canvas.pixels.shape[0] - _MARGIN - _BADGE, _MARGIN
    for right, line in ((True, 'class of the query'), (False, 'another class')):
        _badge(canvas, top, left, right)
        canvas.text(top + _BADGE / 2, left + _BADGE + 6, line, size=12)
        left += _BADGE + 6 + math.ceil(text_width(line, size=12)) + 24
