"""A picture under construction: pixels that stay exact, text and markers drawn over them.

Everything is placed in pixels from the top left. Matplotlib only sets the letters and markers, with
its own bundled font and on a figure of its own: neither pyplot nor a display nor the user's
rcParams have a part in it.

Shape legend: H, W pixels.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, get_font
from matplotlib.lines import Line2D
from PIL import Image

from .checks import as_rgb

Colour = tuple  # RGB in 0..255

WHITE = (255, 255, 255)
INK = (33, 33, 33)
FAINT = (110, 110, 110)
PAPER = (236, 236, 236)
_GREY, _LINES = (150, 150, 150), (205, 205, 205)  # of what is hatched

# Pixels per inch. A power of two: sizes in inches are then exact, and give back whole pixels.
_DPI = 64
_CAP_HEIGHT = 0.729  # of DejaVu Sans, in em
_EVEN = {'D': 0.8, '*': 1.3}  # factors that make markers look equally large
_RESAMPLING = {
    'nearest': Image.Resampling.NEAREST,
    'area': Image.Resampling.BOX,
    'smooth': Image.Resampling.BICUBIC,
}


class Canvas:
    """An RGB picture with text.

    Args:
        height: H in pixels.
        width: W in pixels.
        background: RGB in 0..255.

    Attributes:
        pixels: (H, W, 3) uint8, free to be written to; text and markers come over it.
    """

    def __init__(self, height: int, width: int, background: Colour = WHITE) -> None:
        self.pixels = np.empty((height, width, 3), dtype=np.uint8)
        self.pixels[:] = background
        # without a background: what is drawn goes over the pixels
        size = width / _DPI, height / _DPI
        self._figure = Figure(figsize=size, dpi=_DPI, layout='none', frameon=False)

    def fill(self, top: int, left: int, height: int, width: int, colour: Colour) -> None:
        """Fills a rectangle, in pixels, with one colour; what reaches outside is cut off."""
        rows, columns = self._clip(top, height, 0), self._clip(left, width, 1)
        self.pixels[rows, columns] = colour

    def paste(self, top: int, left: int, picture: np.ndarray) -> None:
        """Copies an (h, w, 3) uint8 picture that lies wholly on the canvas."""
        height, width = picture.shape[:2]
        self.pixels[top : top + height, left : left + width] = picture

    def text(
        self,
        middle: float,
        left: float,
        string: str,
        *,
        size: int = 13,
        colour: Colour = INK,
        bold: bool = False,
        align: str = 'left',
        max_width: float | None = None,
    ) -> None:
        """Writes one line.

        Args:
            middle: Row of the middle of a capital letter, pixels.
            left: Column of its beginning (or its middle or end, see ``align``), pixels.
            string: The line; anything that the font cannot show is spelled out.
            size: Font size in pixels.
            colour: RGB in 0..255.
            bold: Whether in bold letters.
            align: 'left', 'center' or 'right'.
            max_width: Pixels at most; what is longer ends in an ellipsis.
        """
        if max_width is not None:
            string = shorten(string, max_width, size=size, bold=bold)
        height, width = self.pixels.shape[:2]
        self._figure.text(
            left / width,
            1 - (middle + _CAP_HEIGHT * size / 2) / height,
            _showable(string),
            fontproperties=_font(size, bold),
            color=_unit(colour),
            ha=align,
            va='baseline',
            parse_math=False,
            usetex=False,
        )

    def text_upward(
        self,
        bottom: float,
        middle: float,
        string: str,
        *,
        size: int = 13,
        colour: Colour = INK,
        max_width: float | None = None,
    ) -> None:
        """Writes one line that reads upwards, for the head of a narrow column.

        Args:
            bottom: Row of its beginning, pixels.
            middle: Column of the middle of a capital letter, pixels.
            string: As in `text`.
            size: Font size in pixels.
            colour: RGB in 0..255.
            max_width: Pixels at most, upwards; what is longer ends in an ellipsis.
        """
        if max_width is not None:
            string = shorten(string, max_width, size=size)
        height, width = self.pixels.shape[:2]
        self._figure.text(
            (middle + _CAP_HEIGHT * size / 2) / width,
            1 - bottom / height,
            _showable(string),
            fontproperties=_font(size, False),
            color=_unit(colour),
            rotation=90,
            rotation_mode='anchor',
            ha='left',
            va='baseline',
            parse_math=False,
            usetex=False,
        )

    def marker(self, middle: float, left: float, shape: str, size: float, colour: Colour) -> None:
        """Draws one matplotlib marker around a place, ``size`` pixels across, with a thin edge."""
        height, width = self.pixels.shape[:2]
        mark = Line2D([left / width], [1 - middle / height], linestyle='none', **look(shape, size))
        mark.set_markerfacecolor(_unit(colour))
        self._figure.add_artist(mark)

    def axes(self, top: int, left: int, height: int, width: int) -> Axes:
        """Returns bare matplotlib axes over a rectangle, in pixels, for scattered points."""
        full_height, full_width = self.pixels.shape[:2]
        bottom = full_height - top - height
        rectangle = (left / full_width, bottom / full_height)
        axes = self._figure.add_axes((*rectangle, width / full_width, height / full_height))
        axes.set_axis_off()
        return axes

    def render(self) -> np.ndarray:
        """Returns the (H, W, 3) uint8 picture; the canvas can be written on and rendered again."""
        agg = FigureCanvasAgg(self._figure)
        drawn = np.asarray(agg.get_renderer().buffer_rgba())  # a view
        drawn[..., :3], drawn[..., 3] = self.pixels, 255
        self._figure.draw(agg.get_renderer())
        return drawn[..., :3].copy()

    def _clip(self, start: int, extent: int, axis: int) -> slice:
        limit = self.pixels.shape[axis]
        return slice(min(max(start, 0), limit), min(max(start + extent, 0), limit))


def look(shape: str, size: float) -> dict:
    """Returns Line2D's properties for a marker ``size`` pixels across with a thin dark edge."""
    points = size * _EVEN.get(shape, 1.0) * 72 / _DPI
    return {
        'marker': shape,
        'markersize': points,
        'markeredgewidth': 0.5 * 72 / _DPI,
        'markeredgecolor': (0.15, 0.15, 0.15),
    }


