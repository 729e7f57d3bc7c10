"""What a reader must know before trusting a comparison: gaps, mixtures, contradictions.

Shape legend: I validation images, C classes.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mm_tuning_plugin.benchmark.analysis.comparison import Comparison, Row
from mm_tuning_plugin.benchmark.analysis.results import CLASS_PREFIX
from mm_tuning_plugin.benchmark.analysis.statistics import mean_iou
from mm_tuning_plugin.benchmark.report.wording import row_name

#: What made a result; within a row it should be one and the same.
PROVENANCE = (
    'commit', 'code', 'device', 'mm_tuning_plugin', 'torch', 'mmengine', 'mmcv', 'mmseg',
)  # fmt: skip
#: mmseg rounds mIoU to two digits.
ROUNDING = 0.0051


def notes(comparison: Comparison) -> list[str]:
    """Return all notes, one sentence each; an empty list without any."""
    found = [*unfinished(comparison.jobs), *contradictions(comparison)]
    for row in comparison.rows():
        jobs = comparison.of(row)
        done = jobs[(jobs['status'] == 'done') & jobs['mIoU'].notna()]
        found += [f'{row_name(row)}: {text}' for text in mixtures(done)]
        found += [f'{row_name(row)}: {text}' for text in absent_classes(comparison, row)]
    if comparison.done.index.unique('fold').size > 1:
        found.append(
            'Pairs of several folds are counted as independent, though their training images '
            'overlap: intervals over folds are too narrow rather than too wide.'
        )
    return found


def unfinished(jobs: pd.DataFrame) -> list[str]:
    """Jobs without a score."""
    failed, missing = jobs[jobs['status'] == 'failed'], jobs[jobs['status'] == 'missing']
    found = [f'Failed: {job}: {error or "no reason known"}' for job, error in
             zip(failed['job'], failed['error'])]  # fmt: skip
    if len(missing):
        found.append(f'Not run yet: {len(missing)} of {len(jobs)} jobs.')
    unscored = jobs[(jobs['status'] == 'done') & jobs['mIoU'].isna()]
    found += [f'Done without an mIoU, left out: {job}' for job in unscored['job']]
    return found


def mixtures(done: pd.DataFrame) -> list[str]:
    """Commits, devices, versions or numbers of images that differ within one comparison."""
    found = []
    for column in PROVENANCE:
        counts = done[column].replace('', 'not known').value_counts()
        if len(counts) > 1:
            each = ', '.join(f'{value} ({count} jobs)' for value, count in counts.items())
            found.append(f'runs of more than one {column} are compared: {each}.')
    for fold, jobs in done.groupby('fold', sort=True):
        counts = jobs['images'].dropna().unique()
        if len(counts) > 1:
            each = ', '.join(f'{count:g}' for count in sorted(counts))
            found.append(f'arms of fold {fold} were trained on {each} images, not on as many.')
    return found


def contradictions(comparison: Comparison) -> list[str]:
    """Jobs whose areas give another mIoU than results.csv."""
    found = []
    for job, score in zip(comparison.done['job'], comparison.done['mIoU']):
        areas = comparison.results.areas.get(job)
        if areas is None:
            continue
        summed = float(mean_iou(areas.intersect.sum(axis=0), areas.union.sum(axis=0)))
        if not abs(summed - score) < ROUNDING:
            found.append(f'{job}: its areas give an mIoU of {summed:.2f}, results.csv {score:.2f}.')
    return found


def absent_classes(comparison: Comparison, row: Row) -> list[str]:
    """Classes that have no IoU: neither in the truth nor predicted, so left out of the mean."""
    jobs = comparison.of(row)
    done = jobs[(jobs['status'] == 'done') & jobs['mIoU'].notna()]
    names = comparison.results.classes
    if not names or done.empty:
        return []
    lacking = done[[CLASS_PREFIX + name for name in names]].isna().to_numpy()  # (jobs, C)
    lacking = lacking[~lacking.all(axis=1)]  # skip a job without any IoU of a class
    if not len(lacking):
        return []
    everywhere = [names[c] for c in np.flatnonzero(lacking.all(axis=0))]
    sometimes = [names[c] for c in np.flatnonzero(lacking.any(axis=0) & ~lacking.all(axis=0))]
    found = []
    if everywhere:
        found.append(
            f'neither in the truth nor predicted, so left out of the mean as mmseg does: '
            f'{", ".join(everywhere)}.'
        )
    if sometimes:
        found.append(
            f'left out of the mean of some runs (neither in the truth nor predicted), but counted '
            f'in that of others: {", ".join(sometimes)}.'
        )
    return found
