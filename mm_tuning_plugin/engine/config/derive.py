"""The tuning plan: from the user's config to the config of stage one.

`derive_tuning_config` is a pure function. What it returns is an ordinary mmengine config, written
to ``<work_dir>/tuning/`` before it runs, which mmseg's own ``tools/train.py`` runs as well.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.dist import get_world_size

from mm_tuning_plugin.config_types import base_type, with_named_types
from mm_tuning_plugin.engine.config import derive_pipelines, user_config
from mm_tuning_plugin.engine.config.augmentation import augmentation
from mm_tuning_plugin.engine.config.derive_schedule import schedule
from mm_tuning_plugin.engine.config.entry_types import check_kinds, steps_of
from mm_tuning_plugin.engine.config.initial_weights import (
    adopt_self_supervised,
    split_start,
    with_needed_arguments,
)
from mm_tuning_plugin.engine.config.normalisation import Normalisation, read_normalisation
from mm_tuning_plugin.engine.config.options import resolve_options
from mm_tuning_plugin.engine.hooks.batch_norm import estimate_config
from mm_tuning_plugin.engine.pictures.hook import pictures_config
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.losses.base import loss_config, needs_classifier
from mm_tuning_plugin.nodes.base import DataFacts, embedding_config, node_kind, sample_config

SCOPE = 'mm_tuning_plugin'
TUNING_DIR = 'tuning'
# Taken over from the user's config as they are.
KEPT_KEYS = (
    'default_scope', 'custom_imports', 'env_cfg', 'launcher', 'log_level', 'randomness',
    'model_wrapper_cfg', 'find_unused_parameters', 'sync_bn',
)  # fmt: skip


class Facts(NamedTuple):
    """What was read out of the user's config once, for all parts of the plan."""

    options: dict[str, Any]
    num_classes: int
    class_names: list[str]
    ignore_values: list[int]
    background_index: int | None
    normalisation: Normalisation


def derive_tuning_config(cfg: Config) -> Config:
    """Derive the config of stage one from the config of an mmseg project.

    Args:
        cfg: The user's config, with an optional ``mix_and_match``; not changed.

    Returns:
        The config of stage one. It can be run alone; neither ``runner_type`` nor
        ``mix_and_match`` is left in it.

    Raises:
        ValueError: (`UserError`) The config cannot be tuned, or an option is wrong.
    """
    cfg = adopt_self_supervised(with_named_types(cfg))
    facts = read_facts(cfg)
    derived: dict[str, Any] = {
        key: copy.deepcopy(cfg[key]) for key in KEPT_KEYS if cfg.get(key) is not None
    }
    derived.setdefault('default_scope', 'mmseg')
    derived['work_dir'] = os.path.join(cfg.get('work_dir') or 'work_dirs', TUNING_DIR)
    derived['experiment_name'] = 'mix_and_match_tuning'
    derived['model'] = _model(cfg, facts)
    derived['train_dataloader'] = _train_dataloader(cfg, facts)
    derived.update(schedule(cfg, facts.options))
    derived.update(_validation(cfg, facts))
    derived.update(_runtime(cfg, facts))
    return with_named_types(Config(derived))


def read_facts(cfg: Mapping[str, Any]) -> Facts:
    """Validate the user's config and read what the plan needs.

    Raises:
        UserError: See `derive_tuning_config`.
    """
    options = resolve_options(cfg.get('mix_and_match'))
    check_kinds(cfg)
    if cfg.get('load_from'):
        raise UserError(
            'load_from',
            f'{cfg["load_from"]!r} found, which would overwrite the tuned backbone',
            'remove it, and give the start as mix_and_match.checkpoint (--ssl-checkpoint)',
        )
    user_config.read_model(cfg)
    if not isinstance(cfg.get('train_dataloader'), Mapping):
        raise UserError('train_dataloader', 'none found', 'expected the data to tune and train on')
    user_config.refuse_pairs(cfg['train_dataloader'].get('dataset'))
    for name in ('train_dataloader', 'val_dataloader'):
        loader = cfg.get(name) or {}
        if loader.get('persistent_workers') and not loader.get('num_workers'):
            raise UserError(
                f'{name}.persistent_workers',
                'True found with num_workers=0',
                'expected at least one worker, or persistent_workers=False',
            )
    num_classes, class_names = user_config.read_classes(cfg)
    normalisation = read_normalisation(cfg)
    return Facts(
        options=options,
        num_classes=num_classes,
        class_names=class_names,
        ignore_values=user_config.read_ignored(cfg, normalisation.seg_pad_val),
        background_index=user_config.read_background(options['background_index'], class_names),
        normalisation=normalisation,
    )


