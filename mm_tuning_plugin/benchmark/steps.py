"""Steps: the pieces of work that jobs share, each run by a process of its own.

A step is data: what it runs (a config), where, what it needs, and the one file that tells that it is
finished. `prepare` writes it down; ``python -m mm_tuning_plugin.cli.step FOLDER`` runs it. Who runs
steps needs to know no more: a step may start once every path in `Step.needs` exists, and it is
finished exactly when `Step.product` exists.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from mm_tuning_plugin.checkpoint import write_aside
from mm_tuning_plugin.errors import UserError

KINDS = ('proxy', 'tuning', 'first_pass', 'fine_tuning')
STEP_FILE = 'step.json'
CONFIG_FILE = 'config.py'
RECORD_FILE = 'record.json'


@dataclass(frozen=True)
class Step:
    """One piece of work.

    Attributes:
        kind: One of `KINDS`.
        name: Shown to people.
        folder: Where it runs; its own.
        product: The file that exists exactly when it is finished; its name or its folder's has a
            fingerprint of all that determines it.
        cfg: What it runs; the paths of the products it needs are in it.
        needs: Products of other steps, which must exist before it starts.
        iterations: Training iterations.
        flops: Of the whole step, from one measured batch; 0: unknown.
        facts: Further plain values that the step reads, by name (see `mm_tuning_plugin.cli.step`).
    """

    kind: str
    name: str
    folder: Path
    product: Path
    cfg: Config
    needs: tuple[Path, ...] = ()
    iterations: int = 0
    flops: float = 0.0
    facts: tuple[tuple[str, Any], ...] = ()

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
    """The steps of all jobs, each once (by product), in an order in which they can be run."""
    return list({step.product: step for job in jobs for step in job.steps}.values())


def prepare(step: Step) -> None:
    """Write what a step's process reads: ``step.json`` and ``config.py`` in the step's folder.

    A folder that holds the run of another step (of a plan that was changed since) is first renamed
    to ``NAME.before-HASH``: nothing of it is taken for this step's, and nothing is lost. The same
    step prepared again keeps its folder: its process goes on with the run in it.

    Raises:
        UserError: The folder cannot be written.
    """
    written = step.folder / STEP_FILE
    try:
        before = _product_of(written)
        if before is not None and before != step.product.name:
            aside = step.folder.with_name(f'{step.folder.name}.before-{_stem(before)}')
            os.replace(step.folder, _free(aside))
        step.folder.mkdir(parents=True, exist_ok=True)
        with write_aside(step.folder / CONFIG_FILE) as path:
            path.write_text(step.cfg.pretty_text, encoding='utf-8')
        with write_aside(written) as path:
            path.write_text(json.dumps(_as_json(step), indent=1) + '\n', encoding='utf-8')
    except OSError as error:
        raise UserError(
            f'{step.folder}: {error} found, expected a folder that can be written'
        ) from error


def read_step(folder: Path) -> Step:
    """Read what `prepare` wrote.

    Raises:
        UserError: There is no prepared step, or it is damaged.
    """
    path = folder / STEP_FILE
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        return Step(
            **{
                **content,
                'folder': folder,
                'product': Path(content['product']),
                'needs': tuple(map(Path, content['needs'])),
                'facts': tuple(content['facts'].items()),
                'cfg': Config.fromfile(str(folder / CONFIG_FILE)),
            }
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path}: {type(error).__name__}: {error} found, expected a step that '
            'tools/benchmark.py prepared'
        ) from error


def _as_json(step: Step) -> dict[str, Any]:
    return dict(
        kind=step.kind,
        name=step.name,
        product=str(step.product),
        needs=[str(path) for path in step.needs],
        iterations=step.iterations,
        flops=step.flops,
        facts=dict(step.facts),
    )


def _product_of(written: Path) -> str | None:
    """Name of the product of the step that a folder was prepared for; None: of none."""
    try:
        return Path(json.loads(written.read_text(encoding='utf-8'))['product']).name
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return 'damaged'


def _stem(product: str) -> str:
    return Path(product).stem.rsplit('-', 1)[-1]


def _free(path: Path) -> Path:
    """The path itself, or the first of ``path.1``, ``path.2`` ... that does not exist."""
    number, free = 0, path
    while free.exists():
        number += 1
        free = path.with_name(f'{path.name}.{number}')
    return free
