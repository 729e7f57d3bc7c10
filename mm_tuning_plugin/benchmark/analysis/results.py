"""Read and check the files of a benchmark: results.csv, areas/, plan.json.

Shape legend: I validation images in manifest order, C classes.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mm_tuning_plugin.errors import UserError

#: Columns that identify a row of the report, and those that identify a pair in it.
ROW = ['backbone', 'start', 'fraction']
PAIR = ['fold', 'seed']
KEY = [*ROW, 'arm', *PAIR]
STATUSES = ('done', 'failed', 'missing')
_TEXT = ['job', 'backbone', 'start', 'arm', 'fold', 'status']
_NUMBERS = ['fraction', 'seed', 'mIoU']
_OPTIONAL_TEXT = [
    'error', 'device', 'commit', 'code', 'mm_tuning_plugin', 'torch', 'mmengine', 'mmcv', 'mmseg',
]  # fmt: skip
_OPTIONAL_NUMBERS = [
    'images', 'mAcc', 'aAcc', 'recall', 'recall_start', 'tuning_iters', 'fine_tuning_iters',
    'tuning_flops', 'fine_tuning_flops', 'flops', 'proxy_flops', 'tuning_seconds',
    'fine_tuning_seconds', 'seconds', 'peak_memory_mib',
]  # fmt: skip
CLASS_PREFIX = 'IoU.'


class Areas(NamedTuple):
    """Intersection and union of the predictions of a job, by image and class.

    Attributes:
        names: (I,) of the validation images.
        classes: (C,) names.
        intersect: (I, C) pixels.
        union: (I, C) pixels.
    """

    names: np.ndarray
    classes: np.ndarray
    intersect: np.ndarray
    union: np.ndarray


class Results(NamedTuple):
    """The content of a report.

    Attributes:
        jobs: One row for each job. Numbers are float64 (nan: unknown), texts str ('': unknown).
        areas: Name of a job -> areas, for jobs that are done and have them.
        plan: The resolved plan.
    """

    jobs: pd.DataFrame
    areas: dict[str, Areas]
    plan: dict[str, Any]

    @property
    def done(self) -> pd.DataFrame:
        """The jobs that have a score."""
        return self.jobs[(self.jobs['status'] == 'done') & self.jobs['mIoU'].notna()]

    @property
    def classes(self) -> list[str]:
        """Names of the classes that have a column in results.csv, in order."""
        return [c[len(CLASS_PREFIX) :] for c in self.jobs if c.startswith(CLASS_PREFIX)]


def read_results(work_dir: Path) -> Results:
    """Read a folder of a benchmark.

    Args:
        work_dir: Holds ``results.csv``, ``plan.json`` and, for the bootstrap, ``areas/``.

    Raises:
        UserError: A file is missing or damaged, or there is no job.
    """
    jobs = read_jobs(work_dir / 'results.csv')
    plan = _read_plan(work_dir / 'plan.json')
    areas = {}
    for name in jobs.loc[jobs['status'] == 'done', 'job']:
        path = work_dir / 'areas' / f'{name}.npz'
        if path.is_file():
            areas[name] = read_areas(path)
    _check_same_images(jobs, areas, work_dir / 'areas')
    return Results(jobs, areas, plan)


def read_jobs(path: Path) -> pd.DataFrame:
    """Read results.csv.

    Raises:
        UserError: It is missing, is another kind of table, or has the same run twice.
    """
    try:
        jobs = pd.read_csv(path, dtype=str, keep_default_na=False, encoding='utf-8')
    except FileNotFoundError:
        raise UserError(f'{path}', 'no such file', 'expected the results of a benchmark') from None
    except (OSError, ValueError) as error:  # pandas' errors of parsing are ValueErrors
        text = ' '.join(str(error).split())
        raise UserError(f'{path}', f'cannot be read ({text})', 'expected a CSV table') from None
    lacking = [c for c in _TEXT + _NUMBERS if c not in jobs]
    if lacking:
        raise UserError(
            f'{path}', f'no column {lacking[0]!r} found', f'expected {_TEXT + _NUMBERS}'
        )
    if jobs.empty:
        raise UserError(f'{path}', 'no job found', 'expected at least one')
    for column in _OPTIONAL_TEXT + _OPTIONAL_NUMBERS:
        if column not in jobs:
            jobs[column] = ''
    numbers = _NUMBERS + _OPTIONAL_NUMBERS + [c for c in jobs if c.startswith(CLASS_PREFIX)]
    for column in numbers:
        jobs[column] = _as_numbers(jobs[column], path)
    _check_jobs(jobs, path)
    return jobs.astype({'seed': np.int64})


def _as_numbers(column: pd.Series, path: Path) -> pd.Series:
    """Texts to float64; '' and 'nan' are nan."""
    numbers = pd.to_numeric(column.replace('', 'nan'), errors='coerce')
    wrong = column[numbers.isna() & ~column.str.lower().isin(['', 'nan'])]
    if len(wrong):
        raise UserError(
            f'{path}',
            f'line {wrong.index[0] + 2}, column {column.name}: {wrong.iloc[0]!r} found',
            'expected a number',
        )
    return numbers.astype(np.float64)


def _check_jobs(jobs: pd.DataFrame, path: Path) -> None:
    wrong = jobs[~jobs['status'].isin(STATUSES)]
    if len(wrong):
        raise UserError(
            f'{path}',
            f'line {wrong.index[0] + 2}: status {wrong["status"].iloc[0]!r} found',
            f'expected one of {list(STATUSES)}',
        )
    for column in ('fraction', 'seed'):
        if jobs[column].isna().any():
            line = jobs.index[jobs[column].isna()][0] + 2
            raise UserError(f'{path}', f'line {line}: no {column} found', 'expected a number')
    for key in (['job'], KEY):
        twice = jobs[jobs.duplicated(key)]
        if len(twice):
            raise UserError(
                f'{path}',
                f'line {twice.index[0] + 2}: {twice["job"].iloc[0]!r} is there twice',
                'expected each run once',
            )


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        plan = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise UserError(f'{path}', 'no such file', 'expected the plan of the benchmark') from None
    except (OSError, ValueError) as error:
        raise UserError(f'{path}', f'cannot be read ({error})', 'expected JSON') from None
    if not isinstance(plan, dict):
        raise UserError(f'{path}', f'{type(plan).__name__} found', 'expected a JSON object')
    size = plan.get('block_size', 20)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise UserError(f'{path}', f'block_size {size!r} found', 'expected a positive integer')
    return plan


def read_areas(path: Path) -> Areas:
    """Read a job's areas.

    Raises:
        UserError: The file is damaged, or its arrays do not fit together.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            areas = Areas(*(file[name] for name in Areas._fields))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        text = ' '.join(str(error).split())
        raise UserError(
            f'{path}', f'cannot be read ({text})', f'expected an .npz of {list(Areas._fields)}'
        ) from None
    shape = (*areas.names.shape, *areas.classes.shape)
    if len(shape) != 2 or not len(areas.names) or not len(areas.classes):
        raise UserError(
            f'{path}', f'names and classes of shape {shape} found', 'expected (I,), (C,)'
        )
    for name in ('intersect', 'union'):
        found = getattr(areas, name)
        if found.shape != shape or found.dtype.kind not in 'iu':
            raise UserError(
                f'{path}',
                f'{name} of shape {found.shape} and type {found.dtype} found',
                f'expected {shape} and integers',
            )
    return areas


def _check_same_images(jobs: pd.DataFrame, areas: dict[str, Areas], folder: Path) -> None:
    """Check that all jobs of a fold were evaluated on the same images and classes."""
    first: dict[str, str] = {}
    for name, fold in zip(jobs['job'], jobs['fold']):
        if name not in areas:
            continue
        other = first.setdefault(fold, name)
        for kind in ('names', 'classes'):
            if not np.array_equal(getattr(areas[name], kind), getattr(areas[other], kind)):
                raise UserError(
                    f'{folder / (name + ".npz")}',
                    f'other {kind} than in {other}.npz found',
                    'expected the same validation images and classes throughout a fold',
                )
