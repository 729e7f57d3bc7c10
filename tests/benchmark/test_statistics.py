import math

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric
from scipy import stats

from mm_tuning_plugin.benchmark.analysis.statistics import (
    Paired,
    block_sums,
    class_changes,
    class_iou,
    draw_weights,
    fraction_reaching,
    holm,
    holm_levels,
    mean_iou,
    paired_bootstrap,
    paired_t,
    reaches,
    replicate_scores,
)


def test_paired_t_by_hand_and_by_scipy():
    # Mean 2, sd 1, t(0.975, 2) = 4.302653: 2 -+ 4.302653 / sqrt(3).
    done = paired_t([1.0, 2.0, 3.0])
    assert done == pytest.approx((2.0, -0.484138, 4.484138, 3), abs=1e-6)
    one, other = np.random.default_rng(0).normal(size=(2, 7))
    for level in (0.95, 0.8):
        interval = stats.ttest_rel(one, other).confidence_interval(level)
        done = paired_t(one - other, level)
        assert (done.low, done.high) == pytest.approx((interval.low, interval.high))


def test_paired_t_of_one_none_and_equal_pairs():
    assert paired_t([1.5])[0] == 1.5 and not paired_t([1.5]).has_interval
    assert math.isnan(paired_t([]).mean) and paired_t([]).pairs == 0
    assert paired_t([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5, 3)


@pytest.mark.parametrize(
    'gain, bar, shown',
    [
        (Paired(1.01, 0.2, 1.82, 5), 1.0, True),
        (Paired(1.0, 0.2, 1.8, 5), 1.0, False),  # at the bar is not above it
        (Paired(1.5, -0.01, 3.0, 5), 1.0, False),
        (Paired(1.5, 0.0, 3.0, 5), 0.0, False),
        (Paired(9.0, math.nan, math.nan, 1), 0.0, False),
    ],
)
def test_reaches_on_both_sides(gain, bar, shown):
    assert reaches(gain, bar) is shown


def test_areas_of_images_give_mmsegs_iou():
    generator = torch.Generator().manual_seed(0)
    metric = IoUMetric(ignore_index=255)
    metric.dataset_meta = {'classes': ('a', 'b', 'c', 'absent', 'only predicted')}
    for _ in range(6):
        truth = torch.randint(0, 3, (1, 12, 15), generator=generator)
        truth[0, :2] = 255
        predicted = torch.where(
            torch.rand(truth.shape, generator=generator) < 0.6,
            truth,
            torch.randint(0, 3, truth.shape, generator=generator),
        )
        predicted[predicted == 255] = 0
        predicted[0, 5, 5] = 4
        sample = {'pred_sem_seg': {'data': predicted}, 'gt_sem_seg': {'data': truth}}
        metric.process({}, [sample])
    areas = [np.stack([r[i].numpy() for r in metric.results]).astype(np.int64) for i in (0, 1)]
    expected = metric.compute_metrics(metric.results)
    summed = areas[0].sum(0), areas[1].sum(0)
    assert round(float(mean_iou(*summed)), 2) == expected['mIoU']
    iou = class_iou(*summed)
    assert math.isnan(iou[3]) and iou[4] == 0
    assert float(mean_iou(*summed)) == pytest.approx(iou[[0, 1, 2, 4]].mean())


@pytest.mark.filterwarnings('error')
def test_mean_iou_of_nothing_is_nan():
    assert math.isnan(mean_iou(np.zeros(3), np.zeros(3)))


def test_block_sums_in_order_with_a_smaller_last_block():
    areas = np.arange(14).reshape(7, 2)
    expected = [areas[:3].sum(0), areas[3:6].sum(0), areas[6:].sum(0)]
    assert np.array_equal(block_sums(areas, 3), expected)


def test_replicates_are_those_of_a_plain_loop():
    generator = np.random.default_rng(0)
    union = generator.integers(0, 50, (11, 4)) * (generator.random((11, 4)) < 0.5)
    intersect = (union * generator.random((11, 4))).astype(np.int64)
    weights = draw_weights(3, generator, 20)
    assert np.allclose(weights.sum(1), 1)
    assert np.allclose(weights * 2, np.round(weights * 2))  # n - 1 draws
    for drawn, score in zip(weights, replicate_scores(intersect, union, 4, weights)):
        total = np.zeros((2, 4))
        for image in range(11):
            total += drawn[image // 4] * np.stack([intersect[image], union[image]])
        ious = [100 * i / u for i, u in zip(*total) if u > 0]
        assert score == pytest.approx(np.mean(ious))


def bootstrap_of(values, block_size, generator, replicates=400):
    """The bootstrap of (P, I) differences that are plain means over images."""
    blocks = block_sums(values.T, block_size).T / block_size
    weights = draw_weights(blocks.shape[1], generator, replicates)
    return paired_bootstrap(values.mean(1), blocks @ weights.T, generator)


@pytest.mark.parametrize(
    'seeds, images, correlated', [(1.0, 0.0, False), (0.3, 1.0, False), (0.0, 1.0, True)]
)
def test_bootstrap_covers(seeds, images, correlated):
    """95 % of 300 simulations, whether pairs, images or correlated neighbours differ."""
    generator, hits = np.random.default_rng(3), 0
    for _ in range(300):
        shared = generator.normal(0, images, (1, 20 if correlated else 100))
        shared = np.repeat(shared, 5, axis=1) if correlated else shared
        values = generator.normal(0, seeds, (10, 1)) + shared
        done = bootstrap_of(values, 5, generator)
        hits += done.low <= 0 <= done.high
    assert 0.88 <= hits / 300 <= 0.98


def test_single_images_would_not_cover_correlated_neighbours():
    generator, hits = np.random.default_rng(3), 0
    for _ in range(100):
        shared = np.repeat(generator.normal(size=(1, 20)), 5, axis=1)
        done = bootstrap_of(np.repeat(shared, 10, axis=0), 1, generator)
        hits += done.low <= 0 <= done.high
    assert hits / 100 < 0.75


def test_bootstrap_over_one_or_no_pair_has_no_interval():
    generator = np.random.default_rng(0)
    assert not paired_bootstrap(np.ones(1), np.ones((1, 50)), generator).has_interval
    assert paired_bootstrap(np.ones(0), np.ones((0, 50)), generator).pairs == 0


def slow_holm(p_values):
    """Holm's adjusted p-values as Holm defines the test, hypothesis by hypothesis."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = highest
    return adjusted


def test_holm_by_hand():
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 (then at least the one before: 0.06).
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1, 1])
    assert len(holm([])) == 0


def test_holm_is_the_slow_one():
    generator = np.random.default_rng(0)
    for count in (1, 2, 5, 21):
        values = np.round(generator.random(count) ** 3, 2)  # with ties
        assert holm(values) == pytest.approx(slow_holm(list(values)))


def test_holm_levels_by_hand():
    # Two are rejected (at 0.05/4 and 0.05/3), the third is tested at 0.05/2 and stops the rest.
    levels = holm_levels([0.01, 0.04, 0.03, 0.005])
    assert 1 - levels == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4])


def test_an_interval_excludes_zero_exactly_where_holm_rejects():
    generator, seen = np.random.default_rng(0), set()
    for _ in range(40):
        differences = generator.normal(generator.normal(0, 1.5, 6), 1, (6, 6))
        for change in class_changes(differences):
            excludes = change.holm.low > 0 or change.holm.high < 0
            assert excludes == (change.p_value < 0.05)
            assert change.joint.low <= change.holm.low <= change.plain.low
            seen.add(excludes)
    assert seen == {True, False}


def test_class_changes_against_scipy_without_absent_classes():
    differences = np.random.default_rng(1).normal(1, 1, (5, 4))
    differences[2, 1] = np.nan
    changes = class_changes(differences)
    assert [change.index for change in changes] == [0, 2, 3]
    p_values = [stats.ttest_1samp(differences[:, i], 0).pvalue for i in (0, 2, 3)]
    assert [c.p_value for c in changes] == pytest.approx(slow_holm(p_values))
    wide = stats.ttest_1samp(differences[:, 2], 0).confidence_interval(1 - 0.05 / 3)
    assert changes[1].joint.low == pytest.approx(wide.low)


def test_class_changes_at_the_edges():
    single = class_changes(np.array([[1.0, np.nan, -2.0]]))
    assert [(c.index, c.plain.mean) for c in single] == [(0, 1.0), (2, -2.0)]
    assert all(math.isnan(c.p_value) and not c.holm.has_interval for c in single)
    assert class_changes(np.zeros((0, 3))) == [] == class_changes(np.full((3, 2), np.nan))
    same = class_changes(np.array([[0.0, 1.0]] * 3))
    assert [c.p_value for c in same] == [1.0, 0.0]


def test_fraction_reaching():
    shares, scores = [0.125, 0.5, 1.0], [40.0, 44.0, 50.0]
    share, crossed = fraction_reaching(shares, scores, 42.0)
    assert crossed and share == pytest.approx(0.25)  # halfway in the logarithm
    assert fraction_reaching(shares, scores, 44.0) == (pytest.approx(0.5), True)
    assert fraction_reaching(shares, scores, 39.0) == (0.125, False)
    share, crossed = fraction_reaching(shares, scores, 50.01)
    assert math.isnan(share) and not crossed
