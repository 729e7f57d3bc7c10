"""``tools/demo.py``: the whole story on a data set that the package draws itself."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm_tuning_plugin.cli.environment import require_stack
from mm_tuning_plugin.cli.run import make_folder, run
from mm_tuning_plugin.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
PROXY = CONFIGS / 'proxy' / 'colorization_resnet18_demo.py'
FINE_TUNING = CONFIGS / 'demo' / 'fcn_r18_demo.py'
ARMS = ('direct', 'direct-matched', 'tuned')


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog='demo.py',
        description='Draw a data set; train a backbone on its unlabelled images by colorization; '
        'fine-tune it directly, directly for as much compute as tuning takes, and after '
        'mix-and-match tuning; compare. About 8 minutes on two CPU cores.',
    )
    parser.add_argument('--work-dir', metavar='DIR', default='demo_output')
    parser.add_argument(
        '--seeds', type=int, nargs='+', default=[0], help='each takes all arms once more'
    )
    return parser


def train_start(data_root: Path, folder: Path) -> tuple[Path, float]:
    """Train the proxy task on the unlabelled images, unless it is finished.

    Returns:
        Its checkpoint, and the seconds it took.
    """
    from rich.progress import Progress

    from mm_tuning_plugin.benchmark.jobs import run_command

    last, seconds = folder / 'run' / 'last_checkpoint', folder / 'seconds.txt'
    if not seconds.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, '-m', 'mm_tuning_plugin.cli.train', str(PROXY),
            '--work-dir', str(folder / 'run'), '--cfg-options',
            f'train_dataloader.dataset.data_root={data_root}', 'randomness.seed=0',
        ]  # fmt: skip
        begun = time.time()
        with Progress() as display:
            task = display.add_task('proxy task: colorization', total=None)
            run_command(
                command,
                folder / 'log.txt',
                lambda _, done, total: display.update(task, completed=done, total=total),
            )
        seconds.write_text(f'{time.time() - begun:.1f}', encoding='utf-8')
    checkpoint = Path(last.read_text(encoding='utf-8').strip())
    return checkpoint, float(seconds.read_text(encoding='utf-8'))


def fine_tuning_config(data_root: Path, start: Path) -> Config:
    """The config of the arms: the demo's, on this data, from this start."""
    from mm_tuning_plugin.cli.train import load_config

    cfg = load_config(str(FINE_TUNING))
    for loader in ('train', 'val', 'test'):
        cfg[f'{loader}_dataloader']['dataset']['data_root'] = str(data_root)
    cfg['mix_and_match']['checkpoint'] = str(start)
    return cfg


def draw_pictures(jobs: Sequence[Any], rows: Sequence[dict], work_dir: Path, folder: Path) -> None:
    """Save the mosaic, the embedding map and the predictions of the first seed."""
    from mm_tuning_plugin.benchmark import pictures

    folder.mkdir(parents=True, exist_ok=True)
    first = [(job, row) for job, row in zip(jobs, rows) if job.seed == jobs[0].seed]
    tuned, row = next((job, row) for job, row in first if job.arm == 'tuned')
    pictures.draw_mosaic(tuned.cfg, folder / 'mixed_patches.png')
    pictures.draw_embeddings(
        tuned.cfg,
        work_dir / tuned.name / 'run' / 'tuning' / 'tuned_backbone.pth',
        (row['recall_before'], row['recall_after']),
        folder / 'embedding_before_after.png',
    )
    checkpoints = {
        job.arm: work_dir / job.name / 'run' / f'iter_{row["fine_tuning_iters"]}.pth'
        for job, row in first
    }
    scores = {job.arm: row['mIoU'] for job, row in first}
    pictures.draw_predictions(tuned.cfg, checkpoints, scores, folder / 'predictions.png')


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo.

    Raises:
        UserError: A mistake of the user's, or a stage that failed.
    """
    args = build_parser().parse_args(argv)
    require_stack()
    from mm_tuning_plugin.benchmark.arms import make_jobs
    from mm_tuning_plugin.benchmark.tables import summary
    from mm_tuning_plugin.cli.benchmark import run_jobs
    from mm_tuning_plugin.datasets.demo import write_demo_dataset

    if not FINE_TUNING.is_file():
        raise UserError(f'{FINE_TUNING}: no such file; the demo runs from a clone of the project')
    begun = time.time()
    work_dir = make_folder(args.work_dir)
    data_root = write_demo_dataset(work_dir / 'data')
    print(f'1/4 data set drawn: {data_root}', flush=True)
    start, proxy_seconds = train_start(data_root, work_dir / 'proxy')
    print(f'2/4 start trained without labels in {proxy_seconds:.0f} s: {start}', flush=True)
    jobs = make_jobs(fine_tuning_config(data_root, start), ARMS, args.seeds)
    rows = run_jobs(jobs, work_dir)
    print('3/4 arms fine-tuned', flush=True)
    folder = work_dir / 'pictures'
    draw_pictures(jobs, rows, work_dir, folder)
    print(f'4/4 pictures drawn: {folder}', flush=True)
    table = summary(rows)
    (work_dir / 'results.md').write_text(table + '\n', encoding='utf-8')
    print(f'\nProxy task: {proxy_seconds:.0f} s; everything: {time.time() - begun:.0f} s\n')
    print(table)


def entry(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run(main, argv)


if __name__ == '__main__':
    sys.exit(entry())
