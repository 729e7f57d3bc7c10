"""Collect the records of steps into ``results.csv``, ``plan.json`` and ``areas/``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mm_tuning_plugin.atomic_write import atomic_write, write_json
from mm_tuning_plugin.benchmark.design.plan import Plan
from mm_tuning_plugin.benchmark.report.tables import write_csv
from mm_tuning_plugin.benchmark.steps import RECORD_FILE, Job, Step

FIRST_METRICS = ('mIoU', 'mAcc', 'aAcc')
VERSIONS = ('mm_tuning_plugin', 'torch', 'mmengine', 'mmcv', 'mmseg')


class Collector:
    """Writes the results of jobs; may be called again as steps finish.

    Args:
        jobs: In the order of the rows.
        work_dir: Folder of the results.
    """

    def __init__(self, jobs: Sequence[Job], work_dir: Path) -> None:
        self.jobs, self.work_dir = jobs, work_dir
        self.errors: dict[Path, str] = {}
        self._records: dict[Path, dict[str, Any]] = {}
        self._copied: set[str] = set()

    def write_plan(self, plan: Plan, command: Sequence[str]) -> None:
        """Write ``plan.json``: the resolved plan and the command that runs it."""
        content = dict(plan.as_json(), command=list(command), jobs=len(self.jobs))
        write_json(self.work_dir / 'plan.json', content)

    def fail(self, product: Path, error: str) -> None:
        """Note that a step failed."""
        self.errors[product] = error

    def is_done(self, product: Path) -> None:
        """Note that a step is finished."""
        self.errors.pop(product, None)

    def write(self) -> list[dict[str, Any]]:
        """Write ``results.csv``, and the areas of jobs that have finished; return the rows."""
        rows = [self._row(job) for job in self.jobs]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        classes = [name for name in columns if name.startswith('IoU.')]
        first = columns.index('mIoU') + len(FIRST_METRICS)
        rest = [name for name in columns[first:] if name not in classes]
        order = [*columns[:first], *classes, *rest]
        write_csv(
            self.work_dir / 'results.csv',
            [{name: row.get(name) for name in order} for row in rows],
        )
        return rows

    def _row(self, job: Job) -> dict[str, Any]:
        records = {step.product: self._record(step) for step in job.steps}
        own = job.steps[-1]
        last = records[own.product]
        status, error = self._status(job)
        if status == 'done':
            self._copy_areas(job)
        else:
            last = {}
        metrics = last.get('metrics') or {}
        before = [step for step in job.steps[:-1] if step.kind != 'proxy']
        known = [(step, records[step.product] or {}) for step in job.steps]
        return dict(
            job=job.name,
            backbone=job.backbone,
            start=job.start,
            arm=job.arm,
            fraction=job.fraction,
            fold=job.fold,
            seed=job.seed,
            images=last.get('images'),
            status=status,
            error=error,
            **{name: metrics.get(name) for name in FIRST_METRICS},
            **{name: value for name, value in metrics.items() if name.startswith('IoU.')},
            **_recalls([records[step.product] or {} for step in before], last),
            tuning_iters=sum(step.iterations for step in before),
            fine_tuning_iters=own.iterations,
            tuning_flops=sum(step.flops for step in before),
            fine_tuning_flops=own.flops,
            flops=sum(step.flops for step in [*before, own]),
            proxy_flops=sum(step.flops for step in job.steps if step.kind == 'proxy'),
            tuning_seconds=_seconds(known, ('tuning', 'first_pass')),
            fine_tuning_seconds=last.get('seconds'),
            seconds=_seconds(known, ('tuning', 'first_pass', 'fine_tuning')),
            proxy_seconds=_seconds(known, ('proxy',)),
            peak_memory_mib=max(
                (r['peak_memory_mib'] for s, r in known if r and s.kind != 'proxy'), default=None
            ),
            device=last.get('device'),
            commit=last.get('commit'),
            code=last.get('code'),
            **{name: (last.get('versions') or {}).get(name) for name in VERSIONS},
        )

    def _record(self, step: Step) -> dict[str, Any] | None:
        """Return the record of a finished step, even if its product was deleted, or None."""
        path = step.folder / RECORD_FILE
        if step.product not in self._records and path.is_file():
            self._records[step.product] = json.loads(path.read_text(encoding='utf-8'))
        return self._records.get(step.product)

    def _status(self, job: Job) -> tuple[str, str]:
        if job.steps[-1].finished:
            return 'done', ''
        errors = [self.errors[s.product] for s in job.steps if s.product in self.errors]
        return ('failed', errors[0]) if errors else ('missing', '')

    def _copy_areas(self, job: Job) -> None:
        if job.name in self._copied:
            return
        folder = self.work_dir / 'areas'
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / f'{job.name}.npz') as aside:
            shutil.copyfile(job.steps[-1].product, aside)
        self._copied.add(job.name)


def _recalls(before: Sequence[Mapping[str, Any]], last: Mapping[str, Any]) -> dict[str, Any]:
    """Recall@1 of the start, of the backbone before fine-tuning, and of the backbone after it."""
    start = (before[0] if before else last).get('recall_start')
    return dict(
        recall=before[-1].get('recall') if before else start,
        recall_start=start,
        recall_fine_tuned=last.get('recall'),
    )


def _seconds(known: Sequence[tuple[Step, Mapping[str, Any]]], kinds: Sequence[str]) -> float | None:
    """Total seconds of the steps of some kinds; None if one is unfinished."""
    found = [record.get('seconds') for step, record in known if step.kind in kinds]
    return None if None in found else round(sum(found), 2)
