"""Steps: the pieces of work that jobs share, each run by a process of its own.

A step is data: what it runs (a config), where, what it needs, and the one file that tells that it
is finished. `prepare` writes it down; ``python -m mm_tuning_plugin.cli.step FOLDER`` runs it. Who
runs steps needs to know no more: a step may start once every path in `Step.needs` exists, and it is
finished exactly when `Step.product` exists.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from mm_tuning_plugin.checkpoint import write_aside
from mm_tuning_plugin.errors import UserError

STEP_FILE = 'step.json'
CONFIG_FILE = 'config.py'
RECORD_FILE = 'record.json'


@dataclass(frozen=True)
class Step:
    """One piece of work.

    Attributes:
        kind: 'proxy', 'tuning', 'first_pass' or 'fine_tuning'.
        name: Shown to people.
        folder: Where it runs. Its name has a fingerprint of all that determines the product: a step
            with another config has another folder.
        product: The file that exists exactly when it is finished.
        cfg: What it runs; the paths of the products it needs are in it.
        needs: Products of other steps, which must exist before it starts.
        iterations: Training iterations.
        flops: Of the whole step, from one measured batch; 0: unknown.
        seconds: Likewise, an estimate for this machine: forward and backward passes alone.
    """

    kind: str
    name: str
    folder: Path
    product: Path
    cfg: Config
    needs: tuple[Path, ...] = ()
    iterations: int = 0
    flops: float = 0.0
    seconds: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether the product exists."""
        return self.product.is_file()


class Job(NamedTuple):
    """One row of the results: a point of the grid.

    Attributes:
        name: Unique in a benchmark.
        backbone: Name of the config.
        start: Name of the start.
        arm: Name of the arm.
        fraction: Share of the training labels.
        fold: Index of the fold.
        seed: Seed of subset, data order, augmentation, head and sampling.
        steps: All it takes, in order; those of other jobs may be among them. The last is its own.
    """

    name: str
    backbone: str
    start: str
    arm: str
    fraction: float
    fold: int
    seed: int
    steps: tuple[Step, ...]


def distinct_steps(jobs: Sequence[Job]) -> list[Step]:
    """The steps of all jobs, each once, in an order in which they can be run."""
    return list({step.product: step for job in jobs for step in job.steps}.values())


def missing_steps(jobs: Sequence[Job]) -> list[Step]:
    """The distinct steps of the jobs that are not finished.

    What only finished jobs needed is not made again: their large weights may have been deleted, or
    left on another machine.
    """
    return distinct_steps([job for job in jobs if not job.steps[-1].finished])


def prepare(step: Step) -> None:
    """Write what a step's process reads: ``step.json`` and ``config.py`` in the step's folder.

    A step prepared again keeps what its folder holds of an unfinished run.

    Raises:
        UserError: The folder cannot be written.
    """
    content = dict(
        kind=step.kind,
        name=step.name,
        product=str(step.product),
        needs=[str(path) for path in step.needs],
        iterations=step.iterations,
        flops=step.flops,
    )
    try:
        step.folder.mkdir(parents=True, exist_ok=True)
        with write_aside(step.folder / CONFIG_FILE) as path:
            path.write_text(step.cfg.pretty_text, encoding='utf-8')
        with write_aside(step.folder / STEP_FILE) as path:
            path.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    except OSError as error:
        raise UserError(
            f'{step.folder}', f'cannot be written ({error})', 'expected a folder that can be'
        ) from error


def read_step(folder: Path) -> Step:
    """Read what `prepare` wrote.

    Raises:
        UserError: There is no prepared step, or it is damaged.
    """
    try:
        content = json.loads((folder / STEP_FILE).read_text(encoding='utf-8'))
        content['product'] = Path(content['product'])
        content['needs'] = tuple(Path(path) for path in content['needs'])
        cfg = Config.fromfile(str(folder / CONFIG_FILE))
        return Step(folder=folder, cfg=cfg, **content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{folder}',
            ' '.join(f'cannot be read ({type(error).__name__}: {error})'.split()),
            'expected a step that tools/benchmark.py prepared',
        ) from error


class Outcome(NamedTuple):
    """What became of a step.

    Attributes:
        status: 'done' or 'failed'.
        seconds: Its process ran, in this pool; 0 where it was not run here.
        error: One line; empty if done.
        tail: The last lines that it printed, if it failed itself.
        log: All that it printed, if it failed itself.
    """

    status: str
    seconds: float = 0.0
    error: str = ''
    tail: tuple[str, ...] = ()
    log: Path | None = None
