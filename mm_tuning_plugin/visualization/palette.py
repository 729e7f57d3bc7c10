"""Distinguishable class colours, and the text colour that is readable on them.

Shape legend: K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .checks import as_size, require

#: Okabe and Ito's colours without black: the first seven classes, the same at any class count.
OKABE_ITO = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (86, 180, 233),
    (204, 121, 167),
    (240, 228, 66),
)
# Viénot, Brettel and Mollon (1999), "Digital video colourmaps for checking the legibility of
# displays by dichromats", as matrices on linear RGB: protanopia, then deuteranopia.
_DICHROMACY = (
    ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0)),
    ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0)),
)
_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
_WHITE = (0.9505, 1.0, 1.089)


def class_palette(
    num_classes: int, given: np.ndarray | Sequence[Sequence[int]] | None = None
) -> np.ndarray:
    """Returns one colour per class: the data set's own, or distinguishable ones.

    The made palette begins with Okabe and Ito's colours and goes on with whichever colour is
    farthest, in CIELAB, from all before it; half of the distance is what a protanope and a
    deuteranope see. It uses no random numbers, and a shorter palette is the beginning of a longer
    one. Greys are left out: pictures here use them for what has no class.

    Args:
        num_classes: K, at least 1.
        given: (K, 3) RGB in 0..255, a data set's ``palette``; None or an empty one means none.

    Returns:
        (K, 3) uint8 RGB. Made colours are all different up to 2000 classes, then they repeat.

    Raises:
        ValueError: if ``num_classes`` is no positive integer, or ``given`` has another number of
            colours, or values that are no integers in 0..255.
    """
    num_classes = as_size(num_classes, 'num_classes')
    if given is None or len(given) == 0:
        return np.resize(_made_palette(min(num_classes, 2000)), (num_classes, 3))
    return _as_palette(given, num_classes, 'given')


def dataset_palette(metainfo: Mapping[str, Any], num_classes: int) -> np.ndarray:
    """Returns the colours of a data set's classes: its own if it has one for each class.

    Args:
        metainfo: A data set's, with or without ``palette``. Colours behind those of the classes,
            as for an ignored one, are left out.
        num_classes: K.

    Returns:
        (K, 3) uint8 RGB.
    """
    palette = list(metainfo.get('palette') or [])[:num_classes]
    return class_palette(num_classes, palette if len(palette) == num_classes else None)


def as_classes(
    class_names: Sequence[str], palette: np.ndarray | Sequence[Sequence[int]]
) -> tuple[list[str], np.ndarray]:
    """Returns K class names, ``class 3`` for an empty one, and their (K, 3) uint8 RGB colours.

    Raises:
        ValueError: if there is no name, one is not a string, or the palette does not fit them.
    """
    listed = hasattr(class_names, '__len__') and not isinstance(class_names, (str, bytes))
    require(listed, 'class_names', 'a sequence of strings', repr(class_names))
    names = list(class_names)
    wrong = [name for name in names if not isinstance(name, str)]
    require(
        bool(names) and not wrong, 'class_names', 'strings', repr(wrong[0]) if wrong else 'none'
    )
    colours = _as_palette(palette, len(names), 'palette')
    return [str(name) or f'class {i}' for i, name in enumerate(names)], colours


def _as_palette(
    palette: np.ndarray | Sequence[Sequence[int]], num_classes: int, name: str
) -> np.ndarray:
    """Returns a palette as a new (K, 3) uint8 array."""
    shape = (num_classes, 3)
    try:
        values = np.array(palette, dtype=np.float64)
    except (TypeError, ValueError):
        require(False, name, f'RGB colours of shape {shape}', repr(palette))
    require(values.shape == shape, name, f'RGB colours of shape {shape}', f'shape {values.shape}')
    wrong = values[~((values >= 0) & (values <= 255) & (values == np.floor(values)))]
    require(not wrong.size, name, 'integers in 0..255', f'{wrong[0]:g}' if wrong.size else None)
    return values.astype(np.uint8)


def text_colour(background: np.ndarray | Sequence[int]) -> tuple[int, int, int]:
    """Returns black or white, whichever has the higher contrast on a colour (WCAG 2 ratio).

    Args:
        background: (3,) RGB in 0..255.

    Returns:
        RGB: ``(0, 0, 0)`` or ``(255, 255, 255)``.
    """
    luminance = float(_linear(np.asarray(background, dtype=np.float64)) @ np.array(_XYZ[1]))
    black_ratio, white_ratio = (luminance + 0.05) / 0.05, 1.05 / (luminance + 0.05)
    return (0, 0, 0) if black_ratio >= white_ratio else (255, 255, 255)


@lru_cache(maxsize=8)
def _made_palette(num_classes: int) -> np.ndarray:
    """Chooses colours greedily, each farthest from those before it; (K, 3) uint8."""
    levels = np.arange(0, 256, 15)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing='ij'), axis=-1).reshape(-1, 3)
    lab = _lab(_linear(grid))  # (G, 3)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    grid = grid[(lab[:, 0] >= 28) & (lab[:, 0] <= 92) & (chroma >= 20)]
    candidates = np.concatenate([np.array(OKABE_ITO), grid])  # (G, 3)
    seen = _seen(candidates)  # (3, G, 3)
    nearest = np.full(len(candidates), np.inf)
    chosen: list[int] = []
    for step in range(num_classes):
        index = step if step < len(OKABE_ITO) else int(nearest.argmax())
        chosen.append(index)
        gaps = np.linalg.norm(seen - seen[:, index : index + 1], axis=-1)  # (3, G)
        nearest = np.minimum(nearest, 0.5 * gaps[0] + 0.25 * (gaps[1] + gaps[2]))
    palette = candidates[chosen].astype(np.uint8)
    palette.flags.writeable = False
    return palette


def _seen(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of (G, 3) RGB under normal vision, protanopia and deuteranopia; (3, G, 3)."""
    linear = _linear(rgb)
    return np.stack([_lab(linear)] + [_lab(linear @ np.array(m).T) for m in _DICHROMACY])


def _linear(rgb: np.ndarray) -> np.ndarray:
    """Undoes the sRGB transfer curve: (..., 3) in 0..255 to linear light in 0..1."""
    unit = np.asarray(rgb, dtype=np.float64) / 255
    return np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of linear RGB, (..., 3) to (..., 3)."""
    xyz = np.clip(linear, 0, 1) @ np.array(_XYZ).T / np.array(_WHITE)
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