def _model(cfg: Mapping[str, Any], facts: Facts) -> dict:
    options, norm = facts.options, facts.normalisation
    backbone, checkpoint = split_start(cfg['model'], options['checkpoint'])
    backbone = with_needed_arguments(
        backbone, checkpoint, options, cfg.get('default_scope') or 'mmseg'
    )
    _refuse_nested_checkpoints(backbone, options['chunk_size'])
    size = user_config.read_fixed_size(backbone)
    embedding = dict(projection_channels=options['projection_channels'])
    if needs_classifier(options['loss']):
        embedding = dict(projection_channels=facts.num_classes, hidden_channels=0, normalise=False)
    embedding.update(embedding_config(options))
    return dict(
        type=f'{SCOPE}.MixAndMatchTuner',
        data_preprocessor=dict(
            type=f'{SCOPE}.NodeDataPreprocessor',
            mean=norm.mean,
            std=norm.std,
            swap_channels=norm.swap_channels,
            size=size,
        ),
        backbone=backbone,
        embedding=embedding,
        criterion=_criterion(facts),
        in_index=_levels(cfg, options['levels']),
        seed=_seed(cfg) or 0,
        probe_size=size or [128, 128],
        checkpoint=checkpoint,
        min_matched=options['min_matched'],
        allow_pickle=options['allow_pickle'],
        prefix=options['checkpoint_prefix'],
        chunk_size=options['chunk_size'],
        graph_groups=_graph_groups(options),
    )


def _levels(cfg: Mapping[str, Any], levels: str | Sequence[int]) -> list[int] | None:
    if levels == 'head':
        return user_config.read_levels(cfg['model'])
    return None if levels == 'all' else list(levels)


def _graph_groups(options: Mapping[str, Any]) -> int:
    groups, images = options['graph_groups'], options['images_per_batch']
    if images % groups:
        raise UserError(
            'mix_and_match.graph_groups',
            f'{groups} found',
            f'expected a divisor of images_per_batch ({images})',
        )
    return groups


def _refuse_nested_checkpoints(backbone: Mapping[str, Any], chunk_size: int | None) -> None:
    # mmseg's with_cp is torch's reentrant kind: inside chunks it marks a parameter ready once a
    # chunk, which DDP refuses at the first backward pass. One process may nest the two.
    if chunk_size and get_world_size() > 1 and user_config.any_set(backbone, 'with_cp'):
        raise UserError(
            'mix_and_match.chunk_size',
            f'{chunk_size} found beside with_cp=True of the backbone over {get_world_size()} ranks',
            'expected only one of the two, since both recompute activations',
        )


def _criterion(facts: Facts) -> dict:
    sizes = dict(num_classes=facts.num_classes, channels=None)
    return loss_config(facts.options['loss'], {**facts.options, **sizes})


def _sample(facts: Facts) -> dict:
    norm = facts.normalisation
    # Outside the image lies the mean, which is 0 once normalised, as in mmseg's padding.
    mean = norm.mean or [0.0, 0.0, 0.0]
    fill = mean[::-1] if norm.swap_channels else mean
    labels = dict(num_classes=facts.num_classes, ignore_values=facts.ignore_values)
    return sample_config(facts.options, DataFacts(facts.background_index, fill), labels)


def check_labels(facts: Facts) -> dict:
    """Config of the transform that checks labels."""
    return dict(
        type=f'{SCOPE}.CheckLabels',
        num_classes=facts.num_classes,
        ignore_values=facts.ignore_values,
    )


def _kept_transforms(options: Mapping[str, Any]) -> tuple[str, ...]:
    if options['transforms'] != 'auto':
        return tuple(options['transforms'])
    kept = node_kind(options['nodes']).kept_transforms
    return derive_pipelines.GEOMETRIC + derive_pipelines.PHOTOMETRIC if kept is None else kept


def tuning_dataset(cfg: Mapping[str, Any], facts: Facts) -> dict:
    """The user's training data set with the pipeline of stage one."""
    keep, extra = _kept_transforms(facts.options), augmentation(facts.options['augment'])
    return derive_pipelines.with_pipeline(
        cfg['train_dataloader']['dataset'],
        lambda steps: derive_pipelines.tuning_pipeline(
            steps, keep, check_labels(facts), _sample(facts), extra
        ),
    )


def _train_dataloader(cfg: Mapping[str, Any], facts: Facts) -> dict:
    own = _share(facts, 'images_per_batch')
    return dict(
        **_loader_options(cfg['train_dataloader']),
        batch_size=own,
        drop_last=False,
        sampler=dict(type=f'{SCOPE}.SeededInfiniteSampler', seed=_seed(cfg), batch_size=own),
        dataset=dict(type=f'{SCOPE}.SeededDataset', dataset=tuning_dataset(cfg, facts)),
        collate_fn=dict(type='pseudo_collate'),
    )


def _share(facts: Facts, option: str) -> int:
    """What falls to one rank of an option that counts over all ranks.

    Raises:
        UserError: It does not divide.
    """
    world_size, number = get_world_size(), facts.options[option]
    if number % world_size:
        raise UserError(
            f'mix_and_match.{option}',
            f'{number} found',
            f'expected a multiple of the {world_size} ranks',
        )
    return number // world_size


def _loader_options(loader: Mapping[str, Any]) -> dict:
    """What a DataLoader's config says of workers and memory, not of data."""
    names = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'timeout')
    return {name: copy.deepcopy(loader[name]) for name in names if name in loader}


