"""Shared by figures of reports: size, style, and SVG that several figures of a page can use."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING

from mm_tuning_plugin.extras import need_extra
from mm_tuning_plugin.visualization.report_colours import GRID

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.8  # inches: at the width of a phone the letters are then some 10 px high
STYLE = {
    'svg.fonttype': 'none',
    'svg.hashsalt': 'report',
    'text.parse_math': False,  # a name may hold $
    'font.family': 'sans-serif',
    'font.size': 9.5,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.axisbelow': True,
    'axes.grid': True,
    'grid.color': GRID,
    'legend.frameon': False,
}


def as_svg(draw: Callable[..., Figure]) -> Callable[..., str]:
    """Makes a function that draws a figure return its SVG, drawn in `STYLE`."""

    @wraps(draw)
    def drawn(*given: object, **more: object) -> str:
        need_extra('report')
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return to_svg(draw(*given, **more))

    return drawn


def new_axes(height: float) -> tuple[Figure, Axes]:
    """A figure of `WIDTH` and a height in inches, and its axes."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # No pyplot: its global state and its choice of a backend are the caller's.
    figure = Figure(figsize=(WIDTH, height), layout='constrained')
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def to_svg(figure: Figure) -> str:
    """The SVG element alone: no prolog, no metadata, no size but the view box.

    Removes ids without a reference, because matplotlib uses the same group ids in every figure.
    """
    text = io.StringIO()
    figure.savefig(text, format='svg', metadata={'Date': None}, facecolor='white')
    svg = text.getvalue()
    svg = svg[svg.index('<svg') :]
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else '', svg)
    head, body = svg.split('>', 1)
    return re.sub(r' (?:width|height)="[^"]*"', '', head) + '>' + body.strip()
