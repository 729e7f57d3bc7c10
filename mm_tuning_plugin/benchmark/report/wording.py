"""The wording of a report: numbers, names of rows, and the verdict in one sentence."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from mm_tuning_plugin.benchmark.analysis.comparison import LONGER, Comparison, Gain, Row
from mm_tuning_plugin.benchmark.analysis.statistics import Paired
from mm_tuning_plugin.visualization.document import Verdict

NOTHING = '–'
#: Rows with fewer pairs are marked.
FEW_PAIRS = 3
#: Compute that may differ and still be called equal.
EQUAL_COMPUTE = 1.05


def row_name(row: Row) -> str:
    """A row in words."""
    return f'{row.backbone}, {row.start}, {share(row.fraction)} of labels'


def share(fraction: float) -> str:
    """0.125 as 12.5 %."""
    return f'{100 * fraction:.3g} %'


def signed(value: float) -> str:
    """A difference in points."""
    return NOTHING if math.isnan(value) else f'{value:+.2f}'


def interval(paired: Paired) -> str:
    """An interval, in one piece (no-break space)."""
    return f'[{paired.low:+.2f},\u00a0{paired.high:+.2f}]' if paired.has_interval else NOTHING


def difference(paired: Paired) -> str:
    """A difference with its interval, if it has one."""
    return (
        f'{signed(paired.mean)} {interval(paired)}' if paired.has_interval else signed(paired.mean)
    )


def p_value(value: float) -> str:
    """Format a p-value, with a lower limit given by its digits."""
    if math.isnan(value):
        return NOTHING
    return '< 0.001' if value < 0.001 else f'{value:.3f}'


def times(ratio: float) -> str:
    """A ratio."""
    return NOTHING if math.isnan(ratio) else f'{ratio:.2f}x'


def spread(scores: pd.Series) -> str:
    """Mean and standard deviation."""
    if not len(scores):
        return NOTHING
    deviation = f', {scores.std(ddof=1):.2f}' if len(scores) > 1 else ''
    return f'{scores.mean():.2f}{deviation}'


def average(values: pd.Series, digits: int) -> str:
    """Return the mean of the known values."""
    known = values.dropna()
    return f'{np.mean(known):.{digits}f}' if len(known) else NOTHING


def pairs(gain: Gain) -> str:
    """How many pairs, and of how many."""
    count = gain.t.pairs
    lacking = f' of {gain.planned}' if gain.planned > count else ''
    return f'{count}{lacking} pair{"s" if (gain.planned if lacking else count) != 1 else ""}'


def verdict(comparison: Comparison, row: Row, arm: str, bar: float, anchor: str) -> Verdict:
    """The sentence on one row: gain, interval, baseline, whether fine-tuning is trained enough."""
    baseline = comparison.baseline(row, arm)
    gain = comparison.gain(row, arm, baseline) if baseline else None
    if gain is None or not gain.t.pairs:
        text = f'not measured: no pair of {arm} and direct or direct-matched is finished.'
        return Verdict('unmeasured', row_name(row), text, (), anchor)
    return Verdict(
        gain.verdict(),
        row_name(row),
        f'{finding(gain, bar)}; {training(comparison, row)}.',
        marks(comparison, row, gain),
        anchor,
    )


def finding(gain: Gain, bar: float = 0.0) -> str:
    """What a comparison shows, and no more."""
    amount = f'{difference(gain.t)} mIoU'
    what = {
        'gain': f'{gain.arm} gains {amount}',
        'loss': f'{gain.arm} loses: {amount}',
        'none': f'no gain shown: {gain.arm} {amount}',
        'unmeasured': f'one pair only, no interval, no gain shown: {gain.arm} {amount}',
    }[gain.verdict()]
    images = reach = ''
    if gain.bootstrap.has_interval:
        images = f', with resampled images {interval(gain.bootstrap)}'
    if bar:
        reached = 'above' if gain.verdict(bar) == 'gain' else 'not shown to reach'
        reach = f', {reached} the bar of {bar:g}'
    return f'{what} over {gain.baseline} ({pairs(gain)}{images}){reach}'


def training(comparison: Comparison, row: Row) -> str:
    """Whether ``direct`` was trained enough, in words."""
    state = comparison.training(row)
    if state == 'not measured':
        return f'whether direct has converged was not measured (no pair of {LONGER})'
    added = signed(comparison.convergence(row).mean)
    words = 'direct is under-trained' if state == 'under-trained' else 'direct has converged'
    return f'{words} (twice its schedule: {added})'


def marks(comparison: Comparison, row: Row, gain: Gain) -> list[str]:
    """The reservations on a row, each a few words."""
    found = []
    state = comparison.training(row)
    if state == 'under-trained':
        found.append('under-trained')
    elif state == 'not measured':
        found.append('convergence not measured')
    if gain.t.pairs < FEW_PAIRS:
        found.append(f'{gain.t.pairs} pair{"s" if gain.t.pairs != 1 else ""} only')
    if gain.t.pairs < gain.planned:
        found.append(f'{gain.planned - gain.t.pairs} of {gain.planned} pairs lacking')
    if gain.t.has_interval and not gain.bootstrap.has_interval:
        found.append('images not resampled')
    matched = len(comparison.scores(row, 'direct-matched')) > 0
    ratio = comparison.cost(row, gain.arm, 'direct-matched' if matched else 'direct')
    if math.isnan(ratio):
        found.append('compute not known')
    elif ratio > EQUAL_COMPUTE:
        found.append(f"{ratio:.2f} times the baseline's compute")
    return found
