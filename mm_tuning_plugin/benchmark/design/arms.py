"""The arms of a comparison: what each does before fine-tuning, and how long it fine-tunes.

An arm is either a recipe, which tunes the backbone and then fine-tunes, or a baseline, which only
fine-tunes. Most baselines get as much compute as the recipe:

* ``direct``: fine-tuning alone.
* ``direct-matched``: fine-tuning, stretched to the FLOPs of tuning and fine-tuning together.
* ``direct-2x``: fine-tuning, stretched to twice its length: shows whether ``direct`` converged.
* ``direct-twice``: fine-tune for as many FLOPs as tuning takes, keep the backbone, and fine-tune in
  full with a new head: shows the effect of the restart alone.
* ``direct-augmented``: ``direct-matched`` with the augmentation that only tuning uses.

``NAME:RECIPE`` is such a baseline, matched to another recipe than ``tuned``. ``ce-tuned`` is the
recipe ``tuned`` with cross-entropy as its loss: it uses nodes and labels, but no matching.

To add a baseline, name it in `PLAIN` or `MATCHED` and let `parse_arm` return its `Arm`. To add a
recipe, give its options in the plan (``recipes``).
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

REFERENCE = 'tuned'  # baselines are matched to this recipe unless they name another
PLAIN = ('direct', 'direct-2x')
MATCHED = ('direct-matched', 'direct-twice', 'direct-augmented')
RECIPES: dict[str, dict[str, Any]] = {'tuned': {}, 'paper': {'recipe': 'paper'}}
# Options of the config that a recipe keeps even if it names another set of defaults.
SHARED = ('max_iters', 'images_per_batch', 'size_range', 'patch_size', 'background_index')
# Options of a run, not of a recipe. The benchmark sets them.
OF_A_RUN = (
    'enabled', 'checkpoint', 'checkpoint_prefix', 'allow_pickle', 'min_matched', 'tuned_backbone',
    'overwrite', 'pictures', 'picture_interval',
)  # fmt: skip


class Arm(NamedTuple):
    """One arm.

    Attributes:
        name: Its name in the plan.
        before: The step before fine-tuning: 'tuning', 'first_pass', or None.
        recipe: The recipe that is tuned, or that the baseline is matched to; None if neither.
        longer: How fine-tuning is stretched: '' (not at all), 'matched' or 'twice'.
    """

    name: str
    before: str | None = None
    recipe: str | None = None
    longer: str = ''


def known_arms(recipes: Iterable[str]) -> list[str]:
    """Names of all arms, without the baselines that are matched to a named recipe."""
    return [*PLAIN, *MATCHED, *recipes]


def parse_arm(name: str, recipes: Mapping[str, Any]) -> Arm:
    """Read the name of an arm.

    Args:
        name: The name.
        recipes: The recipes of the plan, by name.

    Raises:
        UserError: The arm, or the recipe that it is matched to, does not exist.
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
    """The recipes and, unless the plan defines it, ``ce-tuned``."""
    given = {name: dict(options or {}) for name, options in recipes.items()}
    if REFERENCE in given and 'ce-tuned' not in given:
        given['ce-tuned'] = {**given[REFERENCE], 'loss': 'cross_entropy'}
    return given


def tuning_options(base: Config, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The options ``mix_and_match`` of a recipe, over those of the config.

    A recipe that names another set of defaults (``recipe='paper'``) keeps only the options `SHARED`
    of the config: the others were chosen for the config's own defaults. Retrieval is measured
    during tuning only if the recipe says so, as `worker.retrieval` measures it for all arms.

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
    """A copy whose whole schedule is stretched to `iterations`, with one validation at the end."""
    cfg = copy.deepcopy(cfg)
    stretch_schedule(cfg, iterations)
    cfg['train_cfg']['val_interval'] = iterations
    return cfg


def without_validation(cfg: Config) -> Config:
    """A copy without validation and test."""
    cfg = copy.deepcopy(cfg)
    for stage in ('val', 'test'):
        for part in ('dataloader', 'cfg', 'evaluator'):
            cfg[f'{stage}_{part}'] = None
    return cfg


def augmented(base: Config, recipe: Mapping[str, Any]) -> Config:
    """A copy whose fine-tuning also uses the augmentation of a recipe's tuning.

    Raises:
        UserError: The recipe has no augmentation, or it changes the size of images and no crop
            restores it.
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
