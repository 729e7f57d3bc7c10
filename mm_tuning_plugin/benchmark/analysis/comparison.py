"""Which runs are compared with which, and what comes of it.

A *row* is a backbone, a start and a share of labels; a *pair* is a fold and a seed that both arms
of a comparison have finished. Pairs are what is averaged: a run without its partner counts nowhere.

Shape legend: P pairs, R replicates of the bootstrap, B blocks of images, C classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from mm_tuning_plugin.benchmark.analysis.results import CLASS_PREFIX, KEY, PAIR, ROW, Results
from mm_tuning_plugin.benchmark.analysis.statistics import (
    REPLICATES,
    Change,
    Paired,
    class_changes,
    draw_weights,
    fraction_reaching,
    paired_bootstrap,
    paired_t,
    reaches,
    replicate_scores,
)

#: A gain is measured against the better of these: against the luckier choice, so against ourselves.
BASELINES = ('direct', 'direct-matched')
#: Twice the schedule of `direct`: its gain shows whether `direct` is trained enough.
LONGER = 'direct-2x'
#: Points of mIoU from which a row counts as under-trained.
UNDER_TRAINED = 0.5
NO_INTERVAL = Paired(math.nan, math.nan, math.nan, 0)


class Row(NamedTuple):
    """A row of the report."""

    backbone: str
    start: str
    fraction: float


class Gain(NamedTuple):
    """One arm minus another over the pairs that both have.

    Attributes:
        arm: The arm.
        baseline: What is subtracted.
        differences: (P,) points of mIoU, indexed by fold and seed.
        t: Interval over pairs.
        bootstrap: Interval over pairs and images; without an interval where areas are lacking.
        planned: Pairs that the plan has.
    """

    arm: str
    baseline: str
    differences: pd.Series
    t: Paired
    bootstrap: Paired
    planned: int

    def verdict(self, bar: float = 0.0) -> str:
        """``gain`` or ``loss`` if every interval excludes 0 (and the mean the bar), else ``none``.

        ``unmeasured`` without a t interval. Where there is no bootstrap, the t interval decides.
        """
        if not self.t.has_interval:
            return 'unmeasured'
        intervals = [p for p in (self.t, self.bootstrap) if p.has_interval]
        if all(reaches(p, bar) for p in intervals):
            return 'gain'
        return 'loss' if all(p.high < 0 for p in intervals) else 'none'


class Efficiency(NamedTuple):
    """Scores of an arm over the share of labels.

    Attributes:
        arm: The arm.
        fractions: Increasing.
        scores: Mean mIoU at each, over the same pairs.
        pairs: Number of pairs that have every point, and the target.
        target: Mean mIoU of ``direct`` at the largest share, over the same pairs.
        reached: The share with which this arm reaches it; nan if never.
        crossed: Whether that is between two measured shares; otherwise it is an upper bound.
    """

    arm: str
    fractions: list[float]
    scores: list[float]
    pairs: int
    target: float
    reached: float
    crossed: bool


class Comparison:
    """Questions to the results of a benchmark. The same results give the same answers, to the bit.

    Args:
        results: Of the benchmark.
        replicates: R.
    """

    def __init__(self, results: Results, replicates: int = REPLICATES) -> None:
        self.results = results
        self.jobs = results.jobs
        self.done = results.done.set_index(KEY).sort_index()
        self.block_size = results.plan.get('block_size', 20)
        self._replicates = replicates
        self._weights: dict[str, np.ndarray] = {}
        self._resampled: dict[str, np.ndarray] = {}

    def rows(self) -> list[Row]:
        """All rows, finished or not: in the order of the file, shares of labels increasing."""
        order = self.jobs[ROW].drop_duplicates()
        rank = {c: {v: i for i, v in enumerate(order[c].unique())} for c in ('backbone', 'start')}
        rows = [Row(*values) for values in order.itertuples(index=False)]
        return sorted(rows, key=lambda r: (rank['backbone'][r[0]], rank['start'][r[1]], r[2]))

    def arms(self, row: Row | None = None) -> list[str]:
        """The arms of a row, or of all, in the order of the file."""
        return list(dict.fromkeys((self.jobs if row is None else self.of(row))['arm']))

    def of(self, row: Row) -> pd.DataFrame:
        """All jobs of a row."""
        return self.jobs[(self.jobs[ROW] == list(row)).all(axis=1)]

    def headline_arm(self) -> str | None:
        """The arm that the report is about: ``tuned``, or the first that tunes."""
        tuning = [arm for arm in self.arms() if not arm.startswith('direct')]
        chosen = [a for a in tuning if a == 'tuned'] + [a for a in tuning if a != 'ce-tuned']
        return (chosen + tuning + [None])[0]

    def scores(self, row: Row, arm: str, column: str = 'mIoU') -> pd.Series:
        """(P,) a column of the finished jobs of an arm, indexed by fold and seed."""
        try:
            return self.done.loc[(*row, arm), column]
        except KeyError:
            empty = pd.MultiIndex.from_arrays([[], []], names=PAIR)
            return pd.Series([], index=empty, dtype=np.float64)

    def baseline(self, row: Row, arm: str) -> str | None:
        """The better of `BASELINES`, by mean over the pairs that they and the arm have.

        One of them alone if the other has no run; None if neither has. If no pair has all three,
        the one with more pairs.
        """
        found = {name: self.scores(row, name) for name in BASELINES if name != arm}
        found = {name: scores for name, scores in found.items() if len(scores)}
        if not found:
            return None
        own = self.scores(row, arm).index
        common = own
        for scores in found.values():
            common = common.intersection(scores.index)
        if not len(common):
            return max(found, key=lambda name: len(own.intersection(found[name].index)))
        return max(found, key=lambda name: found[name][common].mean())

    def gain(self, row: Row, arm: str, baseline: str) -> Gain:
        """One arm minus another."""
        differences = self._differences(row, arm, baseline)
        return Gain(
            arm,
            baseline,
            differences,
            paired_t(differences.to_numpy()),
            self._bootstrap(differences, [(row, arm, baseline)]),
            len(self._planned(row, arm).intersection(self._planned(row, baseline))),
        )

    def over_starts(self, rows: list[Row], arm: str, baselines: list[str]) -> Gain | None:
        """The mean gain over several starts: averaged within each pair first, then over pairs.

        Starts share seeds and images, so that they are no further pairs.

        Args:
            rows: One a start.
            arm: The arm.
            baselines: What is subtracted in each row.

        Returns:
            None without a pair that every start has.
        """
        each = [self._differences(row, arm, b) for row, b in zip(rows, baselines)]
        table = pd.concat(each, axis=1, join='inner')
        if table.empty:
            return None
        planned = self._planned(rows[0], arm)
        for row in rows[1:]:
            planned = planned.intersection(self._planned(row, arm))
        differences = table.mean(axis=1)
        kinds = list(dict.fromkeys(baselines))
        return Gain(
            arm,
            ' or '.join(kinds),
            differences,
            paired_t(differences.to_numpy()),
            self._bootstrap(differences, [(r, arm, b) for r, b in zip(rows, baselines)]),
            len(planned),
        )

    def convergence(self, row: Row) -> Paired:
        """What twice the schedule adds to ``direct``."""
        return paired_t(self._differences(row, LONGER, 'direct').to_numpy())

    def training(self, row: Row) -> str:
        """``converged``, ``under-trained`` or ``not measured``."""
        longer = self.convergence(row)
        if not longer.pairs:
            return 'not measured'
        # Scores have two digits: their mean's last bits must not decide at the threshold.
        return 'under-trained' if round(longer.mean, 6) > UNDER_TRAINED else 'converged'

    def cost(self, row: Row, arm: str, baseline: str = 'direct') -> float:
        """FLOPs of an arm over those of another, over their pairs; nan where not known (0)."""
        one, other = self.scores(row, arm, 'flops'), self.scores(row, baseline, 'flops')
        pairs = one.index.intersection(other.index)
        one, other = one[pairs], other[pairs]
        if not len(pairs) or not (one > 0).all() or not (other > 0).all():
            return math.nan
        return float(one.mean() / other.mean())

    def classes(self, row: Row, arm: str, baseline: str) -> list[Change]:
        """What became of each class of `results.classes`."""
        columns = [CLASS_PREFIX + name for name in self.results.classes]
        if not columns:
            return []
        one, other = self.scores(row, arm, columns), self.scores(row, baseline, columns)
        pairs = one.index.intersection(other.index)
        if not len(pairs):
            return []
        return class_changes((one.loc[pairs] - other.loc[pairs]).to_numpy())

    def efficiency(self, backbone: str, start: str, arm: str) -> Efficiency | None:
        """The scores of an arm over the share of labels.

        Returns:
            None with fewer than two shares that have runs, or no pair that has them all.
        """
        rows = [row for row in self.rows() if row[:2] == (backbone, start)]
        curves = {r.fraction: s for r in rows if len(s := self.scores(r, arm))}
        full = self.scores(rows[-1], 'direct') if rows else []
        if len(curves) < 2 or not len(full):
            return None
        pairs = full.index
        for scores in curves.values():
            pairs = pairs.intersection(scores.index)
        if not len(pairs):
            return None
        fractions, target = list(curves), float(full[pairs].mean())
        means = [float(scores[pairs].mean()) for scores in curves.values()]
        reached, crossed = fraction_reaching(fractions, means, target)
        return Efficiency(arm, fractions, means, len(pairs), target, reached, crossed)

    def _differences(self, row: Row, arm: str, baseline: str) -> pd.Series:
        one, other = self.scores(row, arm), self.scores(row, baseline)
        pairs = one.index.intersection(other.index).sort_values()
        return one[pairs] - other[pairs]

    def _planned(self, row: Row, arm: str) -> pd.MultiIndex:
        jobs = self.of(row)
        return pd.MultiIndex.from_frame(jobs.loc[jobs['arm'] == arm, PAIR])

    def _bootstrap(self, differences: pd.Series, compared: list[tuple[Row, str, str]]) -> Paired:
        """The crossed bootstrap of a mean over comparisons; no interval where areas are lacking."""
        resampled = []
        for row, arm, baseline in compared:
            one, other = self.scores(row, arm, 'job'), self.scores(row, baseline, 'job')
            for pair in differences.index:
                both = [self._replicate(one[pair], pair[0]), self._replicate(other[pair], pair[0])]
                if any(scores is None for scores in both):
                    return NO_INTERVAL
                resampled.append(both[0] - both[1])
        if len(differences) < 2:
            return NO_INTERVAL
        table = np.reshape(resampled, (len(compared), len(differences), -1)).mean(axis=0)  # (P, R)
        return paired_bootstrap(differences.to_numpy(), table, np.random.default_rng(1))

    def _replicate(self, job: str, fold: str) -> np.ndarray | None:
        """(R,) mIoU of a job on its fold's resampled blocks; the same blocks for every job."""
        if job not in self.results.areas:
            return None
        areas = self.results.areas[job]
        blocks = math.ceil(len(areas.names) / self.block_size)
        if blocks < 2:
            return None
        if fold not in self._weights:
            generator = np.random.default_rng([0, len(self._weights)])
            self._weights[fold] = draw_weights(blocks, generator, self._replicates)
        if job not in self._resampled:
            self._resampled[job] = replicate_scores(
                areas.intersect, areas.union, self.block_size, self._weights[fold]
            )
        return self._resampled[job]
