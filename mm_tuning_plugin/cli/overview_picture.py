"""One picture of what the package does, from labelled images to a tuned backbone.

Everything in it is computed by the package: patches, graph, triplets, and a toy network's
embeddings of streets that it was not tuned on. Drawn for a width of 900 pixels, at twice that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mm_tuning_plugin.cli.overview_toy import CLASSES, Patches, cut_patches, draw_street, tune_toy
from mm_tuning_plugin.functional import class_connected_graph, graph_triplets
from mm_tuning_plugin.visualization import resize
from mm_tuning_plugin.visualization.canvas import FAINT, INK, PAPER, Canvas, text_width
from mm_tuning_plugin.visualization.palette import text_colour

WIDTH, HEIGHT = 1800, 800
# Okabe and Ito's, each class with a marker of its own besides.
COLOURS = np.array([(86, 180, 233), (230, 159, 0), (213, 94, 0), (0, 158, 115), (204, 121, 167)])
MARKERS = ('o', 's', 'D', '^', 'v')
COLUMNS = ((24, 330), (410, 330), (796, 392), (1244, 244), (1544, 232))  # left, width
TITLES = ('Labelled images', 'Patches, mixed', 'Matched by class', 'Embeddings', 'Fine-tuning')
LINES = (
    ('patches are drawn', 'on every class'),
    ('nodes of all images', 'meet in one batch'),
    ('solid: pulled together', 'dashed: pushed apart'),
    ('a toy network, on', 'images it never saw'),
    ('your mmseg config,', 'unchanged'),
)
TOP, BOTTOM = 108, 628  # of the drawings
TILE, FRAME, SMALL = 70, 5, 52  # of a patch; of one in the graph
STREETS, PER_IMAGE, NODES = (11, 7, 4), 6, 16
SEGMENTED = 12  # a street with every class in its right half


def draw_overview() -> np.ndarray:
    """Draw the picture; every call draws the same one.

    Returns:
        (800, 1800, 3) uint8 RGB.
    """
    streets = [draw_street(seed) for seed in STREETS]
    patches = cut_patches(streets, PER_IMAGE, 128, seed=3)
    mixed = np.random.default_rng(2).permutation(len(patches.labels))[:NODES]
    canvas = Canvas(HEIGHT, WIDTH)
    axes = canvas.axes(0, 0, HEIGHT, WIDTH)  # in pixels, as all else
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(HEIGHT, 0)
    _write_texts(canvas, axes)
    _draw_images(canvas, streets, patches)
    _draw_grid(canvas, patches, mixed)
    _draw_graph(canvas, axes, patches.pixels[mixed], patches.labels[mixed])
    _draw_embeddings(canvas, *tune_toy())
    _draw_outcome(canvas, axes, *draw_street(SEGMENTED))
    _draw_legend(canvas)
    return canvas.render()


def _write_texts(canvas: Canvas, axes: Any) -> None:
    """Writes titles above, lines below, and arrows between the columns."""
    for number, ((left, width), title, lines) in enumerate(zip(COLUMNS, TITLES, LINES), 1):
        canvas.marker(48, left + 20, 'o', 42, INK)
        canvas.text(48, left + 20, str(number), size=26, bold=True, align='center', colour=PAPER)
        canvas.text(48, left + 50, title, size=25, bold=True)
        for row, line in enumerate(lines):
            middle = left + width / 2
            canvas.text(BOTTOM + 36 + 34 * row, middle, line, size=25, align='center')
        if number < len(COLUMNS):
            _arrow(axes, (left + width + 12, 368), (COLUMNS[number][0] - 12, 368))


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = dict(arrowstyle='-|>,head_width=.5,head_length=.7', lw=5, shrinkA=0, shrinkB=0)
    colour = tuple(value / 255 for value in FAINT)
    axes.annotate('', xy=end, xytext=start, arrowprops=dict(style, color=colour))


def _draw_images(canvas: Canvas, streets: list, patches: Patches) -> None:
    """Draws the images over each other, with their boxes in the colours of the classes."""
    left, side = COLUMNS[0][0], 224
    starts = np.cumsum([0, *patches.counts])
    for index, (image, _) in enumerate(streets):
        y, x = TOP + 148 * index, left + 53 * index
        canvas.fill(y - 4, x - 4, side + 8, side + 8, (255, 255, 255))
        canvas.paste(y, x, resize(image, side, side, 'area'))
        labels = patches.labels[starts[index] : starts[index + 1]]
        boxes = np.clip(np.round(patches.boxes[index] * (side / len(image))), 4, side - 4)
        for box, label in zip(boxes.astype(int), labels):
            y0, x0, y1, x1 = box + np.array((y, x, y, x))
            _frame(canvas, y0, x0, y1, x1, 9, INK)
            _frame(canvas, y0 + 2, x0 + 2, y1 - 2, x1 - 2, 5, tuple(COLOURS[label]))


def _frame(canvas: Canvas, y0: int, x0: int, y1: int, x1: int, thick: int, colour: tuple) -> None:
    """Draws a box's outline inside of it."""
    for y, x in ((y0, x0), (y1 - thick, x0)):
        canvas.fill(y, x, thick, x1 - x0, colour)
    for x in (x0, x1 - thick):
        canvas.fill(y0, x, y1 - y0, thick, colour)


def _draw_tile(canvas: Canvas, y: int, x: int, patch: np.ndarray, label: int, side: int) -> None:
    """Draws a patch in the frame of its class, ``side`` pixels with it."""
    inner = side - 2 * FRAME
    canvas.fill(y - 1, x - 1, side + 2, side + 2, INK)
    canvas.fill(y, x, side, side, tuple(COLOURS[label]))
    canvas.paste(y + FRAME, x + FRAME, resize(patch, inner, inner, 'area'))