def _validation(cfg: Mapping[str, Any], facts: Facts) -> dict:
    """Node retrieval: queries of the validation images, gallery of the training images."""
    loader = cfg.get('val_dataloader')
    if not _measures(cfg, facts):
        return dict(val_dataloader=None, val_cfg=None, val_evaluator=None)
    leaf = next(user_config.leaf_datasets(loader.get('dataset')))
    resizes, window = derive_pipelines.resizes_of(steps_of(leaf)), _window(cfg, facts)

    check, sample = check_labels(facts), _sample(facts)
    train = cfg['train_dataloader']['dataset']
    fit = derive_pipelines.has_early_moves(train)

    def gallery(steps: Any) -> list[dict]:
        derived = derive_pipelines.retrieval_pipeline(steps, resizes, check, sample)
        return derive_pipelines.before_sampling(derived, window)

    def queries(steps: Any) -> list[dict]:
        derived = derive_pipelines.validation_pipeline(steps, resizes, check, sample, fit)
        return derive_pipelines.before_sampling(derived, window)

    return dict(
        val_dataloader=dict(
            **_loader_options(loader),
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type=f'{SCOPE}.RetrievalDataset',
                gallery=derive_pipelines.with_pipeline(train, gallery),
                queries=derive_pipelines.with_pipeline(loader['dataset'], queries),
                max_images=facts.options['retrieval_images'],
            ),
            collate_fn=dict(type='pseudo_collate'),
        ),
        val_cfg=dict(type='ValLoop'),
        val_evaluator=dict(type=f'{SCOPE}.NodeRetrievalMetric'),
    )


def _window(cfg: Mapping[str, Any], facts: Facts) -> list[dict]:
    """What keeps an image from passing the backbone whole that is far larger than training's."""
    if not node_kind(facts.options['nodes']).whole_images:
        return []
    size = derive_pipelines.crop_size(cfg['train_dataloader']['dataset'])
    return [dict(type=f'{SCOPE}.CutLargeImage', crop_size=size and list(size))]


def _batch_norm_hooks(cfg: Mapping[str, Any], facts: Facts) -> list[dict]:
    share = _share(facts, 'bn_crops')
    if not share:
        return []
    number, seed = facts.options['bn_crops'], _seed(cfg) or 0
    return [estimate_config(cfg, number, share, check_labels(facts), seed)]


def _measures(cfg: Mapping[str, Any], facts: Facts) -> bool:
    """Whether node retrieval is measured: validation images have labels to measure it by."""
    validates = isinstance(
        cfg.get('val_dataloader'), Mapping
    ) and derive_pipelines.validates_labels(cfg)
    return bool(facts.options['retrieval_images']) and validates


def _pictures_hooks(cfg: Mapping[str, Any], facts: Facts) -> list[dict]:
    given = cfg.get('mix_and_match') or {}
    return pictures_config(given, facts.options, facts.class_names, _measures(cfg, facts))


def _runtime(cfg: Mapping[str, Any], facts: Facts) -> dict:
    """Hooks, logging, visualizer: own names, so that nothing mixes with stage two's."""
    options = facts.options
    hooks = cfg.get('default_hooks') or {}
    interval = (hooks.get('logger') or {}).get('interval') or 50
    kept = [
        copy.deepcopy(hook)
        for hook in cfg.get('custom_hooks') or []
        if base_type(hook) in options['keep_hooks']
    ]
    visualizer = copy.deepcopy(dict(cfg.get('visualizer') or dict(type='Visualizer')))
    visualizer.pop('name', None)  # mmengine then names it after this run
    return dict(
        default_hooks=dict(
            timer=dict(type='IterTimerHook'),
            logger=dict(
                type='LoggerHook',
                interval=min(interval, options['max_iters']),
                log_metric_by_epoch=False,
            ),
            param_scheduler=dict(type='ParamSchedulerHook'),
            checkpoint=dict(
                type='CheckpointHook',
                by_epoch=False,
                interval=options['checkpoint_interval'],
                max_keep_ckpts=2,
            ),
            sampler_seed=dict(type='DistSamplerSeedHook'),
        ),
        custom_hooks=[
            dict(type=f'{SCOPE}.NodeStatisticsHook', class_names=facts.class_names),
            dict(type=f'{SCOPE}.FiniteHook'),
            dict(type=f'{SCOPE}.WatchHook', class_names=facts.class_names),
            *_batch_norm_hooks(cfg, facts),
            dict(type=f'{SCOPE}.SaveBackboneHook'),
            *_pictures_hooks(cfg, facts),
            *kept,
        ],
        log_processor=dict(by_epoch=False),
        visualizer=visualizer,
        auto_scale_lr=None,
        load_from=None,
        resume=False,
    )


def _seed(cfg: Mapping[str, Any]) -> int | None:
    seed = (cfg.get('randomness') or {}).get('seed')
    return None if seed is None else int(seed)
