"""``tools/benchmark.py PLAN``: does tuning pay? Every arm of a plan, and a report."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm_tuning_plugin.cli.common.environment import require_stack
from mm_tuning_plugin.cli.common.run import make_folder, run
from mm_tuning_plugin.cli.common.usage import STEP_FAILED, called_as, make_parser
from mm_tuning_plugin.extras import need_extra

if TYPE_CHECKING:
    from mm_tuning_plugin.benchmark.analysis.collect import Collector
    from mm_tuning_plugin.benchmark.design.plan import Plan
    from mm_tuning_plugin.benchmark.steps import Job, Outcome, Step

SCRIPT = 'benchmark.py'


def build_parser(prog: str = SCRIPT) -> argparse.ArgumentParser:
    """The options of the command."""
    parser = make_parser(
        prog,
        'Run every arm of a plan from every start, on every share of the labels, with '
        'every seed; write results.csv and a report. Stopped and started again, it goes on with '
        'what is not finished.',
        [
            'configs/benchmarks/camvid_cpu.py --work-dir work_dirs/camvid_cpu',
            'configs/benchmarks/camvid_cpu.py --work-dir work_dirs/camvid_cpu --dry-run',
        ],
        STEP_FAILED,
    )
    parser.add_argument('plan', help='a plan: see configs/benchmarks/')
    parser.add_argument('--work-dir', metavar='DIR', required=True, help='where everything goes')
    parser.add_argument(
        '--cache',
        metavar='DIR',
        help='where weights that jobs and plans share are kept; default: DIR/cache of --work-dir',
    )
    parser.add_argument('--arms', nargs='+', help="instead of the plan's")
    parser.add_argument('--seeds', type=int, nargs='+', help="instead of the plan's")
    parser.add_argument('--fractions', type=float, nargs='+', help="instead of the plan's")
    parser.add_argument('--starts', nargs='+', help="some of the plan's")
    parser.add_argument('--workers', type=int, metavar='N', help='steps at a time without a GPU')
    parser.add_argument(
        '--jobs-per-gpu', type=int, metavar='N', default=1, help='steps at a time on each GPU'
    )
    parser.add_argument(
        '--slurm',
        metavar='NAME=VALUE',
        nargs='+',
        help='run each step as a job of a Slurm cluster, with these of submitit or of sbatch: '
        'timeout_min=240 partition=gpu gres=gpu:1',
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        '--dry-run', action='store_true', help='show jobs, steps and what they cost; run nothing'
    )
    shown.add_argument(
        '--report-only', action='store_true', help='write the report of what is finished'
    )
    return parser


def make_executor(args: argparse.Namespace) -> tuple[Any, int]:
    """Where steps run, and how many at a time.

    Raises:
        UserError: A number below 1; options of a cluster that are wrong.
    """
    from mm_tuning_plugin.benchmark.run.executors import LocalExecutor, local_slots
    from mm_tuning_plugin.benchmark.run.slurm import SlurmExecutor, parse_options

    if args.slurm is not None:
        cluster = SlurmExecutor(parse_options(args.slurm))
        return cluster, cluster.max_jobs
    slots = local_slots(args.workers, args.jobs_per_gpu)
    return LocalExecutor(slots), len(slots)


def run_plan(
    plan: Plan, jobs: Sequence[Job], work_dir: Path, command: Sequence[str], executor: Any
) -> list[dict[str, Any]]:
    """Run unfinished steps; write results after each step that ends a job or fails.

    Returns:
        The rows of results.csv.
    """
    from mm_tuning_plugin.benchmark.analysis.collect import Collector
    from mm_tuning_plugin.benchmark.run.pool import run_steps
    from mm_tuning_plugin.benchmark.steps import missing_steps

    collector = Collector(jobs, work_dir)
    collector.write_plan(plan, command)
    collector.write()
    run_steps(missing_steps(jobs), executor, _noting(collector))
    return collector.write()


def _noting(collector: Collector) -> Any:
    def on_done(step: Step, outcome: Outcome) -> None:
        if outcome.status == 'done':
            collector.is_done(step.product)
        else:
            collector.fail(step.product, outcome.error)
        # steps that were finished before are settled one by one; write once at the end
        if outcome.seconds or outcome.status != 'done':
            collector.write()

    return on_done


def main(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> None:
    """Run a plan.

    Raises:
        UserError: A mistake of the user's.
        SystemExit: A step failed (status 1); all other steps are finished.
    """
    args = build_parser(prog).parse_args(argv)
    require_stack()
    need_extra('benchmark')
    from mm_tuning_plugin.benchmark.design.grid import build_jobs
    from mm_tuning_plugin.benchmark.design.plan import read_plan
    from mm_tuning_plugin.benchmark.fingerprints import made_by_other_code
    from mm_tuning_plugin.benchmark.report.outlook import outlook
    from mm_tuning_plugin.benchmark.report.report import write_report
    from mm_tuning_plugin.benchmark.run.pool import FAILED
    from mm_tuning_plugin.cli.train import load_config

    work_dir = make_folder(args.work_dir)
    if args.report_only:
        write_report(work_dir)
        print(f'report: {work_dir / "report.html"}')
        return
    plan = read_plan(args.plan, args.starts).restricted(
        arms=args.arms, seeds=args.seeds, fractions=args.fractions
    )
    cache = make_folder(args.cache) if args.cache else work_dir / 'cache'
    executor, at_once = make_executor(args)
    jobs = build_jobs(plan, work_dir, cache, load_config)
    if line := made_by_other_code(cache):
        print(line)
    if args.dry_run:
        print(outlook(jobs, at_once))
        return
    words = sys.argv[1:] if argv is None else argv
    command = [*called_as(prog), *map(shlex.quote, words)]
    rows = run_plan(plan, jobs, work_dir, command, executor)
    if any(row['status'] == 'done' for row in rows):
        write_report(work_dir)
        print(f'results: {work_dir / "results.csv"}, report: {work_dir / "report.html"}')
    if any(row['status'] == 'failed' for row in rows):
        raise SystemExit(FAILED)


def entry(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> int:
    """Run the command; return its exit status."""
    return run(partial(main, prog=prog), argv)


if __name__ == '__main__':
    sys.exit(entry())
