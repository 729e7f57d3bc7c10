"""``tools/demo.py``: the whole story on a data set that the package draws itself."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm_tuning_plugin.cli.common.environment import require_stack
from mm_tuning_plugin.cli.common.run import make_folder, run
from mm_tuning_plugin.cli.common.usage import STEP_FAILED, called_as, make_parser
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.extras import need_extra

if TYPE_CHECKING:
    from mm_tuning_plugin.benchmark.design.plan import Plan
    from mm_tuning_plugin.benchmark.steps import Job

SCRIPT = 'demo.py'
PACKAGE = Path(__file__).resolve().parents[1]
# Of a clone; an installed wheel carries them where openmim looks for them.
CONFIGS = next(
    (path for path in (PACKAGE.parent / 'configs', PACKAGE / '.mim' / 'configs') if path.is_dir()),
    PACKAGE.parent / 'configs',
)
PROXY = CONFIGS / 'proxy' / 'colorization_resnet18_demo.py'
FINE_TUNING = CONFIGS / 'demo' / 'fcn_r18_demo.py'
ARMS = ('direct', 'direct-matched', 'tuned')


def build_parser(prog: str = SCRIPT) -> argparse.ArgumentParser:
    """The options of the command."""
    parser = make_parser(
        prog,
        'Draw a data set; train a backbone on its unlabelled images by colorization; '
        'fine-tune it directly, directly for as much compute as tuning takes, and after '
        'mix-and-match tuning; compare. About 8 minutes on two CPU cores.',
        ['', '--work-dir demo_output --seeds 0 1 2'],
        STEP_FAILED,
    )
    parser.add_argument('--work-dir', metavar='DIR', default='demo_output')
    parser.add_argument(
        '--seeds', type=int, nargs='+', default=[0], help='each takes all arms once more'
    )
    return parser


def demo_plan(data_root: Path, seeds: Sequence[int], folder: Path) -> Plan:
    """The plan of the demo: one backbone, from a proxy task on the unlabelled images.

    Args:
        data_root: The drawn data set.
        seeds: Seeds.
        folder: Of the written configs, which use the data set.
    """
    from mm_tuning_plugin.benchmark.design.plan import check_plan
    from mm_tuning_plugin.cli.train import load_config

    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for source in (PROXY, FINE_TUNING):
        cfg = load_config(str(source))
        for loader in ('train', 'val', 'test'):
            if cfg.get(f'{loader}_dataloader') is not None:
                cfg[f'{loader}_dataloader']['dataset']['data_root'] = str(data_root)
        paths[source] = str(folder / source.name)
        cfg.dump(paths[source])
    return check_plan(
        dict(
            configs={'resnet18': paths[FINE_TUNING]},
            starts={'colorization': dict(proxy=paths[PROXY])},
            arms=list(ARMS),
            # measured on the very nodes that the picture shows
            recipes={'tuned': dict(retrieval_images=32)},
            recall=dict(images=32, patches=8, size_range=(24, 64), patch_size=64),
            seeds=list(seeds),
            keep_checkpoints=True,
        )
    )


def draw_pictures(jobs: Sequence[Job], rows: Sequence[dict], folder: Path) -> None:
    """Save the mosaic, the embedding map and the predictions of the first seed."""
    from mm_tuning_plugin.benchmark.report import pictures
    from mm_tuning_plugin.checkpoint.io.read import read_content

    folder.mkdir(parents=True, exist_ok=True)
    first = [(job, row) for job, row in zip(jobs, rows) if job.seed == jobs[0].seed]
    tuning, fine_tuning = next(job for job, _ in first if job.arm == 'tuned').steps[-2:]
    pictures.draw_mosaic(tuning.cfg, folder / 'mixed_patches.png')
    retrieval = list(read_content(tuning.product)['meta']['retrieval'].values())
    pictures.draw_embeddings(
        tuning.cfg,
        tuning.product,
        (retrieval[0]['retrieval/recall@1'], retrieval[-1]['retrieval/recall@1']),
        folder / 'embedding_before_after.png',
    )
    checkpoints = {
        job.arm: job.steps[-1].folder / 'run' / f'iter_{job.steps[-1].iterations}.pth'
        for job, _ in first
    }
    scores = {job.arm: row['mIoU'] for job, row in first}
    pictures.draw_predictions(fine_tuning.cfg, checkpoints, scores, folder / 'predictions.png')


def main(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> None:
    """Run the demo.

    Raises:
        UserError: A mistake of the user's.
        SystemExit: A step failed.
    """
    args = build_parser(prog).parse_args(argv)
    require_stack()
    need_extra('benchmark')
    from mm_tuning_plugin.benchmark.design.grid import build_jobs
    from mm_tuning_plugin.benchmark.report.tables import summary
    from mm_tuning_plugin.benchmark.run.executors import LocalExecutor, local_slots
    from mm_tuning_plugin.benchmark.run.pool import FAILED
    from mm_tuning_plugin.cli.benchmark import run_plan
    from mm_tuning_plugin.demo.dataset import write_demo_dataset

    if not FINE_TUNING.is_file():
        raise UserError(
            f'{FINE_TUNING}',
            'no such file',
            'expected the configs of a clone or of an installed wheel',
        )
    begun = time.time()
    work_dir = make_folder(args.work_dir)
    data_root = write_demo_dataset(work_dir / 'data')
    print(f'1/3 data set drawn: {data_root}', flush=True)
    plan = demo_plan(data_root, args.seeds, work_dir / 'configs')
    jobs = build_jobs(plan, work_dir, work_dir / 'cache')
    print('2/3 a start trained without labels, then every arm from it', flush=True)
    command = [*called_as(prog), *(sys.argv[1:] if argv is None else argv)]
    rows = run_plan(plan, jobs, work_dir, command, LocalExecutor(local_slots()))
    if any(row['status'] != 'done' for row in rows):
        raise SystemExit(FAILED)
    folder = work_dir / 'pictures'
    draw_pictures(jobs, rows, folder)
    print(f'3/3 pictures drawn: {folder}', flush=True)
    table = summary([as_summarised(row) for row in rows])
    (work_dir / 'results.md').write_text(table + '\n', encoding='utf-8')
    print(f'\nProxy task: {rows[0]["proxy_seconds"]:.0f} s; all: {time.time() - begun:.0f} s\n')
    print(table)


def as_summarised(row: dict[str, Any]) -> dict[str, Any]:
    """A row with recall under the names of the summary."""
    return dict(row, recall_before=row['recall_start'], recall_after=row['recall'])


def entry(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> int:
    """Run the command; return its exit status."""
    return run(partial(main, prog=prog), argv)


if __name__ == '__main__':
    sys.exit(entry())
