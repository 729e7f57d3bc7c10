"""Textures of the demo scenes: pure functions from coordinates to a pattern in [0, 1].

Shape legend: h, w rows and columns of the window that is drawn.

Every texture has two phases: 1 is the figure (the dot, the brick, the bright bar), 0 what lies
between. A surface then gives each phase a luma and a chroma of its own. Luma and chroma are
separate (YUV), so that the grey version of a scene holds its whole structure, whatever the hue.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

TWO_PI = 2.0 * np.pi


class Window(NamedTuple):
    """Pixel coordinates of a window, turned and shifted at random so that no texture is aligned.

    Attributes:
        u: (h, w) float32, in pixels, along the texture.
        v: (h, w) float32, in pixels, across it.
        unit: Pixels that make up one unit of length: 1 at an image side of 128.
    """

    u: np.ndarray
    v: np.ndarray
    unit: float


def make_window(
    rng: Generator, shape: tuple[int, int], unit: float, *, max_turn: float = np.pi
) -> Window:
    """Draws the frame of a texture.

    Args:
        rng: Source of the draw.
        shape: (h, w) in pixels.
        unit: Pixels in one unit of length.
        max_turn: The frame is turned by an angle uniform in [-max_turn, max_turn], in radians.

    Returns:
        The coordinates, both (h, w).
    """
    angle = rng.uniform(-max_turn, max_turn)
    shift = rng.uniform(0.0, 100.0 * unit, size=2)
    y = np.arange(shape[0], dtype=np.float32)[:, None]
    x = np.arange(shape[1], dtype=np.float32)[None, :]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return Window(
        cos * x + sin * y + np.float32(shift[0]), cos * y - sin * x + np.float32(shift[1]), unit
    )


def _sharpen(wave: np.ndarray, edge: float) -> np.ndarray:
    """(h, w) wave in [-1, 1] -> (h, w) in [0, 1]; the larger ``edge``, the harder the flanks."""
    return np.clip(0.5 + 0.5 * edge * wave, 0.0, 1.0)


def _period(rng: Generator, window: Window, low: float, high: float) -> np.float32:
    """A period in pixels, log-uniform between ``low`` and ``high`` units, never below 3 pixels."""
    return np.float32(max(3.0, window.unit * np.exp(rng.uniform(np.log(low), np.log(high)))))


def smooth(rng: Generator, window: Window) -> np.ndarray:
    """(h, w) float32: a gentle gradient across the whole window, with one slow wave in it."""
    span = max(window.u.shape) + 1.0
    ramp = (window.v - window.v.min()) / span
    wave = np.sin(TWO_PI * window.u / (rng.uniform(0.8, 2.0) * span))
    return np.clip(0.8 * ramp + 0.2 * (0.5 + 0.5 * wave), 0.0, 1.0)


def noise_octaves(rng: Generator, window: Window) -> np.ndarray:
    """(h, w) float32: value noise, four octaves down to two pixels, roughness drawn."""
    h, w = window.u.shape
    total = np.zeros((h, w), dtype=np.float32)
    persistence = rng.uniform(0.6, 0.95)
    coarsest = _period(rng, window, 12.0, 24.0)
    for octave in range(4):
        cell = max(2.0, coarsest / 2.0**octave)
        grid = rng.standard_normal((int(h / cell) + 3, int(w / cell) + 3)).astype(np.float32)
        full = (int(grid.shape[1] * cell), int(grid.shape[0] * cell))
        layer = cv2.resize(grid, full, interpolation=cv2.INTER_LINEAR)
        total += np.float32(persistence**octave) * layer[:h, :w]
    return np.clip(0.5 + 0.3 * total, 0.0, 1.0)


def stripes(rng: Generator, window: Window) -> np.ndarray:
    """(h, w) float32: parallel bars."""
    period = _period(rng, window, 4.5, 12.0)
    return _sharpen(np.sin(TWO_PI * window.u / period), rng.uniform(1.0, 4.0))


def checks(rng: Generator, window: Window) -> np.ndarray:
    """(h, w) float32: a chessboard."""
    period = _period(rng, window, 7.0, 16.0)
    wave = np.sin(TWO_PI * window.u / period) * np.sin(TWO_PI * window.v / period)
    return _sharpen(wave, rng.uniform(2.0, 5.0))


def dots(rng: Generator, window: Window) -> np.ndarray:
    """(h, w) float32: round dots on a grid whose rows are offset by half a cell."""
    cell = _period(rng, window, 6.0, 13.0)
    row = np.floor(window.v / cell)
    u = np.mod(window.u / cell + 0.5 * np.mod(row, 2.0), 1.0) - 0.5
    v = window.v / cell - row - 0.5
    radius = rng.uniform(0.27, 0.38)
    distance = np.sqrt(u * u + v * v)
    return np.clip(0.5 + (radius - distance) * cell, 0.0, 1.0)


def bricks(rng: Generator, window: Window) -> np.ndarray:
    """(h, w) float32: oblong bricks in running bond, 1 inside and 0 in the mortar."""
    height = _period(rng, window, 5.0, 10.0)
    width = height * np.float32(rng.uniform(1.8, 2.6))
    joint = max(1.0, 0.16 * height)
    row = np.floor(window.v / height)
    along = np.mod(window.u + 0.5 * width * np.mod(row, 2.0), width)
    across = window.v - row * height
    inside = np.minimum(np.minimum(along, width - along), np.minimum(across, height - across))
    return np.clip(inside - 0.5 * joint + 0.5, 0.0, 1.0)


def zigzag(rng: Generator, window: Window) -> np.ndarray:
    """(h, w) float32: bars that run in a triangle wave."""
    period = _period(rng, window, 5.0, 9.0)
    length = period * np.float32(rng.uniform(1.6, 2.4))
    triangle = np.abs(np.mod(window.v / length, 1.0) - 0.5) * 2.0
    return _sharpen(
        np.sin(TWO_PI * (window.u / period + rng.uniform(0.9, 1.3) * triangle)),
        rng.uniform(1.5, 4.0),
    )


def speckle(rng: Generator, window: Window) -> np.ndarray:
    """(h, w) float32: independent salt and pepper; the surface of unlabelled pixels."""
    return (rng.random(window.u.shape, dtype=np.float32) < rng.uniform(0.3, 0.7)).astype(np.float32)


Texture = Callable[[Generator, Window], np.ndarray]


class Surface(NamedTuple):
    """How one class is painted.

    Attributes:
        texture: The pattern.
        hue: The hue it favours a little, in radians: see ``FAVOURED``.
        max_turn: Half the range of angles of the texture, in radians.
    """

    texture: Texture
    hue: float
    max_turn: float = np.pi


FAVOURED = 0.2
"""Share of surfaces that take their class's hue, give or take half a radian; all others take any.

