"""The arms of a comparison: what each does before fine-tuning, and for how long it fine-tunes.

An arm is a recipe, whose tuning comes before fine-tuning, or a baseline, which only fine-tunes. The
baselines control for what tuning costs:

* ``direct``: fine-tuning alone.
* ``direct-matched``: one schedule, stretched to the FLOPs of tuning and fine-tuning together.
* ``direct-2x``: the schedule stretched to twice its length: whether `direct` had converged.
* ``direct-twice``: fine-tune for as many FLOPs as tuning, keep the backbone, take a fresh head,
  fine-tune in full: the restart alone.
* ``direct-augmented``: ``direct-matched``, with the augmentation that only stage one has.

``NAME:RECIPE`` is the same, matched to another recipe than ``tuned``. ``ce-tuned`` is the recipe
``tuned`` with cross-entropy for its loss: nodes and labels alone, without matching.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mmengine.config import Config

from mm_tuning_plugin.benchmark.design.stretching import stretch_schedule
from mm_tuning_plugin.engine.config.augmentation import augmentation, moves_without_crop
from mm_tuning_plugin.engine.config.dataset_tree import leaf_datasets
from mm_tuning_plugin.engine.config.derive_pipelines import with_augmentation
from mm_tuning_plugin.engine.config.options import resolve_options
from mm_tuning_plugin.errors import UserError

REFERENCE = 'tuned'  # the recipe that baselines are matched to if none is named
PLAIN = ('direct', 'direct-2x')
MATCHED = ('direct-matched', 'direct-twice', 'direct-augmented')
RECIPES: dict[str, dict[str, Any]] = {'tuned': {}, 'paper': {'recipe': 'paper'}}
# What a recipe that names another set of defaults takes over from the config's own options.
SHARED = ('max_iters', 'images_per_batch', 'size_range', 'patch_size', 'background_index')
# Of a run, not of a recipe: the benchmark sets them.
OF_A_RUN = (
    'enabled', 'checkpoint', 'checkpoint_prefix', 'allow_pickle', 'min_matched', 'tuned_backbone',
    'overwrite', 'pictures', 'picture_interval',
)  # fmt: skip


class Arm(NamedTuple):
    """One arm.

    Attributes:
        name: As the plan has it.
        before: What comes before fine-tuning: 'tuning', 'first_pass', or nothing (None).
        recipe: The recipe that is tuned, or that the baseline is matched to; None: of none.
        longer: How fine-tuning is stretched: '' (not), 'matched', or 'twice'.
    """

    name: str
    before: str | None = None
    recipe: str | None = None
    longer: str = ''


def known_arms(recipes: Iterable[str]) -> list[str]:
    """Names of arms, of baselines matched to ``tuned`` alone."""
    return [*PLAIN, *MATCHED, *recipes]


def parse_arm(name: str, recipes: Mapping[str, Any]) -> Arm:
    """Read the name of an arm.

    Args:
        name: The name.
        recipes: The recipes of the plan, by name.

    Raises:
        UserError: There is no such arm, or it is matched to a recipe that there is not.
    """
    if name in recipes:
        return Arm(name, 'tuning', name)
    kind, colon, recipe = name.partition(':')
    recipe = recipe if colon else REFERENCE
    if kind in MATCHED and recipe in recipes:
        if kind == 'direct-twice':
            return Arm(name, 'first_pass', recipe)
        return Arm(name, None, recipe, 'matched')
    if name in PLAIN:
        return Arm(name, longer='twice' if name == 'direct-2x' else '')
    raise UserError(
        'arms',
        f'{name!r} found',
        f'expected some of {known_arms(recipes)}, or {" or ".join(MATCHED)} with ":RECIPE" '
        'behind it',
    )


def with_ce_tuned(recipes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The recipes, and ``ce-tuned`` unless the plan has its own."""
    given = {name: dict(options or {}) for name, options in recipes.items()}
    if REFERENCE in given and 'ce-tuned' not in given:
        given['ce-tuned'] = {**given[REFERENCE], 'loss': 'cross_entropy'}
    return given


def tuning_options(base: Config, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """``mix_and_match`` of a recipe over a config's own; the resolved options are valid.

    A recipe that names another set of defaults (``recipe='paper'``) takes over no more than
    `SHARED` from the config, whose other options were set for its own. Retrieval is not measured
    during tuning unless the recipe asks for it: `retrieval` measures all arms alike.

    Raises:
        UserError: An option does not exist, or its value is out of range.
    """
    own = dict(base.get('mix_and_match') or {})
    if recipe.get('recipe', own.get('recipe')) != own.get('recipe'):
        own = {name: value for name, value in own.items() if name in SHARED}
    own = {name: value for name, value in own.items() if name not in OF_A_RUN}
    options = {**own, 'retrieval_images': 0, **recipe, 'enabled': True}
    resolve_options(options)
    return options


def stretched(cfg: Config, iterations: int) -> Config:
    """A copy whose schedule, whole, lasts other iterations; it validates at its end alone."""
    cfg = copy.deepcopy(cfg)
    stretch_schedule(cfg, iterations)
    cfg['train_cfg']['val_interval'] = iterations
    return cfg


def without_validation(cfg: Config) -> Config:
    """A copy that only trains."""
    cfg = copy.deepcopy(cfg)
    for stage in ('val', 'test'):
        for part in ('dataloader', 'cfg', 'evaluator'):
            cfg[f'{stage}_{part}'] = None
    return cfg


def augmented(base: Config, recipe: Mapping[str, Any]) -> Config:
    """A copy that fine-tunes with the augmentation that only a recipe's stage one has.

    Raises:
        UserError: The recipe has none, or images would be left with the size it gave them.
    """
    extra = augmentation(resolve_options(tuning_options(base, recipe)).augment)
    if not extra:
        raise UserError(
            'arms',
            'direct-augmented found, and its recipe has no mix_and_match.augment',
            'expected a recipe whose tuning has augmentation that fine-tuning lacks',
        )
    cfg = copy.deepcopy(base)
    for leaf in leaf_datasets(cfg['train_dataloader']['dataset']):
        if moves_without_crop(leaf['pipeline'], extra):
            raise UserError(
                'arms',
                'direct-augmented found, and its mix_and_match.augment changes the size of images',
                'expected a config that crops its training images',
            )
        leaf['pipeline'] = with_augmentation(leaf['pipeline'], extra)
    return cfg
