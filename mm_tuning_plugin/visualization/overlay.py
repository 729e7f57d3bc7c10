"""Nodes on the images that they come from.

Shape legend: H, W pixels; P nodes of one image; K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .checks import as_labels, as_rgb, as_size, require
from .drawing import Entry, draw_legend, drawing, stack, text_width, write
from .images import PAPER, blank, frame, hatch, resize, tile_of
from .palette import as_classes, text_colour

_NAME = 11  # size of a name on the image, pixels; larger on a large one
_LARGE = 1000  # longer side from which on letters grow with the image, pixels
_MARGIN = 10  # around the legend, pixels
_SMALL = 480  # a smaller image is enlarged by a whole number to about this, pixels


def node_overlay(
    image: np.ndarray,
    nodes: np.ndarray,
    labels: np.ndarray,
    palette: np.ndarray | Sequence[Sequence[int]],
    class_names: Sequence[str],
    *,
    scale: float | None = None,
    show_outside: bool = True,
    legend: bool = True,
) -> np.ndarray:
    """Draws an image's nodes over it, in the colours of their classes.

    A box's line is inside the box, with a contrast line on both sides. Small boxes are
    drawn over large ones. A box has the name of its class if there is room.

    Args:
        image: (H, W, 3) uint8 RGB.
        nodes: (P, 4) boxes, (y0, x0, y1, x1) in pixels, half-open, which may reach outside; or
            (P, 2) points, (y, x), indices of pixels.
        labels: (P,) integers in 0..K-1.
        palette: (K, 3) RGB in 0..255.
        class_names: K names.
        scale: Shown pixels per pixel of the image. None: 1, or a whole number for a small image.
        show_outside: Whether the image gets a plain margin where boxes reach outside, as wide as
            they need, but on no side wider than the image's longer side.
        legend: Whether the classes present are listed, with their numbers of nodes, below.

    Returns:
        (H', W', 3) uint8 RGB. Without nodes the image alone.

    Raises:
        ValueError: if an argument has another shape, type or range.
    """
    names, colours = as_classes(class_names, palette)
    image = as_rgb(image, 'image')
    nodes = as_nodes(nodes, 'nodes')
    labels = as_labels(labels, len(names), 'labels', (len(nodes),))
    if scale is None:
        scale = max(1, round(_SMALL / max(image.shape[:2])))
    require(0 < scale <= 64, 'scale', 'a number in (0, 64]', repr(scale))
    page, nodes = _placed(image, nodes, scale, show_outside)
    letters = max(1.0, max(page.shape[:2]) / _LARGE)
    if nodes.shape[1] == 2:
        _draw_points(page, nodes, colours[labels])
    elif len(nodes):
        _draw_boxes(page, nodes, labels, colours)
        _name_boxes(page, nodes, labels, colours, names, round(_NAME * letters))
    if legend and len(nodes):
        return stack(page, _legend(labels, colours, names, max(page.shape[1], 260), letters))
    return page


def cut_nodes(image: np.ndarray, nodes: np.ndarray, size: int, *, window: int = 65) -> np.ndarray:
    """Cuts nodes out of an image, for looking at; `functional.crop_and_resize` is for training.

    Args:
        image: (H, W, 3) uint8 RGB.
        nodes: (P, 4) boxes or (P, 2) points, as in `node_overlay`.
        size: Side S of the result, pixels.
        window: Side of the square around a point, in pixels.

    Returns:
        (P, S, S, 3) uint8 RGB; pixels outside the image are grey and hatched.

    Raises:
        ValueError: if an argument has another shape, type or range.
    """
    image, nodes = as_rgb(image, 'image'), as_nodes(nodes, 'nodes')
    size, window = as_size(size, 'size'), as_size(window, 'window')
    if nodes.shape[1] == 2:
        corner = nodes - window // 2
        nodes = np.concatenate([corner, corner + window], axis=1)
    cut = np.empty((len(nodes), size, size, 3), dtype=np.uint8)
    for index, (y0, x0, y1, x1) in enumerate(nodes.tolist()):
        patch, top, left = hatch(y1 - y0, x1 - x0), max(y0, 0), max(x0, 0)
        inside = image[top : max(y1, 0), left : max(x1, 0)]
        height, width = inside.shape[:2]
        patch[top - y0 : top - y0 + height, left - x0 : left - x0 + width] = inside
        cut[index] = tile_of(patch, size)
    return cut


def as_nodes(nodes: np.ndarray, name: str) -> np.ndarray:
    """Returns (P, 4) boxes or (P, 2) points as int64."""
    array = np.asarray(nodes)
    if array.size == 0 and array.ndim <= 2:
        columns = array.shape[1] if array.ndim == 2 and array.shape[1] in (2, 4) else 4
        return np.zeros((0, columns), dtype=np.int64)
    fits = array.ndim == 2 and array.shape[1] in (2, 4)
    require(fits, name, 'boxes of shape (P, 4) or points of shape (P, 2)', array)
    require(np.issubdtype(array.dtype, np.integer), name, 'whole pixels, integers', array)
    array = array.astype(np.int64)
    if array.shape[1] == 4:
        empty = array[(array[:, 2:] <= array[:, :2]).any(axis=1)]
        require(not len(empty), name, 'boxes with y0 < y1 and x0 < x1', empty[:1].tolist())
    return array


def extent(image: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the corners (y, x) of what image and boxes cover, in pixels of the image."""
    limit = np.array(image.shape[:2])
    low, high = np.zeros_like(limit), limit
    if nodes.shape[1] == 4 and len(nodes):
        low = np.maximum(np.minimum(low, nodes[:, :2].min(axis=0)), -limit.max())
        high = np.minimum(np.maximum(high, nodes[:, 2:].max(axis=0)), limit + limit.max())
    return low, high