With none, the hue of a surface could not be told from its grey version at all, and colorization
would have no more to learn than where colour is strong and where it is weak.
"""


def paint(
    rng: Generator, surface: Surface, shape: tuple[int, int], unit: float, *, contrast: float = 1.0
) -> np.ndarray:
    """Paints a window with a texture in colours drawn at random.

    Luma (mean, contrast, which phase is the brighter one) has the same distribution for every
    class. Hue is uniform except for the share ``FAVOURED``. The figure is more colourful than the
    gaps.

    Args:
        rng: Source of every draw.
        surface: What to paint.
        shape: (h, w) in pixels.
        unit: Pixels in one unit of length.
        contrast: Factor on the contrast of luma.

    Returns:
        (h, w, 3) float32 YUV: Y in about [0, 1], U and V around 0, within about 0.3.
    """
    pattern = surface.texture(rng, make_window(rng, shape, unit, max_turn=surface.max_turn))
    middle = rng.uniform(0.32, 0.68)
    half = contrast * rng.uniform(0.09, 0.24) * rng.choice([-1.0, 1.0])
    hue = rng.uniform(-np.pi, np.pi)
    if rng.random() < FAVOURED:
        hue = surface.hue + rng.uniform(-0.5, 0.5)
    strong = rng.uniform(0.10, 0.26)
    weak = strong * rng.uniform(0.0, 0.5)
    other = hue + rng.normal(0.0, 0.6)
    figure = (middle + half, strong * np.cos(hue), strong * np.sin(hue))
    between = (middle - half, weak * np.cos(other), weak * np.sin(other))
    mix = pattern.astype(np.float32)[..., None]
    return np.asarray(between, np.float32) * (1.0 - mix) + np.asarray(figure, np.float32) * mix
