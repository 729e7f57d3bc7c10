"""One picture of what the package does, from labelled images to a tuned backbone.

Everything in it is computed by the package: patches, graph, triplets, and a toy network's
embeddings of streets that it was not tuned on. Drawn for a width of 900 pixels, at twice that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from overview_scene import CLASSES, Patches, cut_patches, draw_street, tune_toy

from mm_tuning_plugin.functional import class_connected_graph, graph_triplets
from mm_tuning_plugin.visualization.drawing import drawing, mark, pixel_axes, text_width, write
from mm_tuning_plugin.visualization.images import FAINT, INK, PAPER, WHITE, blank, frame, resize
from mm_tuning_plugin.visualization.palette import text_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    page = blank(HEIGHT, WIDTH)
    with drawing(page) as figure:
        axes = pixel_axes(figure)
        _write_texts(figure, axes)
        _draw_images(page, streets, patches)
        for place, node in enumerate(mixed):
            _draw_tile(page, *_in_grid(place), patches.pixels[node], patches.labels[node], TILE)
        _draw_graph(page, axes, patches.pixels[mixed], patches.labels[mixed])
        _draw_embeddings(page, figure, *tune_toy())
        _draw_outcome(page, figure, axes, *draw_street(SEGMENTED))
        _draw_legend(page, figure)
    return page


def _write_texts(figure: Figure, axes: Axes) -> None:
    """Writes titles above, lines below, and arrows between the columns."""
    for number, ((left, width), title, lines) in enumerate(zip(COLUMNS, TITLES, LINES), 1):
        mark(figure, left + 20, 48, 'o', 42, INK)
        write(figure, left + 20, 48, str(number), 26, bold=True, ha='center', colour=PAPER)
        write(figure, left + 50, 48, title, 25, bold=True)
        for row, line in enumerate(lines):
            write(figure, left + width / 2, BOTTOM + 36 + 34 * row, line, 25, ha='center')
        if number < len(COLUMNS):
            _arrow(axes, (left + width + 12, 368), (COLUMNS[number][0] - 12, 368))


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = dict(arrowstyle='-|>,head_width=.5,head_length=.7', lw=4.4, shrinkA=0, shrinkB=0)
    look = dict(style, color=np.array(FAINT) / 255, mutation_scale=8.9)
    axes.annotate('', xy=end, xytext=start, arrowprops=look)


def _draw_images(page: np.ndarray, streets: list, patches: Patches) -> None:
    """Draws the images over each other, with their boxes in the colours of the classes."""
    left, side = COLUMNS[0][0], 224
    starts = np.cumsum([0, *patches.counts])
    for index, (image, _) in enumerate(streets):
        y, x = TOP + 148 * index, left + 53 * index
        frame(page, (y - 4, x - 4, y + side + 4, x + side + 4), 4, WHITE)
        page[y : y + side, x : x + side] = resize(image, side, side, 'area')
        labels = patches.labels[starts[index] : starts[index + 1]]
        boxes = np.clip(np.round(patches.boxes[index] * (side / len(image))), 4, side - 4)
        for box, label in zip(boxes.astype(int) + np.array((y, x, y, x)), labels):
            frame(page, box, 9, INK)
            frame(page, box + np.array((2, 2, -2, -2)), 5, COLOURS[label])


def _draw_tile(page: np.ndarray, y: int, x: int, patch: np.ndarray, label: int, side: int) -> None:
    """Draws a patch in the frame of its class, ``side`` pixels with it."""
    inner = side - 2 * FRAME
    frame(page, (y - 1, x - 1, y + side + 1, x + side + 1), 1, INK)
    page[y : y + side, x : x + side] = COLOURS[label]
    y, x = y + FRAME, x + FRAME
    page[y : y + inner, x : x + inner] = resize(patch, inner, inner, 'area')


def _in_grid(place: int) -> tuple[int, int]:
    """Places the mixed patches four in a row; top and left in pixels."""
    left, width = COLUMNS[1]
    pitch = (width - TILE) // 3
    top = (TOP + BOTTOM - 3 * pitch - TILE) // 2
    return top + place // 4 * pitch, left + place % 4 * pitch


def _draw_graph(page: np.ndarray, axes: Axes, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Draws the same patches sorted into classes, joined by graph and triplets."""
    drawn = torch.from_numpy(labels)
    edges = class_connected_graph(drawn, generator=torch.Generator().manual_seed(1)).T.numpy()
    triplets = graph_triplets(drawn, generator=torch.Generator().manual_seed(1))
    places = _in_circles(labels)
    for anchor, negative in list(zip(triplets.anchor.tolist(), triplets.negative.tolist()))[::2]:
        line = _between_tiles(*places[[anchor, negative]])
        axes.plot(*line.T, color='0.55', lw=2.7, dashes=(3, 2), zorder=0)
    for child, parent in edges:
        line = _between_tiles(*places[[child, parent]])
        axes.plot(*line.T, color='0.13', lw=9.8, solid_capstyle='butt', zorder=1)
        colour = COLOURS[labels[child]] / 255
        axes.plot(*line.T, color=colour, lw=6.2, solid_capstyle='butt', zorder=2)
    for (x, y), patch, label in zip(places, pixels, labels):
        _draw_tile(page, round(y - SMALL / 2), round(x - SMALL / 2), patch, label, SMALL)


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
    page: np.ndarray, figure: Figure, before: np.ndarray, after: np.ndarray, labels: np.ndarray
) -> None:
    """Draws the toy network's embeddings, one panel over the other, on one scale."""
    left, side = COLUMNS[3][0] + 10, COLUMNS[3][1] - 20
    for index, (rows, title) in enumerate(((before, 'before'), (after, 'after tuning'))):
        top = TOP + 34 + index * (side + 38)
        page[top : top + side, left : left + side] = 250
        frame(page, (top, left, top + side, left + side), 2, (200, 200, 200))
        centred = rows - rows.mean(axis=0)
        places = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
        middle = (places.max(axis=0) + places.min(axis=0)) / 2
        for (x, y), label in zip((places - middle) * side * 0.42 + side / 2, labels):
            mark(figure, left + x, top + y, MARKERS[label], 13, COLOURS[label])
        write(figure, left, top - 18, title, 23)


