"""From a plan to its jobs: every point of the grid, and the steps that points share."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from mm_tuning_plugin.benchmark.code import code_digest
from mm_tuning_plugin.benchmark.design import arms
from mm_tuning_plugin.benchmark.design.arms import Arm, parse_arm
from mm_tuning_plugin.benchmark.design.cost import CostBook, StepCost, equal_iterations
from mm_tuning_plugin.benchmark.design.plan import Plan
from mm_tuning_plugin.benchmark.design.splits import Library, Part, read_folds
from mm_tuning_plugin.benchmark.fingerprints import Fingerprints
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

PRODUCTS = {
    'start': 'backbone.pth',  # of a random start: made by the first step that asks for it
    'proxy': 'backbone.pth',
    'tuning': 'tuned_backbone.pth',
    'first_pass': 'backbone.pth',
    'fine_tuning': 'areas.npz',
}


class Start(NamedTuple):
    """What a backbone begins from.

    Attributes:
        name: In the plan.
        options: Of ``mix_and_match``: ``checkpoint`` and how it is read.
        step: The step that makes the checkpoint, if one does.
    """

    name: str
    options: dict[str, Any]
    step: Step | None = None


class Cell(NamedTuple):
    """A point of the grid, without its arm: what all arms of a pair share.

    Attributes:
        backbone: Name.
        start: The start.
        fraction: Share of the labels.
        fold: Index.
        seed: Seed.
        cfg: Config of fine-tuning: its data, its seed, its start removed.
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
    """All jobs of a plan, seed by seed, so that an interrupted benchmark has whole pairs.

    FLOPs are measured where they are not known yet, and manifests are written.

    Args:
        plan: The plan.
        work_dir: Holds the last steps, which are the jobs' own.
        cache: Holds what jobs, arms and plans share.
        read: Reads a config.

    Raises:
        UserError: A config is wrong, or an arm does not fit it.
    """
    grid = Grid(plan, work_dir, cache, read)
    for name in grid.bases:
        grid.look_at(name)
    return list(grid.jobs())


