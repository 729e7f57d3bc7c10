"""Build the steps of a benchmark: their folders, their products and what they cost."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mm_tuning_plugin.benchmark.code import code_digest
from mm_tuning_plugin.benchmark.design import arms
from mm_tuning_plugin.benchmark.design.cost import CostBook, StepCost, equal_iterations
from mm_tuning_plugin.benchmark.design.plan import Plan
from mm_tuning_plugin.benchmark.fingerprints import Fingerprints
from mm_tuning_plugin.benchmark.settings import placed
from mm_tuning_plugin.benchmark.steps import Step
from mm_tuning_plugin.engine import derive_tuning_config

PRODUCTS = {
    'start': 'backbone.pth',  # of a random start; the first step that needs it writes it
    'proxy': 'backbone.pth',
    'tuning': 'tuned_backbone.pth',
    'first_pass': 'backbone.pth',
    'fine_tuning': 'areas.npz',
}


class StepBuilder:
    """Builds steps and computes how many iterations cost as much as a tuning.

    Args:
        plan: The plan.
        cache: Holds the steps that jobs, arms and plans share, and the measured costs.
        bases: Name of a backbone -> config of its fine-tuning.
    """

    def __init__(self, plan: Plan, cache: Path, bases: dict[str, Config]) -> None:
        self.plan, self.cache, self.bases = plan, cache, bases
        self.fingerprints = Fingerprints(cache)
        self.costs = CostBook(cache / 'costs', self.fingerprints)
        self.tuning_configs: dict[tuple[str, str], Config] = {}

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
        """A step in the cache; a digest of all that determines its product names its folder."""
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
        """A step whose config writes to its folder."""
        cfg = placed(cfg, kind, folder, self.plan.cache_images)
        product = folder / PRODUCTS[kind]
        flops, seconds = iterations * float(cost.flops), iterations * cost.seconds
        return Step(kind, name, folder, product, cfg, needs, iterations, flops, seconds)

    def matched_iterations(self, backbone: str, recipe: str) -> int:
        """Iterations of fine-tuning that cost as many FLOPs as the tuning of a recipe."""
        stage = self.tuning_config(backbone, recipe)
        flops = stage['train_cfg']['max_iters'] * self.tuning_cost(backbone, recipe).flops
        return equal_iterations(flops, self.fine_tuning_cost(backbone).flops)

    def tuning_config(self, backbone: str, recipe: str) -> Config:
        """The tuning config of a recipe, on all training images, with a fixed seed."""
        if (backbone, recipe) not in self.tuning_configs:
            cfg = copy.deepcopy(self.bases[backbone])
            cfg['mix_and_match'] = arms.tuning_options(cfg, self.plan.recipes[recipe])
            cfg['randomness'] = {'seed': 0}
            self.tuning_configs[backbone, recipe] = derive_tuning_config(cfg)
        return self.tuning_configs[backbone, recipe]

    def tuning_cost(self, backbone: str, recipe: str) -> StepCost:
        """The cost of one tuning step of a recipe: the same for every start, subset and seed."""
        return self.costs.of(self.tuning_config(backbone, recipe))

    def fine_tuning_cost(self, backbone: str) -> StepCost:
        """The cost of one step of fine-tuning."""
        return self.costs.of(self.bases[backbone])