def _draw_outcome(
    page: np.ndarray, figure: Figure, axes: Axes, image: np.ndarray, label_map: np.ndarray
) -> None:
    """Draws the backbone that is handed over, and a segmented image."""
    left, width = COLUMNS[4]
    middle = left + width / 2
    for layer, high in enumerate((150, 122, 94, 66, 38)):
        box = np.array((TOP + 80 - high // 2, left + 22, TOP + 80 + high // 2, left + 50))
        y0, x0, y1, x1 = box + np.array((0, 40 * layer, 0, 40 * layer))
        page[y0:y1, x0:x1] = (0, 114, 178)
        frame(page, (y0, x0, y1, x1), 2, INK)
    name = 'tuned_backbone.pth'
    size = next(s for s in (22, 21, 20, 19, 18) if text_width(name, s) <= width)
    write(figure, middle, TOP + 186, name, size, ha='center')
    _arrow(axes, (middle, TOP + 212), (middle, TOP + 272))
    half = resize(image, width, width, 'area').copy()
    shown = resize(COLOURS[label_map].astype(np.uint8), width, width, 'nearest')
    half[:, width // 2 :] = shown[:, width // 2 :]
    half[:, width // 2 - 2 : width // 2 + 2] = 255
    page[BOTTOM - width : BOTTOM, left : left + width] = half
    frame(page, (BOTTOM - width - 2, left - 2, BOTTOM + 2, left + width + 2), 2, FAINT)


def _draw_legend(page: np.ndarray, figure: Figure) -> None:
    """Names the classes at the bottom."""
    widths = [64 + text_width(name, 25) + 40 for name in CLASSES]
    x = (WIDTH - sum(widths)) / 2
    for colour, marker, name, width in zip(COLOURS, MARKERS, CLASSES, widths):
        page[744:778, int(x) : int(x) + 34] = colour
        frame(page, (744, int(x), 778, int(x) + 34), 2, INK)
        mark(figure, x + 17, 761, marker, 14, text_colour(colour))
        write(figure, x + 46, 761, name, 25)
        x += width