class Grid:
    """Builds jobs; see `build_jobs`."""

    def __init__(
        self, plan: Plan, work_dir: Path, cache: Path, read: Read = Config.fromfile
    ) -> None:
        self.plan, self.work_dir, self.cache = plan, work_dir, cache
        self.read = lambda path: with_named_types(read(path))
        self.arms = [parse_arm(name, plan.recipes) for name in plan.arms]
        self.fingerprints = Fingerprints(cache)
        self.costs = CostBook(cache / 'costs', self.fingerprints)
        self.bases = {
            name: comparable(with_options(self.read(path), plan.cfg_options))
            for name, path in plan.configs.items()
        }
        self.folds = None if plan.folds is None else read_folds(Path(plan.folds['file']))
        self.libraries: dict[str, Library] = {}
        self.proxies: dict[Any, Step] = {}
        self.stages_one: dict[tuple[str, str], Config] = {}

    def look_at(self, backbone: str) -> None:
        """Look at the fine-tuning of a backbone before anything is measured or run.

        Raises:
            UserError: It could not begin.
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
        """All points, without arms."""
        folds = [None] if self.plan.folds is None else self.plan.folds['indices']
        for seed in self.plan.seeds:
            for backbone in self.bases:
                for fold in folds:
                    for start in self.starts(backbone, fold, seed):
                        for fraction in self.plan.fractions:
                            yield self.cell(backbone, start, fraction, fold, seed)

    def starts(self, backbone: str, fold: int | None, seed: int) -> Iterator[Start]:
        """The starts of a backbone; a random one is a file too, the same for all arms of a pair."""
        for name, start in self.plan.starts.items():
            if start is None:
                network = self.bases[backbone]['model']['backbone']
                folder = self.cache / f'start-{self.fingerprints.of("start", network, seed)}'
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
        """The training of a proxy task, on the fold's training images without labels."""
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
            self.proxies[key] = self.shared_step(
                'proxy',
                f'proxy {name}, {backbone}{where}',
                cfg,
                [cfg.to_dict(), part.digest],
                self.costs.of(cfg),
            )
        return self.proxies[key]

    def cell(
        self, backbone: str, start: Start, fraction: float, fold: int | None, seed: int
    ) -> Cell:
        """A point of the grid."""
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
            moved = copy.deepcopy(dict(val))  # a fold divides the training images
            inner, source = next(leaf_datasets(moved)), next(leaf_datasets(train))
            for key in ('data_root', 'data_prefix'):
                if key in source:
                    inner[key] = copy.deepcopy(source[key])
            judged = library.named(moved, names['val'])
        return gallery, library.subset(gallery.dataset, fraction, seed), judged

    def library(self, cfg: Config) -> Library:
        """Lists the data sets of a config's scope."""
        scope = cfg.get('default_scope') or 'mmseg'
        if scope not in self.libraries:
            self.libraries[scope] = Library(self.cache / 'splits', scope)
        return self.libraries[scope]

    def job(self, cell: Cell, arm: Arm) -> Job:
        """A point of the grid."""
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
        """What an arm does before fine-tuning."""
        recipe = self.plan.recipes[arm.recipe]
        needs = () if cell.start.step is None else (cell.start.step.product,)
        cfg = copy.deepcopy(cell.cfg)
        if arm.before == 'tuning':
            options = arms.tuning_options(cfg, recipe)
            cfg['mix_and_match'] = options
            stage = derive_tuning_config(cfg)  # without a start, which may not be there yet
            cfg['mix_and_match'] = {**options, **cell.start.options}
            content = [stage.to_dict(), cell.start.options, cfg[STEP_OPTIONS], cell.data]
            return self.shared_step(
                'tuning',
                f'{name}: tuning',
                cfg,
                content,
                self.tuning_cost(cell.backbone, arm.recipe),
                needs,
                options_iterations(stage),
            )
        iterations = self.extra_iterations(cell.backbone, arm.recipe)
        cfg = arms.without_validation(arms.stretched(cfg, iterations))
        cfg['mix_and_match'] = {'enabled': False, **cell.start.options}
        content = [cfg.to_dict(), cell.data]
        cost = self.costs_of_fine_tuning(cell.backbone)
        return self.shared_step('first_pass', f'{name}: first pass', cfg, content, cost, needs)

    def fine_tuning(self, cell: Cell, arm: Arm, name: str, before: list[Step]) -> Step:
        """The last step of a job."""
        cfg = copy.deepcopy(cell.cfg)
        iterations = cfg['train_cfg']['max_iters']
        if arm.longer == 'twice':
            iterations *= 2
        elif arm.longer == 'matched':
            if arm.name.startswith('direct-augmented'):
                cfg = arms.augmented(cfg, self.plan.recipes[arm.recipe])
            iterations += self.extra_iterations(cell.backbone, arm.recipe)
        cfg = arms.stretched(cfg, iterations)
        if arm.before is None:
            cfg['mix_and_match'] = {'enabled': False, **cell.start.options}
        else:
            cfg['mix_and_match'] = {'tuned_backbone': str(before[-1].product)}
        cfg[STEP_OPTIONS]['from_start'] = arm.before is None
        folder = f'{name}-{self.fingerprints.of("fine_tuning", cfg.to_dict(), cell.data)}'
        cfg[STEP_OPTIONS]['keep_checkpoints'] = self.plan.keep_checkpoints
        # the augmentation of an arm changes no FLOPs: crops have a fixed size
        cost = self.costs_of_fine_tuning(cell.backbone)
        needs = tuple(step.product for step in before[-1:])
        return self.step(
            'fine_tuning', name, self.work_dir / 'jobs' / folder, cfg, cost, needs, iterations
        )

    def shared_step(
        self,
        kind: str,
        name: str,
        cfg: Config,
        content: list[Any],
        cost: StepCost,
        needs: tuple[Path, ...] = (),
        iterations: int | None = None,
    ) -> Step:
        """A step in the cache, named by what determines its product."""
        folder = self.cache / f'{kind}-{self.fingerprints.of(kind, code_digest(), *content)}'
        return self.step(
            kind, name, folder, cfg, cost, needs, iterations or cfg['train_cfg']['max_iters']
        )

    def step(
        self,
        kind: str,
        name: str,
        folder: Path,
        cfg: Config,
        cost: StepCost,
        needs: tuple[Path, ...],
        iterations: int,
    ) -> Step:
        """A step, its config put in its place."""
        cfg = placed(cfg, kind, folder, self.plan.cache_images)
        product = folder / PRODUCTS[kind]
        flops, seconds = iterations * float(cost.flops), iterations * cost.seconds
        return Step(kind, name, folder, product, cfg, needs, iterations, flops, seconds)

    def extra_iterations(self, backbone: str, recipe: str) -> int:
        """Iterations of fine-tuning that cost as much as the tuning of a recipe."""
        stage = self.stage_one(backbone, recipe)
        flops = options_iterations(stage) * self.tuning_cost(backbone, recipe).flops
        return equal_iterations(flops, self.costs_of_fine_tuning(backbone).flops)

    def stage_one(self, backbone: str, recipe: str) -> Config:
        """The config of a recipe's tuning, on all images of the config, with a fixed seed."""
        if (backbone, recipe) not in self.stages_one:
            cfg = copy.deepcopy(self.bases[backbone])
            cfg['mix_and_match'] = arms.tuning_options(cfg, self.plan.recipes[recipe])
            cfg['randomness'] = {'seed': 0}
            self.stages_one[backbone, recipe] = derive_tuning_config(cfg)
        return self.stages_one[backbone, recipe]

    def tuning_cost(self, backbone: str, recipe: str) -> StepCost:
        """Of a training step of a recipe, the same for every start, subset and seed."""
        return self.costs.of(self.stage_one(backbone, recipe))

    def costs_of_fine_tuning(self, backbone: str) -> StepCost:
        """Of a training step of fine-tuning."""
        return self.costs.of(self.bases[backbone])


def options_iterations(stage: Config) -> int:
    """Iterations of a stage."""
    return int(stage['train_cfg']['max_iters'])