def text_width(string: str, *, size: int = 13, bold: bool = False) -> float:
    """Returns the width of a line in pixels."""
    if not string:
        return 0.0
    return _measure().get_text_width_height_descent(_showable(string), _font(size, bold), False)[0]


def shorten(string: str, max_width: float, *, size: int = 13, bold: bool = False) -> str:
    """Cuts a line to a width in pixels, with an ellipsis where something was cut off."""
    string = _showable(string)
    if text_width(string, size=size, bold=bold) <= max_width:
        return string
    low, high = 0, len(string)  # the longest beginning that fits is in low..high-1
    while high - low > 1:
        middle = (low + high) // 2
        cut = string[:middle].rstrip() + '…'
        fits = text_width(cut, size=size, bold=bold) <= max_width
        low, high = (middle, high) if fits else (low, middle)
    return string[:low].rstrip() + '…'


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


def hatch(height: int, width: int) -> np.ndarray:
    """Returns an (H, W, 3) uint8 picture of slanting lines on grey: nothing is there."""
    rows, columns = np.indices((height, width))
    return np.where(((rows + columns) % 8 < 2)[..., None], _LINES, _GREY).astype(np.uint8)


def fit(height: int, width: int, max_height: int, max_width: int) -> tuple[int, int]:
    """Returns the largest size of the same proportions that fits, in pixels, at least 1 x 1."""
    scale = min(max_height / height, max_width / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def save_image(path: str | os.PathLike, rgb: np.ndarray) -> None:
    """Writes a picture to a file: aside first, then renamed, so that no half file is ever seen.

    Args:
        path: The file; its folders are made. The suffix says the format: .png, .jpg or .jpeg.
        rgb: (H, W, 3) uint8 RGB.

    Raises:
        ValueError: if the suffix is another, or ``rgb`` no such picture.
        OSError: if the file cannot be written; nothing is left behind then.
    """
    target = Path(path)
    formats = {'.png': 'PNG', '.jpg': 'JPEG', '.jpeg': 'JPEG'}
    if target.suffix.lower() not in formats:
        raise ValueError(f'path: expected a name ending in .png, .jpg or .jpeg, got {str(path)!r}')
    picture = Image.fromarray(np.ascontiguousarray(as_rgb(rgb, 'rgb')))
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f'.{target.name}.{os.getpid()}.tmp')
    try:
        picture.save(aside, format=formats[target.suffix.lower()])
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _unit(colour: Colour) -> tuple[float, float, float]:
    red, green, blue = (int(value) / 255 for value in colour)
    return red, green, blue


@lru_cache(maxsize=2)
def _font_file(bold: bool) -> str:
    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    return str(Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / name)


def _font(size: int, bold: bool) -> FontProperties:
    return FontProperties(fname=_font_file(bold), size=size * 72 / _DPI)


@lru_cache(maxsize=1)
def _measure() -> RendererAgg:
    return RendererAgg(1, 1, _DPI)


@lru_cache(maxsize=1)
def _glyphs() -> frozenset:
    return frozenset(get_font(_font_file(False)).get_charmap())


def _showable(string: str) -> str:
    """Puts the line on one line, and spells out what the font lacks as ``U+4E2D``."""
    one_line = ' '.join(str(string).split())
    return ''.join(c if ord(c) in _glyphs() else f'U+{ord(c):04X}' for c in one_line)
