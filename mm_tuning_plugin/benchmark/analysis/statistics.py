"""The statistics of a comparison: paired intervals, the bootstrap, Holm's correction.

Shape legend: P pairs (a fold and a seed that both arms have), I validation images in manifest
order, B blocks of consecutive images, C classes, R replicates of the bootstrap. Scores are in
percent, areas in pixels.

Sources:
    paired t: Student (1908); ``scipy.stats.ttest_rel``.
    bootstrap over two crossed factors: A. Owen (2007), "The pigeonhole bootstrap", Annals of
        Applied Statistics 1(2). Blocks instead of single images: H. Künsch (1989), "The jackknife
        and the bootstrap for general stationary observations", Annals of Statistics 17(3):
        neighbours in a manifest are often frames of one drive. n - 1 of n are drawn, as a draw of
        n has a spread too small by the factor (n - 1) / n: T. Hesterberg (2015), "What teachers
        should know about the bootstrap", The American Statistician 69(4).
    Holm: S. Holm (1979), "A simple sequentially rejective multiple test procedure", Scandinavian
        Journal of Statistics 6(2); its intervals: R. Serlin (1993), "Confidence intervals and the
        scientific method", Journal of Experimental Education 61(4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
REPLICATES = 5000


class Paired(NamedTuple):
    """A paired difference.

    Attributes:
        mean: Its mean over pairs; nan without a pair.
        low: Lower end of its interval; nan without an interval.
        high: Upper end.
        pairs: P.
    """

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def has_interval(self) -> bool:
        """Whether there were enough pairs for an interval."""
        return not math.isnan(self.low)


def paired_t(differences: np.ndarray | Sequence[float], level: float = LEVEL) -> Paired:
    """The mean of paired differences with the interval of the paired t distribution.

    Args:
        differences: (P,) one a pair.
        level: Confidence, in (0, 1).

    Returns:
        The difference. One pair has no interval (nan), none has no mean either. Equal differences
        have an interval of no width: true of the formula, not of the world.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not len(values):
        return Paired(math.nan, math.nan, math.nan, 0)
    mean, half = float(values.mean()), math.nan
    if len(values) > 1:
        from scipy import stats

        quantile = stats.t.ppf((1 + level) / 2, len(values) - 1)
        half = float(quantile * values.std(ddof=1) / math.sqrt(len(values)))
    return Paired(mean, mean - half, mean + half, len(values))


def reaches(gain: Paired, bar: float = 0.0) -> bool:
    """Whether a gain is shown to be one: above the bar, and its interval above 0.

    Args:
        gain: The paired difference.
        bar: What its mean must exceed, in points.

    Returns:
        False without an interval.
    """
    return gain.mean > bar and gain.low > 0


def mean_iou(intersect: np.ndarray, union: np.ndarray) -> np.ndarray:
    """MIoU of summed areas, as mmseg's ``IoUMetric`` has it (before it rounds to two digits).

    A class that is neither in the truth nor predicted (union 0) is left out of the mean. One that
    is predicted but nowhere in the truth counts 0.

    Args:
        intersect: (..., C) areas.
        union: (..., C) areas.

    Returns:
        (...) percent; nan where every union is 0.
    """
    iou = class_iou(intersect, union)
    present = ~np.isnan(iou)
    with np.errstate(invalid='ignore'):
        return np.where(present, iou, 0).sum(axis=-1) / present.sum(axis=-1)


