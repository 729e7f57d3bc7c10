"""``tools/benchmark.py PLAN``: the arms of a plan over its seeds, and a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mm_tuning_plugin.cli.environment import require_stack
from mm_tuning_plugin.cli.run import make_folder, run
from mm_tuning_plugin.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog='benchmark.py',
        description='Run the arms of a plan over its seeds, each in a process of its own. Stopped '
        'and started again, it goes on with the jobs that are not finished.',
        epilog='example: python tools/benchmark.py configs/benchmarks/camvid_small.py '
        '--work-dir work_dirs/camvid_small',
    )
    parser.add_argument('plan', help='a plan: see configs/benchmarks/')
    parser.add_argument('--work-dir', metavar='DIR', required=True, help='where everything goes')
    parser.add_argument('--seeds', type=int, nargs='+', help="instead of the plan's")
    parser.add_argument('--arms', nargs='+', help="instead of the plan's")
    return parser


def row_of(job: Any, stages: dict) -> dict[str, Any]:
    """A row of results.csv."""
    tuning, fine_tuning = stages.get('tuning', {}), stages['fine_tuning']
    retrieval = list(tuning.get('retrieval', {}).values())
    return dict(
        arm=job.arm,
        seed=job.seed,
        mIoU=fine_tuning['metrics'].get('mIoU'),
        mAcc=fine_tuning['metrics'].get('mAcc'),
        aAcc=fine_tuning['metrics'].get('aAcc'),
        tuning_iters=tuning.get('iterations', 0),
        fine_tuning_iters=job.cfg['train_cfg']['max_iters'],
        tuning_seconds=tuning.get('seconds', 0),
        fine_tuning_seconds=fine_tuning['seconds'],
        recall_before=retrieval[0].get('retrieval/recall@1') if retrieval else None,
        recall_after=retrieval[-1].get('retrieval/recall@1') if retrieval else None,
    )


def versions() -> dict[str, str]:
    """The versions that made a result."""
    import mmcv
    import mmengine
    import mmseg
    import torch

    import mm_tuning_plugin

    modules = (mm_tuning_plugin, torch, mmengine, mmcv, mmseg)
    return {module.__name__: module.__version__ for module in modules}


def run_jobs(jobs: Sequence[Any], work_dir: Path) -> list[dict[str, Any]]:
    """Run jobs with a progress display; write results.csv after each."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from mm_tuning_plugin.benchmark.jobs import run_job
    from mm_tuning_plugin.benchmark.tables import write_csv

    rows: list[dict[str, Any]] = []
    columns = ('{task.description}', BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as display:
        overall = display.add_task('all jobs', total=len(jobs))
        for job in jobs:
            task = display.add_task(job.name, total=None)

            def report(stage: str, done: int, total: int, name=job.name, task=task) -> None:
                what = {'1': ' (tuning)', '2': ' (fine-tuning)'}.get(stage, '')
                display.update(task, description=name + what, completed=done, total=total)

            stages = run_job(job, work_dir / job.name, report)
            display.remove_task(task)
            display.advance(overall)
            rows.append({**row_of(job, stages), **versions()})
            write_csv(work_dir / 'results.csv', rows)
    return rows


def load_plan(path: str, work_dir: Path) -> tuple[Any, Any]:
    """Read a plan and its base config, with the plan's fold and overrides applied.

    Raises:
        UserError: The plan or its config is missing or wrong.
    """
    from mm_tuning_plugin.benchmark.arms import use_fold
    from mm_tuning_plugin.cli.train import load_config

    plan = load_config(path)
    if 'config' not in plan:
        raise UserError(f'{path}: no `config` found, expected the config of the arms')
    base = load_config(str((Path(path).parent / plan['config']).resolve()))
    base.merge_from_dict(dict(plan.get('cfg_options') or {}))
    if plan.get('fold') is not None:
        use_fold(base, plan['fold'], work_dir / 'splits')
    return plan, base


def main(argv: Sequence[str] | None = None) -> None:
    """Run a plan.

    Raises:
        UserError: A mistake of the user's, or a job that failed.
    """
    args = build_parser().parse_args(argv)
    require_stack()
    from mm_tuning_plugin.benchmark.arms import make_jobs
    from mm_tuning_plugin.benchmark.tables import summary

    work_dir = make_folder(args.work_dir)
    plan, base = load_plan(args.plan, work_dir)
    jobs = make_jobs(base, args.arms or plan.get('arms', []), args.seeds or plan.get('seeds', []))
    table = summary(run_jobs(jobs, work_dir))
    (work_dir / 'results.md').write_text(table + '\n', encoding='utf-8')
    print(table)


def entry(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run(main, argv)


if __name__ == '__main__':
    sys.exit(entry())
