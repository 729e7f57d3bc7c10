"""From a plan to its jobs: every point of the grid, and the steps that several points share."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from mm_tuning_plugin.benchmark.design import arms
from mm_tuning_plugin.benchmark.design.arms import Arm, parse_arm
from mm_tuning_plugin.benchmark.design.plan import Plan
from mm_tuning_plugin.benchmark.design.splits import Library, Part, read_folds
from mm_tuning_plugin.benchmark.design.step_builder import PRODUCTS, StepBuilder
from mm_tuning_plugin.benchmark.settings import (
    STEP_OPTIONS,
    comparable,
    placed,
    with_options,
)
from mm_tuning_plugin.benchmark.steps import Job, Step
from mm_tuning_plugin.config_types import with_named_types
from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.engine.config.dataset_tree import leaf_datasets
from mm_tuning_plugin.engine.preflight.fine_tuning import look_at_fine_tuning, look_at_first_batch
from mm_tuning_plugin.errors import UserError


class Start(NamedTuple):
    """The weights that a backbone starts from.

    Attributes:
        name: In the plan.
        options: Of ``mix_and_match``: ``checkpoint`` and how it is read.
        step: The step that trains the checkpoint; None if it is there already or random.
    """

    name: str
    options: dict[str, Any]
    step: Step | None = None


class Cell(NamedTuple):
    """A point of the grid without its arm: what the arms that are compared share.

    Attributes:
        backbone: Name.
        start: The start.
        fraction: Share of the labels.
        fold: Index.
        seed: Seed.
        cfg: Config of fine-tuning with its data and seed; no start is set.
        data: Digests of training images, gallery and validation images.
    """

    backbone: str
    start: Start
    fraction: float
    fold: int
    seed: int
    cfg: Config
    data: tuple[str, str, str]


Read = Callable[[str], Config]


def build_jobs(plan: Plan, work_dir: Path, cache: Path, read: Read = Config.fromfile) -> list[Job]:
    """All jobs of a plan, seed by seed, so that an interrupted benchmark has complete pairs.

    Measures costs that are not known yet, and writes manifests of the images used.

    Args:
        plan: The plan.
        work_dir: Holds the last step of each job, which no other job shares.
        cache: Holds what jobs, arms and plans share.
        read: Reads a config.

    Raises:
        UserError: A config is wrong, or an arm does not fit it.
    """
    grid = Grid(plan, work_dir, cache, read)
    for name in grid.bases:
        grid.check_fine_tuning(name)
    return list(grid.jobs())


class Grid:
    """Builds jobs; see `build_jobs`."""

    def __init__(
        self, plan: Plan, work_dir: Path, cache: Path, read: Read = Config.fromfile
    ) -> None:
        self.plan, self.work_dir, self.cache = plan, work_dir, cache
        self.read = lambda path: with_named_types(read(path))
        self.arms = [parse_arm(name, plan.recipes) for name in plan.arms]
        self.bases = {
            name: comparable(with_options(self.read(path), plan.cfg_options))
            for name, path in plan.configs.items()
        }
        self.steps = StepBuilder(plan, cache, self.bases)
        self.folds = None if plan.folds is None else read_folds(Path(plan.folds['file']))
        self.libraries: dict[str, Library] = {}
        self.proxies: dict[Any, Step] = {}

    def check_fine_tuning(self, backbone: str) -> None:
        """Check that the fine-tuning of a backbone can begin, before anything is measured or run.

        Raises:
            UserError: It cannot.
        """
        cfg = copy.deepcopy(self.bases[backbone])
        fold = None if self.plan.folds is None else self.plan.folds['indices'][0]
        _, train, val = self.parts(cfg, 1.0, fold, self.plan.seeds[0])
        cfg['train_dataloader']['dataset'] = train.dataset
        cfg['val_dataloader']['dataset'] = val.dataset
        try:
            look = look_at_fine_tuning(placed(cfg, 'fine_tuning', self.work_dir, False))
            look_at_first_batch(look)
        except UserError as error:
            raise UserError(
                f'configs.{backbone}', f'{error.where}: {error.problem}', error.remedy
            ) from error

    def jobs(self) -> Iterator[Job]:
        """All jobs."""
        for cell in self.cells():
            for arm in self.arms:
                yield self.job(cell, arm)

    def cells(self) -> Iterator[Cell]:
        """All points of the grid, seed by seed."""
        folds = [None] if self.plan.folds is None else self.plan.folds['indices']
        for seed in self.plan.seeds:
            for backbone in self.bases:
                for fold in folds:
                    for start in self.starts(backbone, fold, seed):
                        for fraction in self.plan.fractions:
                            yield self.cell(backbone, start, fraction, fold, seed)

    def starts(self, backbone: str, fold: int | None, seed: int) -> Iterator[Start]:
        """The starts of a backbone. A random one is a file too, so that all arms share it."""
        for name, start in self.plan.starts.items():
            if start is None:
                network = self.bases[backbone]['model']['backbone']
                folder = self.cache / f'start-{self.steps.fingerprints.of("start", network, seed)}'
                yield Start(name, {'checkpoint': str(folder / PRODUCTS['start'])})
                continue
            kind = 'proxy' if 'proxy' in start else 'checkpoint'
            path = start[kind].get(backbone)
            if path is None:
                continue
            if kind == 'checkpoint':
                yield Start(name, {**start, 'checkpoint': path})
                continue
            step = self.proxy(name, backbone, path, start, fold)
            kept = {key: start[key] for key in ('min_matched',) if key in start}
            yield Start(name, {**kept, 'checkpoint': str(step.product)}, step)

    def proxy(
        self, name: str, backbone: str, path: str, start: Mapping[str, Any], fold: int | None
    ) -> Step:
        """The step that trains a proxy task on the training images of a fold, without labels."""
        key = name, backbone, fold
        if key not in self.proxies:
            cfg = with_options(self.read(path), start.get('cfg_options', {}))
            cfg['randomness'] = {**(cfg.get('randomness') or {}), 'seed': start.get('seed', 0)}
            dataset = cfg['train_dataloader']['dataset']
            library = self.library(cfg)
            if fold is None:
                part = library.whole(dataset)
            else:
                part = library.named(dataset, self.folds[fold]['train'])
            cfg['train_dataloader']['dataset'] = part.dataset
            cfg[STEP_OPTIONS] = dict(images=part.images)
            where = '' if fold is None else f', fold {fold}'
            self.proxies[key] = self.steps.shared_step(
                'proxy',
                f'proxy {name}, {backbone}{where}',
                cfg,
                [cfg.to_dict(), part.digest],
                self.steps.costs.of(cfg),
            )
        return self.proxies[key]

    def cell(
        self, backbone: str, start: Start, fraction: float, fold: int | None, seed: int
    ) -> Cell:
        """Build a point of the grid."""
        cfg = copy.deepcopy(self.bases[backbone])
        gallery, train, val = self.parts(cfg, fraction, fold, seed)
        cfg['train_dataloader']['dataset'] = train.dataset
        cfg['val_dataloader']['dataset'] = val.dataset
        cfg['randomness'] = {**(cfg.get('randomness') or {}), 'seed': seed}
        cfg[STEP_OPTIONS] = dict(
            images=train.images,
            gallery=gallery.dataset,
            queries=val.dataset,
            random_start=self.plan.starts[start.name] is None,
            recall=dict(self.plan.recall),
        )
        data = train.digest, gallery.digest, val.digest
        return Cell(backbone, start, fraction, fold or 0, seed, cfg, data)

    def parts(
        self, cfg: Config, fraction: float, fold: int | None, seed: int
    ) -> tuple[Part, Part, Part]:
        """All training images of the fold, those with labels, and the validation images."""
        train, val = (cfg[f'{stage}_dataloader']['dataset'] for stage in ('train', 'val'))
        library = self.library(cfg)
        if fold is None or self.folds is None:
            gallery, judged = library.whole(train), library.whole(val)
        else:
            names = self.folds[fold]
            gallery = library.named(train, names['train'])
            # both parts of a fold are among the training images
            moved = copy.deepcopy(dict(val))
            inner, source = next(leaf_datasets(moved)), next(leaf_datasets(train))
            for key in ('data_root', 'data_prefix'):
                if key in source:
                    inner[key] = copy.deepcopy(source[key])
            judged = library.named(moved, names['val'])
        return gallery, library.subset(gallery.dataset, fraction, seed), judged

    def library(self, cfg: Config) -> Library:
        """The library of data sets of a config's default scope."""
        scope = cfg.get('default_scope') or 'mmseg'
        if scope not in self.libraries:
            self.libraries[scope] = Library(self.cache / 'splits', scope)
        return self.libraries[scope]

    def job(self, cell: Cell, arm: Arm) -> Job:
        """One arm at one point of the grid, with its steps in order."""
        parts = [
            cell.backbone, cell.start.name, arm.name, f'{cell.fraction:g}', f'fold{cell.fold}',
            f'seed{cell.seed}',
        ]  # fmt: skip
        name = re.sub(r'[^\w.+-]', '_', '-'.join(parts))
        steps = [] if cell.start.step is None else [cell.start.step]
        if arm.before is not None:
            steps.append(self.before(cell, arm, name))
        steps.append(self.fine_tuning(cell, arm, name, steps))
        return Job(
            name, cell.backbone, cell.start.name, arm.name, cell.fraction, cell.fold, cell.seed,
            tuple(steps),
        )  # fmt: skip

    def before(self, cell: Cell, arm: Arm, name: str) -> Step:
        """The step before fine-tuning: the tuning of a recipe, or a first pass of fine-tuning."""
        recipe = self.plan.recipes[arm.recipe]
        needs = () if cell.start.step is None else (cell.start.step.product,)
        cfg = copy.deepcopy(cell.cfg)
        if arm.before == 'tuning':
            options = arms.tuning_options(cfg, recipe)
            cfg['mix_and_match'] = options
            stage = derive_tuning_config(cfg)  # without the start: its file may not exist yet
            cfg['mix_and_match'] = {**options, **cell.start.options}
            content = [stage.to_dict(), cell.start.options, cfg[STEP_OPTIONS], cell.data]
            return self.steps.shared_step(
                'tuning',
                f'{name}: tuning',
                cfg,
                content,
                self.steps.tuning_cost(cell.backbone, arm.recipe),
                needs,
                stage['train_cfg']['max_iters'],
            )
        iterations = self.steps.matched_iterations(cell.backbone, arm.recipe)
        cfg = arms.without_validation(arms.stretched(cfg, iterations))
        cfg['mix_and_match'] = {'enabled': False, **cell.start.options}
        content = [cfg.to_dict(), cell.data]
        cost = self.steps.fine_tuning_cost(cell.backbone)
        return self.steps.shared_step(
            'first_pass', f'{name}: first pass', cfg, content, cost, needs
        )

    def fine_tuning(self, cell: Cell, arm: Arm, name: str, before: list[Step]) -> Step:
        """The last step of a job."""
        cfg = copy.deepcopy(cell.cfg)
        iterations = cfg['train_cfg']['max_iters']
        if arm.longer == 'twice':
            iterations *= 2
        elif arm.longer == 'matched':
            if arm.name.startswith('direct-augmented'):
                cfg = arms.augmented(cfg, self.plan.recipes[arm.recipe])
            iterations += self.steps.matched_iterations(cell.backbone, arm.recipe)
        cfg = arms.stretched(cfg, iterations)
        if arm.before is None:
            cfg['mix_and_match'] = {'enabled': False, **cell.start.options}
        else:
            cfg['mix_and_match'] = {'tuned_backbone': str(before[-1].product)}
        cfg[STEP_OPTIONS]['from_start'] = arm.before is None
        folder = f'{name}-{self.steps.fingerprints.of("fine_tuning", cfg.to_dict(), cell.data)}'
        cfg[STEP_OPTIONS]['keep_checkpoints'] = self.plan.keep_checkpoints
        # augmentation does not change the cost: crops have a fixed size
        cost = self.steps.fine_tuning_cost(cell.backbone)
        needs = tuple(step.product for step in before[-1:])
        return self.steps.step(
            'fine_tuning', name, self.work_dir / 'jobs' / folder, cfg, cost, needs, iterations
        )