def _placed(
    image: np.ndarray, nodes: np.ndarray, scale: float, show_outside: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scaled image with the margin that its nodes need, and the nodes on it, pixels."""
    limit = np.array(image.shape[:2])
    low, high = extent(image, nodes) if show_outside else (np.zeros_like(limit), limit)
    height, width = (max(1, round(side * scale)) for side in limit)
    y, x = np.round(-low * scale).astype(np.int64)
    beyond = np.round((high - limit) * scale).astype(np.int64)
    page = blank(y + height + beyond[0], x + width + beyond[1], PAPER)
    how = 'area' if scale < 1 else 'nearest' if scale == int(scale) else 'smooth'
    page[y : y + height, x : x + width] = resize(image, height, width, how)
    if nodes.shape[1] == 2:
        return page, (nodes + 0.5) * scale + np.array((y, x))
    return page, np.round(nodes * scale).astype(np.int64) + np.array((y, x, y, x))


def _draw_boxes(
    page: np.ndarray, boxes: np.ndarray, labels: np.ndarray, colours: np.ndarray
) -> None:
    """Draws boxes (P, 4), the largest first, each with a contrast line around both sides."""
    thick = max(2, round(max(page.shape[:2]) / 240))
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for index in np.argsort(-area, kind='stable'):
        colour = colours[labels[index]]
        frame(page, boxes[index] + np.array((-1, -1, 1, 1)), thick + 2, text_colour(colour))
        frame(page, boxes[index], thick, colour)


def _name_boxes(
    page: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    colours: np.ndarray,
    names: list[str],
    size: int,
) -> None:
    """Writes each box's class into a free corner, or above a small box."""
    height, width = page.shape[:2]
    tall = round(1.45 * size)
    taken = np.zeros((height, width), dtype=bool)
    with drawing(page) as figure:
        for (y0, x0, y1, x1), label in zip(boxes.tolist(), labels):
            name, colour = names[label], colours[label]
            long = math.ceil(text_width(name, size) + 0.7 * size)
            if long > max(x1 - x0, 9 * size):
                continue
            within = [(y0, x0), (y1 - tall, x0), (y0, x1 - long), (y1 - tall, x1 - long)]
            beyond = [(y0 - tall, x0), (y1, x0)]
            small = long > x1 - x0 or 3 * tall > y1 - y0  # a name inside would hide the pixels
            for top, left in beyond + within if small else within + beyond:
                spot = slice(top, top + tall), slice(left, left + long)
                inside = 0 <= top <= height - tall and 0 <= left <= width - long
                if inside and not taken[spot].any():
                    taken[spot], page[spot] = True, colour
                    x, y = left + 0.35 * size, top + tall / 2
                    write(figure, x, y, name, size, colour=text_colour(colour))
                    break


def _draw_points(page: np.ndarray, centres: np.ndarray, colours: np.ndarray) -> None:
    """Draws points (P, 2) of colours (P, 3) as discs with a contrast ring."""
    height, width = page.shape[:2]
    radius = max(3.0, max(height, width) / 160)
    reach = math.ceil(radius + 2)
    for (y, x), colour in zip(centres, colours):
        rows = slice(max(0, int(y) - reach), max(0, int(y) + reach + 1))
        columns = slice(max(0, int(x) - reach), max(0, int(x) + reach + 1))
        window = page[rows, columns]  # clip to the page
        ys, xs = np.indices(window.shape[:2]) + 0.5
        distance = np.hypot(ys + rows.start - y, xs + columns.start - x)
        window[distance <= radius + 1.5] = text_colour(colour)
        window[distance <= radius] = colour


def _legend(
    labels: np.ndarray, colours: np.ndarray, names: list[str], width: int, letters: float
) -> np.ndarray:
    """Lists the classes of an image with their numbers of nodes; (H, W, 3)."""
    present, counts = np.unique(labels, return_counts=True)
    entries = [
        Entry(i, f'{names[i]} ({-count})', colours[i])
        for count, i in sorted(zip(-counts, present.tolist()))
    ]
    return draw_legend(entries, width, margin=_MARGIN, scale=letters)
