"""From the results of jobs to tables: a row a job, means with spread, paired differences."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mm_tuning_plugin.atomic_write import atomic_write
from mm_tuning_plugin.benchmark.analysis.statistics import Paired, paired_t


def paired_difference(one: Mapping[int, float], other: Mapping[int, float]) -> Paired:
    """Compare two arms over the seeds that both have.

    Args:
        one: Score by seed.
        other: Score by seed, subtracted.

    Returns:
        The difference; its interval is nan with fewer than two pairs.
    """
    seeds = sorted(set(one) & set(other))
    return paired_t([one[seed] - other[seed] for seed in seeds])


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows atomically; columns in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_write(path) as temporary, temporary.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, columns, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def summary(rows: Sequence[Mapping[str, Any]], score: str = 'mIoU') -> str:
    """Markdown: per arm the mean, the spread over seeds, and each paired difference.

    Args:
        rows: One a job, with ``arm``, ``seed``, `score`, and optionally ``tuning_seconds``,
            ``fine_tuning_seconds``, ``recall_before``, ``recall_after``. Rows without a score are
            left out.
        score: The column compared.
    """
    scored = [row for row in rows if row.get(score) is not None]
    if not scored:
        return f'No {score} was measured in {len(rows)} runs.'
    arms = list(dict.fromkeys(row['arm'] for row in scored))
    by_arm = {arm: {r['seed']: r[score] for r in scored if r['arm'] == arm} for arm in arms}
    baselines = [arm for arm in arms if arm.startswith('direct')]
    head = [f'{score} (mean, sd over seeds)', 'per seed']
    head += [f'minus {arm} [95 %]' for arm in baselines]
    head += ['recall@1 before, after', 'seconds tuning + fine-tuning']
    lines = ['| arm | ' + ' | '.join(head) + ' |', '|---' * (len(head) + 1) + '|']
    for arm in arms:
        values = np.array(list(by_arm[arm].values()))
        spread = f'{values.std(ddof=1):.2f}' if len(values) > 1 else '-'
        cells = [f'{values.mean():.2f}, {spread}', ', '.join(f'{v:.2f}' for v in values)]
        for baseline in baselines:
            cells.append('' if baseline == arm else _show(by_arm[arm], by_arm[baseline]))
        of_arm = [row for row in rows if row['arm'] == arm]
        recalls = [_mean(of_arm, key, 3) for key in ('recall_before', 'recall_after')]
        cells.append(', '.join(filter(None, recalls)))
        seconds = [_mean(of_arm, key, 0) for key in ('tuning_seconds', 'fine_tuning_seconds')]
        cells.append(' + '.join(filter(None, seconds)))
        lines.append(f'| {arm} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _show(one: Mapping[int, float], other: Mapping[int, float]) -> str:
    difference = paired_difference(one, other)
    if math.isnan(difference.low):
        return f'{difference.mean:+.2f}'
    return f'{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]'


def _mean(rows: Sequence[Mapping[str, Any]], key: str, digits: int) -> str:
    values = [float(row[key]) for row in rows if row.get(key) not in (None, '')]
    return f'{np.mean(values):.{digits}f}' if values else ''
