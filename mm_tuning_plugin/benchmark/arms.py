"""The arms of a comparison: each turns one base config into the config of a job."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from mm_tuning_plugin.benchmark.cost import matched_iterations, stretch_schedule
from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.errors import UserError

RUNNER = 'mm_tuning_plugin.MixAndMatchRunner'


class Job(NamedTuple):
    """One run of one arm.

    Attributes:
        name: Unique in a comparison; also its folder.
        arm: Name of the arm.
        seed: Seed of everything: data order, augmentation, head, sampling.
        cfg: The config that `tools/train.py` runs.
    """

    name: str
    arm: str
    seed: int
    cfg: Config


def tuned(base: Config, **options: Any) -> Config:
    """Both stages; `options` go over the base config's ``mix_and_match``."""
    cfg = copy.deepcopy(base)
    cfg['runner_type'] = RUNNER
    cfg['mix_and_match'] = {**(cfg.get('mix_and_match') or {}), 'enabled': True, **options}
    return cfg


def direct(base: Config) -> Config:
    """Fine-tuning alone, from the same start."""
    return tuned(base, enabled=False)


def paper(base: Config) -> Config:
    """Both stages, with the paper's patches, triplets and embedding, at the base's iterations."""
    given = {k: v for k, v in (base.get('mix_and_match') or {}).items() if k in SHARED_WITH_PAPER}
    cfg = copy.deepcopy(base)
    cfg['mix_and_match'] = dict(given, recipe='paper')
    return tuned(cfg)


def matched_to(arm: Callable[[Config], Config]) -> Callable[[Config], Config]:
    """Fine-tuning alone, one schedule stretched to the FLOPs of both stages of `arm`."""

    def direct_matched(base: Config) -> Config:
        cfg = direct(base)
        stretch_schedule(cfg, matched_iterations(derive_tuning_config(arm(base)), base))
        return cfg

    return direct_matched


SHARED_WITH_PAPER = (
    'checkpoint', 'max_iters', 'images_per_batch', 'retrieval_images', 'size_range', 'patch_size',
)  # fmt: skip
ARMS: dict[str, Callable[[Config], Config]] = {
    'direct': direct,
    'direct-matched': matched_to(tuned),
    'tuned': tuned,
    'paper': paper,
    'direct-matched-paper': matched_to(paper),
}


def make_jobs(base: Config, arms: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """All runs, seed by seed, so that an interrupted comparison has whole pairs.

    Args:
        base: The config of fine-tuning, with the ``mix_and_match`` of the tuned arm.
        arms: Names out of `ARMS`.
        seeds: Seeds.

    Raises:
        UserError: An arm that does not exist, or no arm or seed.
    """
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown or not arms or not seeds:
        raise UserError(
            f'arms: {list(arms)} over seeds {list(seeds)} found, expected some of {list(ARMS)} '
            'and at least one seed'
        )
    configs = {arm: ARMS[arm](base) for arm in arms}
    jobs = []
    for seed in seeds:
        for arm in arms:
            cfg = copy.deepcopy(configs[arm])
            cfg['randomness'] = {**(cfg.get('randomness') or {}), 'seed': int(seed)}
            jobs.append(Job(f'{arm}-seed{seed}', arm, int(seed), cfg))
    return jobs


def use_fold(base: Config, fold: Mapping[str, Any], work_dir: Path) -> None:
    """Point a config's data sets at a fold of the training images, in place.

    Args:
        base: Config whose training and validation data sets read ``ann_file``.
        fold: ``file``: JSON, a list of ``{"train": [names], "val": [names]}``; ``index``: which;
            optional ``fraction``: share of the training names kept, drawn by ``subset_seed``
            (smaller shares are subsets of larger ones).
        work_dir: Where the manifests are written, under names that change with what they hold: a
            finished job of another fold then has another config, and is not taken for this one.

    Raises:
        UserError: The file is missing or is no list of folds, or an entry of `fold` is wrong.
    """
    splits = _read_fold(fold)
    order = random.Random(int(fold.get('subset_seed', 0))).sample(
        splits['train'], len(splits['train'])
    )
    count = max(1, round(fold.get('fraction', 1) * len(order)))
    splits['train'] = sorted(order[:count])
    prefix = base['train_dataloader']['dataset']['data_prefix']
    work_dir.mkdir(parents=True, exist_ok=True)
    for split, loaders in (('train', ['train']), ('val', ['val', 'test'])):
        text = '\n'.join(splits[split]) + '\n'
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        manifest = (work_dir / f'{split}-{digest}.txt').resolve()
        manifest.write_text(text, encoding='utf-8')
        for loader in loaders:
            dataset = base[f'{loader}_dataloader']['dataset']
            dataset['ann_file'] = str(manifest)
            dataset['data_prefix'] = copy.deepcopy(prefix)


def _read_fold(fold: Mapping[str, Any]) -> dict[str, list[str]]:
    index, fraction = fold.get('index'), fold.get('fraction', 1)
    if 'file' not in fold or not isinstance(index, int) or index < 0:
        raise UserError(f'fold: {dict(fold)} found, expected a `file` and an `index` from 0')
    if (
        isinstance(fraction, bool)
        or not isinstance(fraction, (int, float))
        or not 0 < fraction <= 1
    ):
        raise UserError(f'fold.fraction: {fraction!r} found, expected a number above 0, up to 1')
    path = Path(fold['file'])
    try:
        names = json.loads(path.read_text(encoding='utf-8'))[index]
        splits = {split: [str(name) for name in names[split]] for split in ('train', 'val')}
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f'{path}: {type(error).__name__}: {error} found, expected a JSON list of folds with '
            f'"train" and "val", at least {index + 1} of them'
        ) from error
    if not splits['train'] or not splits['val']:
        raise UserError(f'{path}: fold {index} is empty, expected names in "train" and "val"')
    return splits
