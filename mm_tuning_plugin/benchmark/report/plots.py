"""The figures of a report, as SVG text for one page.

Arms differ in colour (Okabe and Ito's, for colour-blind readers) and in the shape
of their marks. Text stays text, so that it can be read aloud and searched.

Shape legend: P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mm_tuning_plugin.benchmark.analysis.comparison import Efficiency
from mm_tuning_plugin.benchmark.analysis.statistics import Change, Paired
from mm_tuning_plugin.visualization.report_colours import COLOURS, GREY
from mm_tuning_plugin.visualization.svg import as_svg, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LETTERS = 40  # of a label, at most
_MARKS = 'osD^vP'


class Look(NamedTuple):
    """How an arm is drawn."""

    color: str
    mark: str


def looks(arms: Sequence[str]) -> dict[str, Look]:
    """One look for each arm, the same in all figures.

    Args:
        arms: In order. The first 6 have different colours, the first 36 different looks.
    """
    return {
        arm: Look(COLOURS[i % 6], _MARKS[(i + i // 6) % len(_MARKS)]) for i, arm in enumerate(arms)
    }


@as_svg
def forest(
    labels: Sequence[str],
    gains: Sequence[Sequence[Paired]],
    axis: str,
    styles: Sequence[Look],
    bar: float = 0.0,
) -> Figure:
    """Differences with their intervals, one below the other.

    Args:
        labels: One a line.
        gains: One a line: the t interval (thick), then, thin below it, that of the bootstrap.
        axis: What is measured.
        styles: One a line.
        bar: Drawn as a dashed line, if it is not 0.
    """
    figure, axes = new_axes(0.75 + 0.36 * len(labels))
    for line, (pair, look) in enumerate(zip(gains, styles)):
        for which, gain in enumerate(pair):
            if math.isnan(gain.mean):
                continue
            y, wide = line + 0.22 * which, 2.6 if which == 0 else 1.2
            if gain.has_interval:
                axes.plot([gain.low, gain.high], [y, y], color=look.color, lw=wide)
            if which == 0:
                axes.plot(gain.mean, y, look.mark, color=look.color, ms=7, mec='white')
    axes.axvline(0, color=GREY, lw=1)
    if bar:
        axes.axvline(bar, color=GREY, lw=1, ls='--')
    axes.set_yticks(range(len(labels)), [_short(label) for label in labels])
    axes.set(ylim=(len(labels) - 0.4, -0.6), xlabel=axis)
    axes.grid(axis='y', visible=False)
    return figure


@as_svg
def efficiency(curves: Sequence[Efficiency], styles: Mapping[str, Look]) -> Figure:
    """Mean score over the share of labels; the dashed line is `direct` with all of them."""
    figure, axes = new_axes(3.2)
    handles = []
    for curve in curves:
        look = styles[curve.arm]
        handles += axes.plot(curve.fractions, curve.scores, f'-{look.mark}', color=look.color, ms=6)
    if curves:
        axes.axhline(curves[0].target, color=GREY, lw=1, ls='--')
    axes.set_xscale('log', base=2)
    shares = sorted({share for curve in curves for share in curve.fractions})
    axes.set_xticks(shares, [f'{100 * share:g} %' for share in shares])
    axes.minorticks_off()
    axes.set(xlabel='share of labels', ylabel='mIoU')
    _legend(figure, axes, handles, [curve.arm for curve in curves])
    return figure


@as_svg
def cost(points: Mapping[str, tuple[float, Paired]], styles: Mapping[str, Look]) -> Figure:
    """Gain over `direct` against compute, with t intervals.

    Args:
        points: By arm: FLOPs relative to `direct`, and the difference to it.
        styles: By arm.
    """
    figure, axes = new_axes(3.2)
    handles = []
    for arm, (flops, gain) in points.items():
        look = styles[arm]
        handles += axes.plot(flops, gain.mean, look.mark, color=look.color, ms=8, mec='white')
        if gain.has_interval:
            axes.plot([flops, flops], [gain.low, gain.high], color=look.color, lw=1.6)
    axes.axhline(0, color=GREY, lw=1)
    axes.set(xlabel='FLOPs relative to direct', ylabel='mIoU minus direct')
    _legend(figure, axes, handles, list(points))
    return figure


@as_svg
def classes(names: Sequence[str], changes: Sequence[Change], axis: str) -> Figure:
    """Change of each class, largest first; filled marks are those that Holm's test upholds.

    Args:
        names: Of all classes.
        changes: Of those compared.
        axis: What is measured.
    """
    order = sorted(changes, key=lambda change: -change.plain.mean)
    figure, axes = new_axes(0.75 + 0.24 * len(order))
    for line, change in enumerate(order):
        upheld = change.p_value < 0.05
        look = '#0072b2' if upheld else '#767676'
        if change.holm.has_interval:
            axes.plot([change.holm.low, change.holm.high], [line, line], color=look, lw=1.6)
        axes.plot(change.plain.mean, line, 'o', color=look, ms=6, mfc=look if upheld else 'white')
    axes.axvline(0, color=GREY, lw=1)
    axes.set_yticks(range(len(order)), [_short(names[change.index]) for change in order])
    axes.set(ylim=(len(order) - 0.4, -0.6), xlabel=axis)
    return figure


@as_svg
def seeds(scores: Mapping[str, Mapping[tuple, float]], styles: Mapping[str, Look]) -> Figure:
    """Each run as a dot, runs of one pair joined.

    Args:
        scores: By arm: score by pair.
        styles: By arm.
    """
    figure, axes = new_axes(3.2)
    pairs = dict.fromkeys(pair for by_pair in scores.values() for pair in by_pair)
    for pair in pairs:
        line = [by_pair.get(pair, math.nan) for by_pair in scores.values()]
        axes.plot(range(len(line)), line, color='#999999', lw=0.9, zorder=1)
    for place, (arm, by_pair) in enumerate(scores.items()):
        look, values = styles[arm], list(by_pair.values())
        axes.plot(
            np.full(len(values), place), values, look.mark, color=look.color, ms=7, mec='white'
        )
    names = [_short(arm) for arm in scores]
    axes.set_xticks(range(len(scores)), names, rotation=30, ha='right')
    axes.set(xlim=(-0.5, len(scores) - 0.5), ylabel='mIoU')
    axes.grid(axis='x', visible=False)
    return figure


def _legend(figure: Figure, axes, handles: list, arms: Sequence[str]) -> None:
    """A legend above the axes; matplotlib leaves out labels with a leading underscore."""
    labels = [f' {arm}' if arm.startswith('_') else arm for arm in map(_short, arms)]
    figure.legend(handles, labels, loc='outside upper left', ncols=3, fontsize=8.5)


def _short(label: str) -> str:
    """A label of one line, cut after `LETTERS`."""
    label = ''.join(c if c.isprintable() else ' ' for c in label)
    return label if len(label) <= LETTERS else label[: LETTERS - 1] + '…'
