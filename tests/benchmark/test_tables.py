import csv
import math

import numpy as np
import pytest
from scipy import stats

from mm_tuning_plugin.benchmark.report.tables import paired_difference, summary, write_csv

ONE = {0: 41.2, 1: 39.8, 2: 44.1, 3: 40.0, 4: 42.7}
OTHER = {4: 40.1, 2: 43.0, 0: 40.9, 1: 37.1, 3: 40.4}


def test_paired_difference_is_scipys():
    done = paired_difference(ONE, OTHER)
    test = stats.ttest_rel([ONE[s] for s in range(5)], [OTHER[s] for s in range(5)])
    interval = test.confidence_interval(0.95)
    assert done.mean == pytest.approx(np.mean([0.3, 2.7, 1.1, -0.4, 2.6]))
    assert (done.low, done.high) == pytest.approx((interval.low, interval.high))
    assert done.pairs == 5


def test_only_seeds_of_both_count():
    done = paired_difference({**ONE, 9: 1000.0}, {**OTHER, 8: -1000.0})
    assert done == paired_difference(ONE, OTHER)


def test_the_other_way_about():
    one, other = paired_difference(ONE, OTHER), paired_difference(OTHER, ONE)
    assert (other.mean, other.low, other.high) == pytest.approx((-one.mean, -one.high, -one.low))


def test_too_few_pairs_for_an_interval():
    single = paired_difference({0: 3.0}, {0: 1.0})
    assert single.mean == 2 and single.pairs == 1
    assert math.isnan(single.low) and math.isnan(single.high)
    none = paired_difference({0: 3.0}, {1: 1.0})
    assert none.pairs == 0 and all(math.isnan(value) for value in none[:3])


def row(arm, seed, score, **more):
    return {'arm': arm, 'seed': seed, 'mIoU': score, **more}


def test_summary_of_arms():
    rows = [
        row('direct', 0, 40.0, tuning_seconds=0, fine_tuning_seconds=99.6, recall_before=None),
        row('tuned', 0, 42.0, tuning_seconds=20, fine_tuning_seconds=100, recall_before=0.5,
            recall_after=0.75),
        row('direct', 1, 41.0, tuning_seconds=0, fine_tuning_seconds=100.6, recall_before=None),
        row('tuned', 1, 44.0, tuning_seconds=30, fine_tuning_seconds=100, recall_before=0.25,
            recall_after=0.625),
    ]  # fmt: skip
    half = stats.t.ppf(0.975, 1) * np.std([2, 3], ddof=1) / math.sqrt(2)
    assert summary(rows).splitlines() == [
        '| arm | mIoU (mean, sd over seeds) | per seed | minus direct [95 %] | '
        'recall@1 before, after | seconds tuning + fine-tuning |',
        '|---|---|---|---|---|---|',
        '| direct | 40.50, 0.71 | 40.00, 41.00 |  |  | 0 + 100 |',
        f'| tuned | 43.00, 1.41 | 42.00, 44.00 | +2.50 [{2.5 - half:+.2f}, {2.5 + half:+.2f}] | '
        '0.375, 0.688 | 25 + 100 |',
    ]


def test_summary_of_one_seed_two_baselines_and_another_score():
    rows = [
        {'arm': 'direct', 'seed': 3, 'aAcc': 80.0},
        {'arm': 'direct-matched', 'seed': 3, 'aAcc': 81.0},
        {'arm': 'tuned', 'seed': 3, 'aAcc': 80.5},
    ]
    lines = summary(rows, 'aAcc').splitlines()
    assert 'aAcc (mean, sd over seeds)' in lines[0]
    assert lines[2].startswith('| direct | 80.00, - | 80.00 |  | -1.00 |')
    assert lines[4].startswith('| tuned | 80.50, - | 80.50 | +0.50 | -0.50 |')


def test_rows_without_a_score_are_left_out():
    rows = [row('direct', 0, 40.0), row('direct', 1, None), row('tuned', 0, None)]
    lines = summary(rows).splitlines()
    assert len(lines) == 3 and lines[2].startswith('| direct | 40.00, - | 40.00 |')
    assert summary(rows[1:]) == 'No mIoU was measured in 2 runs.'


def test_csv_has_all_columns_and_nothing_beside_it(tmp_path):
    path = tmp_path / 'results.csv'
    write_csv(path, [{'arm': 'a', 'mIoU': 1.5}, {'arm': 'b, c', 'note': 'x'}])
    with path.open(newline='', encoding='utf-8') as file:
        assert list(csv.DictReader(file)) == [
            {'arm': 'a', 'mIoU': '1.5', 'note': ''},
            {'arm': 'b, c', 'mIoU': '', 'note': 'x'},
        ]
    assert [p.name for p in tmp_path.iterdir()] == ['results.csv']


def test_an_old_csv_survives_a_failure(tmp_path):
    path = tmp_path / 'results.csv'
    write_csv(path, [{'arm': 'a'}])
    with pytest.raises(UnicodeEncodeError):
        write_csv(path, [{'arm': 'b'}, {'arm': 'lone surrogate \ud800'}])
    assert path.read_text(encoding='utf-8') == 'arm\na\n'
