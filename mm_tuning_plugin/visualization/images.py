"""Pictures as arrays: resized, hatched, cut to a size, saved.

Shape legend: H, W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mm_tuning_plugin.atomic_write import atomic_write

from .checks import as_rgb

WHITE = (255, 255, 255)
INK = (33, 33, 33)
FAINT = (110, 110, 110)
PAPER = (236, 236, 236)
_HATCHED = (150, 150, 150), (205, 205, 205)  # ground and lines
_RESAMPLING = {
    'nearest': Image.Resampling.NEAREST,
    'area': Image.Resampling.BOX,
    'smooth': Image.Resampling.BICUBIC,
}


def resize(picture: np.ndarray, height: int, width: int, how: str) -> np.ndarray:
    """Resizes a picture or a map.

    Args:
        picture: (H, W, 3) or (H, W) uint8 or (H, W) bool.
        height: Of the result, pixels.
        width: Of the result, pixels.
        how: 'nearest'; 'area' (each pixel the mean of what it covers); 'smooth' (bicubic).

    Returns:
        (height, width[, 3]), of the same type.
    """
    if picture.shape[:2] == (height, width):
        return picture
    source = Image.fromarray(np.ascontiguousarray(picture, dtype=np.uint8))
    resized = np.asarray(source.resize((width, height), _RESAMPLING[how]))
    return resized.astype(picture.dtype)


def tile_of(patch: np.ndarray, side: int) -> np.ndarray:
    """Resizes a square patch (S, S, 3) to (side, side, 3)."""
    return resize(patch, side, side, 'area' if min(patch.shape[:2]) > side else 'smooth')


def blank(height: int, width: int, colour: tuple = WHITE) -> np.ndarray:
    """Returns an (H, W, 3) uint8 picture of one colour."""
    return np.full((height, width, 3), colour, dtype=np.uint8)


def hatch(height: int, width: int) -> np.ndarray:
    """Returns an (H, W, 3) uint8 picture of slanting lines on grey: nothing is there."""
    rows, columns = np.indices((height, width))
    ground, lines = _HATCHED
    return np.where(((rows + columns) % 8 < 2)[..., None], lines, ground).astype(np.uint8)


def frame(page: np.ndarray, box: Sequence[int], thick: int, colour: Sequence[int]) -> None:
    """Draws the outline of a box (y0, x0, y1, x1) inside the box, clipped to the page."""
    y0, x0, y1, x1 = box

    def within(inset: int) -> tuple[slice, slice]:
        rows = slice(max(y0 + inset, 0), max(y1 - inset, 0))
        return rows, slice(max(x0 + inset, 0), max(x1 - inset, 0))

    inner = page[within(thick)].copy()
    page[within(0)] = colour
    page[within(thick)] = inner


def swatch(
    page: np.ndarray, top: int, left: int, height: int, width: int, colour: Sequence[int]
) -> None:
    """Fills a rectangle inside the page, with a thin grey edge."""
    page[top : top + height, left : left + width] = FAINT
    page[top + 1 : top + height - 1, left + 1 : max(left + width - 1, left + 1)] = colour


def mark_middle(patches: np.ndarray) -> np.ndarray:
    """Copies patches (..., S, S, 3) and draws a ring around their middle, where the point is."""
    side = patches.shape[-2]
    rows, columns = np.indices((side, side)) + 0.5
    off = np.abs(np.hypot(rows - side / 2, columns - side / 2) - 5)
    marked = patches.copy()
    marked[..., off <= 2, :] = INK
    marked[..., off <= 1, :] = WHITE
    return marked


def save_image(path: str | os.PathLike, rgb: np.ndarray) -> None:
    """Writes a picture atomically.

    Args:
        path: The file; missing folders are made. The suffix (.png, .jpg, .jpeg) decides the format.
        rgb: (H, W, 3) uint8 RGB.

    Raises:
        ValueError: if the suffix is unknown, or ``rgb`` has another shape or type.
        UserError: if the file cannot be written; nothing is left behind then.
    """
    target = Path(path)
    formats = {'.png': 'PNG', '.jpg': 'JPEG', '.jpeg': 'JPEG'}
    if target.suffix.lower() not in formats:
        raise ValueError(f'path: expected a name ending in .png, .jpg or .jpeg, got {str(path)!r}')
    picture = Image.fromarray(np.ascontiguousarray(as_rgb(rgb, 'rgb')))
    with atomic_write(target) as temporary:
        picture.save(temporary, format=formats[target.suffix.lower()])
