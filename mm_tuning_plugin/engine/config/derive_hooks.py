"""Hooks, log and visualizer of stage one."""

from __future__ import annotations

from mm_tuning_plugin.config_types import PlainConfig
from mm_tuning_plugin.engine.config import derive_pipelines as pipelines
from mm_tuning_plugin.engine.config.derive_data import label_check
from mm_tuning_plugin.engine.config.user_config import UserConfig
from mm_tuning_plugin.nodes.base import node_kind
from mm_tuning_plugin.registry import SCOPE


def hooks_and_logging(user: UserConfig) -> PlainConfig:
    """Config of hooks, logging and visualizer."""
    options = user.options
    # Without a name, mmengine names the visualizer after this run, so stage two gets its own.
    visualizer = {key: value for key, value in user.visualizer.items() if key != 'name'}
    return dict(
        default_hooks=dict(
            timer=dict(type='IterTimerHook'),
            logger=dict(
                type='LoggerHook',
                interval=min(user.log_interval, options.max_iters),
                log_metric_by_epoch=False,
            ),
            param_scheduler=dict(type='ParamSchedulerHook'),
            checkpoint=dict(
                type='CheckpointHook',
                by_epoch=False,
                interval=options.checkpoint_interval,
                max_keep_ckpts=2,
            ),
            sampler_seed=dict(type='DistSamplerSeedHook'),
        ),
        custom_hooks=[
            dict(type=f'{SCOPE}.NodeStatisticsHook', class_names=user.class_names),
            dict(type=f'{SCOPE}.FiniteHook'),
            dict(type=f'{SCOPE}.WatchHook', class_names=user.class_names),
            *_batch_norm_hooks(user),
            dict(type=f'{SCOPE}.SaveBackboneHook'),
            *_picture_hooks(user),
            *user.kept_hooks,
        ],
        log_processor=dict(by_epoch=False),
        visualizer=visualizer,
        auto_scale_lr=None,
        load_from=None,
        resume=False,
    )


def _picture_hooks(user: UserConfig) -> list[PlainConfig]:
    if not user.pictures:
        return []
    return [
        dict(
            type=f'{SCOPE}.PicturesHook',
            pictures=list(user.pictures),
            class_names=list(user.class_names),
            nodes=node_kind(user.options.nodes).name,
            interval=user.options.picture_interval,
        )
    ]


def _batch_norm_hooks(user: UserConfig) -> list[PlainConfig]:
    number = user.options.bn_crops
    if not number:
        return []
    check = label_check(user)
    # Each sample needs a node. This point is not used.
    point = dict(check, type=f'{SCOPE}.SamplePoints', points_per_class=1, max_points=1)
    keep = pipelines.GEOMETRIC + pipelines.PHOTOMETRIC
    dataset = pipelines.with_pipeline(
        user.train_dataset, lambda steps: pipelines.tuning_pipeline(steps, keep, check, point)
    )
    return [
        dict(
            type=f'{SCOPE}.EstimateBatchNormHook',
            num_crops=number,
            batch_size=min(user.share(number), user.train_loader.get('batch_size') or 1),
            dataset=dict(type=f'{SCOPE}.SeededDataset', dataset=dataset),
            size=user.batch_size,
            seed=user.seed or 0,
        )
    ]
