"""One scene of the demo data set: sky, ground and objects in depth order, with its label map.

Shape legend: H = W = size, h, w rows and columns of an object's window.

The classes differ in texture and shape, not in colour: `field` and `pole` share a texture, `wall`
and `cloth` share a shape, and every surface gets a random hue and brightness. Class frequencies
are long-tailed. 255 marks unlabelled pixels: bands along some outlines, and some blobs.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from mm_tuning_plugin.demo.textures import (
    Surface,
    bricks,
    checks,
    dots,
    noise_octaves,
    paint,
    smooth,
    speckle,
    stripes,
    zigzag,
)

CLASSES = ('sky', 'ground', 'field', 'wall', 'cloth', 'ball', 'star', 'pole')
PALETTE = [
    [70, 130, 180],
    [107, 142, 35],
    [220, 190, 90],
    [160, 80, 60],
    [200, 60, 160],
    [240, 140, 30],
    [250, 240, 60],
    [90, 90, 110],
]
IGNORE_INDEX = 255
MIN_SIZE = 32

SURFACES = {
    'sky': Surface(smooth, 0.4, 0.6),
    'ground': Surface(noise_octaves, 2.6),
    'field': Surface(stripes, 1.8),
    'wall': Surface(bricks, 0.9, 0.25),
    'cloth': Surface(checks, -0.6),
    'ball': Surface(dots, -1.5),
    'star': Surface(zigzag, -2.3),
    'pole': Surface(stripes, -3.0),
}
NOT_LABELLED = Surface(speckle, 0.0)

# YUV (BT.601) to RGB
YUV_TO_RGB = np.array(
    [[1.0, 0.0, 1.13983], [1.0, -0.39465, -0.58060], [1.0, 2.03211, 0.0]], dtype=np.float32
)


def _box(rng: Generator) -> np.ndarray:
    """(4, 2) outline of an upright oblong in the unit square."""
    half = np.array([rng.uniform(0.6, 1.0), rng.uniform(0.6, 1.0)])
    return half * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def _turned_box(rng: Generator) -> np.ndarray:
    """(4, 2) outline of an oblong at any angle."""
    angle = rng.uniform(0.0, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return 0.85 * _box(rng) @ turn.T


def _disc(rng: Generator) -> np.ndarray:
    """(40, 2) outline of an ellipse that is nearly a circle."""
    angle = np.linspace(0.0, 2.0 * np.pi, 40, endpoint=False)
    return np.stack([np.cos(angle), rng.uniform(0.8, 1.0) * np.sin(angle)], axis=1)


def _star(rng: Generator) -> np.ndarray:
    """(2 * tips, 2) outline of a star of 4 to 7 tips."""
    tips = int(rng.integers(4, 8))
    angle = np.arange(2 * tips) * np.pi / tips + rng.uniform(0.0, np.pi)
    radius = np.where(np.arange(2 * tips) % 2 == 0, 1.0, rng.uniform(0.4, 0.6))
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _pole(rng: Generator) -> np.ndarray:
    """(4, 2) outline of a thin upright post, leaning a little."""
    half, lean = rng.uniform(0.11, 0.17), rng.uniform(-0.12, 0.12)
    return np.array([[lean - half, -1.0], [lean + half, -1.0], [half, 1.0], [-half, 1.0]])


def _blob(rng: Generator) -> np.ndarray:
    """(12, 2) outline of a lump."""
    angle = np.arange(12) * np.pi / 6.0
    return rng.uniform(0.5, 1.0, 12)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


class Kind(NamedTuple):
    """How often and how large an object of a class occurs.

    Attributes:
        label: Class index, or ``IGNORE_INDEX``.
        surface: What it is painted with.
        outlines: Its shapes, all as likely.
        counts: Chance of 0, 1, 2, ... of them in a scene.
        radius: (low, high), half its extent as a fraction of the image side, at middle depth.
    """

    label: int
    surface: Surface
    outlines: tuple[Callable[[Generator], np.ndarray], ...]
    counts: tuple[float, ...]
    radius: tuple[float, float]


def _kind(name: str, *rest: object) -> Kind:
    """The ``Kind`` of a class, by its name."""
    return Kind(CLASSES.index(name), SURFACES[name], *rest)  # type: ignore[arg-type]


KINDS = (
    _kind('wall', (_box,), (0.1, 0.35, 0.35, 0.2), (0.15, 0.27)),
    _kind('cloth', (_turned_box, _box, _disc), (0.25, 0.4, 0.25, 0.1), (0.12, 0.21)),
    _kind('ball', (_disc, _disc, _turned_box), (0.3, 0.4, 0.2, 0.1), (0.11, 0.19)),
    _kind('star', (_star,), (0.5, 0.35, 0.15), (0.13, 0.2)),
    _kind('pole', (_pole,), (0.5, 0.35, 0.15), (0.22, 0.36)),
    Kind(IGNORE_INDEX, NOT_LABELLED, (_blob,), (0.5, 0.35, 0.15), (0.03, 0.06)),
)
BAND_CHANCE = 0.4


class Thing(NamedTuple):
    """An object whose place is drawn.

    Attributes:
        depth: 0 at the horizon, 1 at the lower edge; near objects hide far ones.
        kind: What it is.
        outline: (K, 2) float64 corner points (x, y) in pixels.
        band: Whether its outline is left unlabelled.
    """

    depth: float
    kind: Kind
    outline: np.ndarray
    band: bool


def _draw_things(rng: Generator, size: int, horizon: float) -> list[Thing]:
    """Draws the objects of a scene and their places, far ones first."""
    things = []
    for kind in KINDS:
        for _ in range(int(rng.choice(len(kind.counts), p=kind.counts))):
            depth = rng.uniform(0.0, 1.0)
            radius = size * rng.uniform(*kind.radius) * (0.55 + 0.9 * depth)
            x = rng.uniform(0.05, 0.95) * size
            y = size * (horizon - 0.12 + (1.0 - horizon) * depth)
            outline = np.array([x, y]) + radius * rng.choice(kind.outlines)(rng)
            things.append(Thing(depth, kind, outline, rng.random() < BAND_CHANCE))
    return sorted(things, key=lambda thing: thing.depth)


def _put(
    rng: Generator, canvas: np.ndarray, seg_map: np.ndarray, thing: Thing, unit: float
) -> None:
    """Paints one object over ``canvas`` (H, W, 3) and ``seg_map`` (H, W), in place."""
    size = canvas.shape[0]
    low = np.clip(np.floor(thing.outline.min(axis=0)).astype(int) - 3, 0, size)
    high = np.clip(np.ceil(thing.outline.max(axis=0)).astype(int) + 4, 0, size)
    if (high - low).min() < 1:
        return
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    shape = (int(high[1] - low[1]), int(high[0] - low[0]))
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(thing.outline - low).astype(np.int32)], 1)
    alpha = cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0.6)[..., None]
    painted = paint(rng, thing.kind.surface, shape, unit)
    canvas[window] += alpha * (painted - canvas[window])
    seg_map[window][mask > 0] = thing.kind.label
    if thing.band:
        width = 1 + 2 * max(1, round(unit))
        kernel = np.ones((width, width), np.uint8)
        seg_map[window][cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, kernel) > 0] = IGNORE_INDEX


class Land(NamedTuple):
    """The regions of sky, ground and field.

    Attributes:
        edge: (W,) the row at which the ground begins in every column.
        field: (top, height, slope) of the band of a field, in pixels, or None.
    """

    edge: np.ndarray
    field: tuple[float, float, float] | None


def _draw_land(rng: Generator, size: int, horizon: float) -> Land:
    """Draws a wavy horizon, and a field in three scenes of five."""
    hills = cv2.resize(rng.standard_normal((1, 7)).astype(np.float32), (size, 1))[0]
    field = None
    if rng.random() < 0.6:
        field = (
            size * rng.uniform(horizon, 0.85),
            size * rng.uniform(0.15, 0.45),
            rng.uniform(-0.3, 0.3),
        )
    return Land(size * (horizon + 0.02 * hills), field)


def _put_land(
    rng: Generator, canvas: np.ndarray, seg_map: np.ndarray, land: Land, unit: float
) -> None:
    """Paints sky, ground and field over the whole of both arrays, in place."""
    size = canvas.shape[0]
    rows = np.arange(size)[:, None]
    ground = rows >= land.edge[None, :]
    areas = {'sky': np.ones_like(ground), 'ground': ground}
    if land.field is not None:
        top, height, slope = land.field
        along = rows - top + slope * (np.arange(size)[None, :] - 0.5 * size)
        areas['field'] = ground & (along >= 0) & (along < height)
    for name, area in areas.items():
        canvas[area] = paint(rng, SURFACES[name], (size, size), unit)[area]
        seg_map[area] = CLASSES.index(name)


def _light(rng: Generator, canvas: np.ndarray) -> np.ndarray:
    """(H, W, 3) YUV -> (H, W, 3) uint8 BGR: uneven light, noise of the sensor, then the colours."""
    size = canvas.shape[0]
    corners = rng.uniform(0.8, 1.2, size=(2, 2)).astype(np.float32)
    light = cv2.resize(corners, (size, size), interpolation=cv2.INTER_LINEAR)[..., None]
    rgb = light * (canvas @ YUV_TO_RGB.T)
    rgb += np.float32(rng.uniform(0.01, 0.04)) * rng.standard_normal(
        (size, size, 1), dtype=np.float32
    )
    rgb += np.float32(0.01) * rng.standard_normal((size, size, 3), dtype=np.float32)
    return np.ascontiguousarray(np.round(np.clip(rgb, 0.0, 1.0) * 255.0)[..., ::-1], np.uint8)


def draw_scene(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one scene; the same seed and size give the same bits.

    Args:
        seed: Non-negative integer.
        size: Side of the image in pixels, at least 32. Lengths grow with it, and the layout of a
            seed stays the same; its textures do not.

    Returns:
        The image (size, size, 3) uint8, **BGR** as OpenCV and mmseg's loader have it, and the
        label map (size, size) uint8: an index into ``CLASSES``, or 255 for unlabelled.

    Raises:
        ValueError: If ``seed`` is negative or ``size`` too small.
    """
    if seed < 0:
        raise ValueError(f'seed: expected a non-negative integer, got {seed}')
    if size < MIN_SIZE:
        raise ValueError(f'size: expected at least {MIN_SIZE} pixels, got {size}')
    layout, rng = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    unit = size / 128.0
    canvas = np.empty((size, size, 3), np.float32)
    seg_map = np.empty((size, size), np.uint8)
    horizon = layout.uniform(0.2, 0.42)
    _put_land(rng, canvas, seg_map, _draw_land(layout, size, horizon), unit)
    for thing in _draw_things(layout, size, horizon):
        _put(rng, canvas, seg_map, thing, unit)
    return _light(rng, canvas), seg_map