def class_iou(intersect: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Return the IoU of summed areas in percent, (..., C); nan if the union is 0."""
    intersect, union = np.asarray(intersect, np.float64), np.asarray(union, np.float64)
    iou = np.full(union.shape, np.nan)
    np.divide(100 * intersect, union, out=iou, where=union > 0)
    return iou


def block_sums(areas: np.ndarray, block_size: int) -> np.ndarray:
    """Sums over blocks of consecutive images: (I, C) to (B, C); the last block may be smaller."""
    return np.add.reduceat(areas, np.arange(0, len(areas), block_size), axis=0)


def draw_weights(units: int, generator: np.random.Generator, replicates: int) -> np.ndarray:
    """How often each unit is drawn in each replicate, as shares of the units - 1 draws.

    Args:
        units: Number of pairs or blocks, at least 2.
        generator: The source of draws.
        replicates: R.

    Returns:
        (R, units) float64, rows sum to 1.
    """
    draws = units - 1
    return generator.multinomial(draws, np.full(units, 1 / units), size=replicates) / draws


def replicate_scores(
    intersect: np.ndarray, union: np.ndarray, block_size: int, weights: np.ndarray
) -> np.ndarray:
    """MIoU of one run on resampled blocks of images.

    Two runs given the same weights are judged on the same blocks, so that their difference is
    paired over images too.

    Args:
        intersect: (I, C) areas per image.
        union: (I, C) areas per image.
        block_size: Images of a block.
        weights: (R, B) of `draw_weights`.

    Returns:
        (R,) percent.
    """
    return mean_iou(
        weights @ block_sums(intersect, block_size), weights @ block_sums(union, block_size)
    )


def paired_bootstrap(
    differences: np.ndarray,
    replicates: np.ndarray,
    generator: np.random.Generator,
    level: float = LEVEL,
) -> Paired:
    """Percentile interval over pairs and, crossed with them, blocks of images.

    Unlike the paired t interval, it shows how much depends on the choice of images. But it is too
    narrow with few pairs: if pairs differ and images do not, its 95 % cover 50, 74, 87 and 92 of
    100 cases with 2, 3, 5 and 10 pairs (simulated), and the t interval's cover 95. So a gain is
    claimed only if both exclude 0.

    Args:
        differences: (P,) on all images.
        replicates: (P, R) the same on resampled blocks: differences of `replicate_scores`.
        generator: Draws the pairs.
        level: Confidence.

    Returns:
        The mean difference on all images and its interval; none (nan) with fewer than two pairs.
    """
    pairs = len(differences)
    mean = float(np.mean(differences)) if pairs else math.nan
    if pairs < 2:
        return Paired(mean, math.nan, math.nan, pairs)
    weights = draw_weights(pairs, generator, replicates.shape[1])  # (R, P)
    drawn = np.einsum('rp,pr->r', weights, replicates)
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Paired(mean, float(low), float(high), pairs)


def holm(p_values: np.ndarray | Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values: the largest (m - rank) * p so far, in order of p, at most 1.

    Args:
        p_values: (m,) in 0..1.

    Returns:
        (m,) in the order given.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind='stable')
    steps = np.maximum.accumulate((len(values) - np.arange(len(values))) * values[order])
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(steps, 1)
    return adjusted


def holm_levels(p_values: np.ndarray | Sequence[float], level: float = LEVEL) -> np.ndarray:
    """The confidence at which each interval decides exactly as Holm's test does.

    With alpha = 1 - level: alpha / (m - rank) for the hypotheses that are rejected, and for all
    others what the first of them was tested at. An interval at its level excludes 0 exactly if the
    adjusted p-value is below alpha. Joint coverage is promised by the wider ones at
    1 - alpha / m only (Bonferroni).

    Args:
        p_values: (m,) two-sided.
        level: 1 - alpha.

    Returns:
        (m,) confidences.
    """
    values = np.asarray(p_values, dtype=np.float64)
    rejected = int((holm(values) < 1 - level).sum())
    rank = np.empty(len(values), dtype=np.int64)
    rank[np.argsort(values, kind='stable')] = np.arange(len(values))
    return 1 - (1 - level) / (len(values) - np.minimum(rank, rejected))


class Change(NamedTuple):
    """What became of one class.

    Attributes:
        index: Of the class.
        plain: Paired difference at 95 %, of this class alone.
        holm: The same at the level of Holm's step (`holm_levels`).
        joint: The same at Bonferroni's level: all of these hold together with 95 %.
        p_value: Holm's, adjusted; nan without an interval.
    """

    index: int
    plain: Paired
    holm: Paired
    joint: Paired
    p_value: float


def class_changes(differences: np.ndarray, level: float = LEVEL) -> list[Change]:
    """Paired change of each class, corrected for their number.

    Args:
        differences: (P, C) IoU of one arm minus another's; nan if a class was absent.
        level: 1 - alpha.

    Returns:
        One a class that has no nan, in order. Others are left out, and m counts without them.
    """
    kept = np.flatnonzero(~np.isnan(differences).any(axis=0))
    values = np.asarray(differences, dtype=np.float64)[:, kept]
    pairs, m = values.shape
    if not m or not pairs:
        return []
    if pairs < 2:
        singles = [paired_t(values[:, c], level) for c in range(m)]
        return [Change(int(c), s, s, s, math.nan) for c, s in zip(kept, singles)]
    p_values = np.array([_p_value(values[:, c]) for c in range(m)])
    adjusted, levels = holm(p_values), holm_levels(p_values, level)
    return [
        Change(
            int(kept[c]),
            paired_t(values[:, c], level),
            paired_t(values[:, c], levels[c]),
            paired_t(values[:, c], 1 - (1 - level) / m),
            float(adjusted[c]),
        )
        for c in range(m)
    ]


def _p_value(values: np.ndarray) -> float:
    """Two-sided p of the paired t; 1 if nothing changed, 0 if all changed by the same amount."""
    error = values.std(ddof=1) / math.sqrt(len(values))
    if error == 0:
        return float(values.mean() == 0)
    from scipy import stats

    return float(2 * stats.t.sf(abs(values.mean()) / error, len(values) - 1))


def fraction_reaching(
    fractions: Sequence[float], scores: Sequence[float], target: float
) -> tuple[float, bool]:
    """The share of labels at which a curve first reaches a score.

    Between two measured shares the score is taken to be linear in the logarithm of the share.

    Args:
        fractions: Increasing, above 0.
        scores: Score at each.
        target: Score to reach.

    Returns:
        The share, and whether it was crossed between two measurements. ``(smallest, False)`` if the
        smallest share reaches it already, ``(nan, False)`` if none does.
    """
    reached = np.flatnonzero(np.asarray(scores) >= target)
    if not len(reached):
        return math.nan, False
    first = int(reached[0])
    if first == 0:
        return float(fractions[0]), False
    below, above = scores[first - 1], scores[first]
    share = (target - below) / (above - below)
    low, high = math.log(fractions[first - 1]), math.log(fractions[first])
    return math.exp(low + share * (high - low)), True
