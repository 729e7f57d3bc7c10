"""Steps of a benchmark: each runs in its own process, and several jobs may share one.

A step is data: the config that it runs, its folder, the files that it needs, and its product.
`prepare` writes a step to its folder; ``python -m mm_tuning_plugin.cli.step FOLDER`` runs it. It
may start when every path in `Step.needs` exists. It is finished when `Step.product` exists.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from mm_tuning_plugin.atomic_write import write_json, write_text
from mm_tuning_plugin.errors import UserError

STEP_FILE = 'step.json'
CONFIG_FILE = 'config.py'
RECORD_FILE = 'record.json'


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        kind: 'proxy', 'tuning', 'first_pass' or 'fine_tuning'.
        name: For messages.
        folder: Where it runs. Its name contains a digest of all that determines the product, so a
            step with another config has another folder.
        product: The file that exists if and only if the step is finished.
        cfg: The config that it runs, with the paths of the products that it needs.
        needs: Products of other steps, which must exist before it starts.
        iterations: Training iterations.
        flops: FLOPs of the whole step, from one measured batch; 0: unknown.
        seconds: Estimated time of its forward and backward passes on this machine; 0: unknown.
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
        steps: All its steps, in order. Other jobs may share them, except the last.
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
    """The steps of all jobs without repeats, in dependency order."""
    return list({step.product: step for job in jobs for step in job.steps}.values())


def missing_steps(jobs: Sequence[Job]) -> list[Step]:
    """The distinct steps of unfinished jobs.

    Steps that only finished jobs need are left out: their products may have been deleted to save
    space, or be on another machine.
    """
    return distinct_steps([job for job in jobs if not job.steps[-1].finished])


def prepare(step: Step) -> None:
    """Write ``step.json`` and ``config.py``, which the process of a step reads, to its folder.

    Other files in the folder, such as those of an unfinished run, are kept.

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
    write_text(step.folder / CONFIG_FILE, step.cfg.pretty_text)
    write_json(step.folder / STEP_FILE, content)


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
    """The outcome of a step.

    Attributes:
        status: 'done' or 'failed'.
        seconds: How long its process ran; 0 if this pool did not run it.
        error: One line; empty if done.
        tail: The last lines of its output, if its own process failed.
        log: The file of its whole output, if its own process failed.
    """

    status: str
    seconds: float = 0.0
    error: str = ''
    tail: tuple[str, ...] = ()
    log: Path | None = None