def _draw_grid(canvas: Canvas, patches: Patches, mixed: np.ndarray) -> None:
    """Draws the mixed patches four in a row."""
    left, width = COLUMNS[1]
    pitch = (width - TILE) // 3
    top = (TOP + BOTTOM - 3 * pitch - TILE) // 2
    for place, node in enumerate(mixed):
        row, column = divmod(place, 4)
        where = top + row * pitch, left + column * pitch
        _draw_tile(canvas, *where, patches.pixels[node], patches.labels[node], TILE)


def _draw_graph(canvas: Canvas, axes: Any, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Draws the same patches sorted into classes, joined by graph and triplets."""
    drawn = torch.from_numpy(labels)
    edges = class_connected_graph(drawn, generator=torch.Generator().manual_seed(1)).T.numpy()
    triplets = graph_triplets(drawn, generator=torch.Generator().manual_seed(1))
    places = _in_circles(labels)
    for anchor, negative in list(zip(triplets.anchor.tolist(), triplets.negative.tolist()))[::2]:
        line = _between_tiles(*places[[anchor, negative]])
        axes.plot(*line.T, color='0.55', lw=3, dashes=(3, 2), zorder=0)
    for child, parent in edges:
        line = _between_tiles(*places[[child, parent]])
        axes.plot(*line.T, color='0.13', lw=11, solid_capstyle='butt', zorder=1)
        colour = COLOURS[labels[child]] / 255
        axes.plot(*line.T, color=colour, lw=7, solid_capstyle='butt', zorder=2)
    for (x, y), patch, label in zip(places, pixels, labels):
        _draw_tile(canvas, round(y - SMALL / 2), round(x - SMALL / 2), patch, label, SMALL)


def _between_tiles(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The part (2, 2) of a line between two middles of tiles that lies outside of both."""
    step = (end - start) / np.abs(end - start).max() * SMALL / 2
    return np.stack([start + step, end - step])


def _in_circles(labels: np.ndarray) -> np.ndarray:
    """Places nodes (N,) around the middle of their class, (N, 2) as (x, y) in pixels."""
    left, width = COLUMNS[2]
    present = np.unique(labels)
    places = np.zeros((len(labels), 2))
    for turn, label in enumerate(present):
        members = np.flatnonzero(labels == label)
        angle = 2 * np.pi * turn / len(present) - np.pi / 2
        x, y = (width / 2 - 92) * np.cos(angle), 172 * np.sin(angle)
        middle = np.array((left + width / 2 + x, (TOP + BOTTOM) / 2 + y))
        spokes = angle + 2 * np.pi * np.arange(len(members)) / len(members)
        reach = (0, 50, 54, 58, 66)[min(len(members), 5) - 1]
        places[members] = middle + reach * np.stack([np.cos(spokes), np.sin(spokes)], axis=1)
    return places


def _draw_embeddings(
    canvas: Canvas, before: np.ndarray, after: np.ndarray, labels: np.ndarray
) -> None:
    """Draws the toy network's embeddings, one panel over the other, on one scale."""
    left, side = COLUMNS[3][0] + 10, COLUMNS[3][1] - 20
    for index, (rows, title) in enumerate(((before, 'before'), (after, 'after tuning'))):
        top = TOP + 34 + index * (side + 38)
        canvas.fill(top, left, side, side, (200, 200, 200))
        canvas.fill(top + 2, left + 2, side - 4, side - 4, (250, 250, 250))
        centred = rows - rows.mean(axis=0)
        places = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
        middle = (places.max(axis=0) + places.min(axis=0)) / 2
        for (x, y), label in zip((places - middle) * side * 0.42, labels):
            colour = tuple(COLOURS[label])
            where = top + side / 2 + y, left + side / 2 + x
            canvas.marker(*where, MARKERS[label], 13, colour)
        canvas.text(top - 18, left, title, size=23)


def _draw_outcome(canvas: Canvas, axes: Any, image: np.ndarray, label_map: np.ndarray) -> None:
    """Draws the backbone that is handed over, and a segmented image."""
    left, width = COLUMNS[4]
    middle = left + width / 2
    for layer, high in enumerate((150, 122, 94, 66, 38)):
        x = left + 22 + 40 * layer
        canvas.fill(TOP + 80 - high // 2, x, high, 28, INK)
        canvas.fill(TOP + 82 - high // 2, x + 2, high - 4, 24, (0, 114, 178))
    name = 'tuned_backbone.pth'
    size = next(s for s in (22, 21, 20, 19, 18) if text_width(name, size=s) <= width)
    canvas.text(TOP + 186, middle, name, size=size, align='center')
    _arrow(axes, (middle, TOP + 212), (middle, TOP + 272))
    shown = resize(COLOURS[label_map].astype(np.uint8), width, width, 'nearest')
    half = resize(image, width, width, 'area').copy()
    half[:, width // 2 :] = shown[:, width // 2 :]
    half[:, width // 2 - 2 : width // 2 + 2] = 255
    canvas.fill(BOTTOM - width - 2, left - 2, width + 4, width + 4, FAINT)
    canvas.paste(BOTTOM - width, left, half)


def _draw_legend(canvas: Canvas) -> None:
    """Names the classes at the bottom."""
    widths = [64 + text_width(name, size=25) + 40 for name in CLASSES]
    x = (WIDTH - sum(widths)) / 2
    for label, (name, width) in enumerate(zip(CLASSES, widths)):
        canvas.fill(744, int(x), 34, 34, INK)
        canvas.fill(746, int(x) + 2, 30, 30, tuple(COLOURS[label]))
        ink = text_colour(COLOURS[label])
        canvas.marker(761, x + 17, MARKERS[label], 14, ink)
        canvas.text(761, x + 46, name, size=25)
        x += width
