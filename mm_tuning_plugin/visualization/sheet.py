"""One picture of a whole batch: its images with their nodes, and the mixed nodes by class.

Shape legend: H, W pixels; P nodes of one image; S x S pixels of a patch; K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .checks import as_rgb, as_size, require, same_length
from .drawing import drawing, stack, write
from .images import FAINT, blank, mark_middle
from .mosaic import patch_mosaic
from .overlay import as_nodes, cut_nodes, extent, node_overlay
from .palette import as_classes

_MARGIN = 10  # around the page and between images, pixels
_LINE = 26  # of text above the images, pixels
_MANY = 24  # more classes have fewer nodes shown of each


def node_sheet(
    images: Sequence[np.ndarray],
    nodes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    palette: np.ndarray | Sequence[Sequence[int]],
    class_names: Sequence[str],
    *,
    patches: Sequence[np.ndarray] | None = None,
    window: int = 65,
    max_per_class: int | None = None,
    tile: int = 64,
    cell: int = 360,
    max_images: int | None = None,
) -> np.ndarray:
    """Shows one batch: its images with their nodes above, the mixed nodes by class below.

    Within each class the images take turns.

    Args:
        images: (H, W, 3) uint8 RGB each, of any sizes, at least one.
        nodes: (P, 4) boxes or (P, 2) points of each image, as in `node_overlay`.
        labels: (P,) integers in 0..K-1 for each image.
        palette: (K, 3) RGB in 0..255.
        class_names: K names.
        patches: (P, S, S, 3) uint8 RGB for each image, what the backbone sees. None: cut out of
            the images here, points with a ring around them.
        window: Side of the square around a point, in pixels.
        max_per_class: As in `patch_mosaic`. None: 8, or 4 where more than 24 classes have nodes.
        tile: As in `patch_mosaic`.
        cell: Longer side of a shown image with its margin, pixels, at least 64.
        max_images: Images shown at most, the first ones, and a line that says so. The nodes below
            are those of all. None: all.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        ValueError: if an argument has another shape, type, range or number of entries.
    """
    names, colours = as_classes(class_names, palette)
    tile, cell = as_size(tile, 'tile', minimum=8), as_size(cell, 'cell', minimum=64)
    window = as_size(window, 'window')
    require(len(images) > 0, 'images', 'at least one image', 'none')
    same_length('nodes', nodes, len(images), 'images')
    same_length('labels', labels, len(images), 'images')
    if patches is None:
        patches = [_cut(i, n, tile, window) for i, n in zip(images, nodes)]
    same_length('patches', patches, len(images), 'images')
    for index, some in enumerate(patches):
        same_length(f'patches[{index}]', some, len(nodes[index]), 'nodes')
    filled = [np.asarray(some) for some in patches if len(some)]
    found = sorted({some.shape[1:] for some in filled})
    require(len(found) < 2, 'patches', 'one size for all images', found)
    mixed = np.concatenate(filled) if filled else np.zeros((0, 1, 1, 3), dtype=np.uint8)
    flat = np.concatenate([np.asarray(some).reshape(-1) for some in labels]).astype(np.int64)
    order = _in_turn(labels)
    if max_per_class is None:
        max_per_class = 8 if len(np.unique(flat)) <= _MANY else 4
    shown = []
    most = len(images) if max_images is None else as_size(max_images, 'max_images')
    for image, some, its_labels in zip(images[:most], nodes, labels):
        low, high = extent(as_rgb(image, 'images'), as_nodes(some, 'nodes'))
        scale = min(cell / int((high - low).max()), 64)
        shown.append(
            node_overlay(image, some, its_labels, colours, names, scale=scale, legend=False)
        )
    grid = _grid(shown)
    parts = [grid]
    if most < len(images):
        parts.insert(0, blank(_LINE, grid.shape[1]))
        with drawing(parts[0]) as figure:
            line = f'{most} of {len(images)} images'
            write(figure, _MARGIN, _LINE / 2 + 4, line, 14, bold=True)
    mosaic = patch_mosaic(
        mixed[order],
        flat[order],
        names,
        colours,
        max_per_class=max_per_class,
        tile=tile,
        width=grid.shape[1],
    )
    between = blank(1, max(grid.shape[1], mosaic.shape[1]), FAINT)
    return stack(*parts, between, mosaic)


def _cut(image: np.ndarray, nodes: np.ndarray, tile: int, window: int) -> np.ndarray:
    """Cuts nodes out of an image; of points, the middle is marked."""
    patches = cut_nodes(image, nodes, tile, window=window)
    return mark_middle(patches) if as_nodes(nodes, 'nodes').shape[1] == 2 else patches


def _in_turn(labels: Sequence[np.ndarray]) -> np.ndarray:
    """Orders the nodes of all images such that, within each class, the images take turns."""
    turns = [np.tril(np.equal.outer(some, some), -1).sum(axis=1) for some in map(np.ravel, labels)]
    return np.argsort(np.concatenate(turns), kind='stable')


def _grid(pictures: list[np.ndarray]) -> np.ndarray:
    """Sets pictures in equal columns, about half again as many as rows, with few empty places."""
    count = len(pictures)
    about = max(2, math.ceil(math.sqrt(1.5 * count)))
    columns = min(count, min((about, about + 1, about - 1), key=lambda c: -count % max(c, 2)))
    wide = max(picture.shape[1] for picture in pictures) + _MARGIN
    rows = [blank(_MARGIN, columns * wide + _MARGIN)]
    for start in range(0, count, columns):
        shown = pictures[start : start + columns]
        row = blank(max(picture.shape[0] for picture in shown) + _MARGIN, rows[0].shape[1])
        for place, picture in enumerate(shown):
            left = _MARGIN + place * wide
            row[: picture.shape[0], left : left + picture.shape[1]] = picture
        rows.append(row)
    return np.concatenate(rows)
