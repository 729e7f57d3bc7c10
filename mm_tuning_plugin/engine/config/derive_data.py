"""The data of stage one: training nodes, and images for node retrieval."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mm_tuning_plugin.engine.config import derive_pipelines as pipelines
from mm_tuning_plugin.engine.config.augmentation import augmentation
from mm_tuning_plugin.engine.config.dataset_tree import leaf_datasets
from mm_tuning_plugin.engine.config.entry_types import steps_of
from mm_tuning_plugin.engine.config.options import Options, like
from mm_tuning_plugin.engine.config.user_config import UserConfig
from mm_tuning_plugin.registry import SCOPE


def _sample(user: UserConfig) -> dict[str, Any]:
    options, norm = user.options, user.normalisation
    labels = dict(num_classes=user.num_classes, ignore_values=user.ignore_values)
    if isinstance(options.nodes, Mapping):
        return {**labels, **{k: v for k, v in options.nodes.items() if k != 'like'}}
    if options.nodes == 'points':
        return dict(
            type=f'{SCOPE}.SamplePoints',
            points_per_class=options.points_per_class,
            max_points=options.nodes_per_image,
            border_share=options.border_share,
            **labels,
        )
    # Outside the image lies the mean, which is 0 once normalised, as in mmseg's padding.
    fill = norm.mean or [0.0, 0.0, 0.0]
    return dict(
        type=f'{SCOPE}.SamplePatches',
        num_patches=options.nodes_per_image,
        size_range=list(options.size_range),
        patch_size=options.patch_size,
        background_index=user.background_index,
        background_ratio=options.background_ratio,
        max_overlap=options.max_overlap,
        balance=options.balance,
        fill=fill[::-1] if norm.swap_channels else list(fill),
        **labels,
    )


def label_check(user: UserConfig) -> dict[str, Any]:
    """Config of the transform that checks labels."""
    return dict(
        type=f'{SCOPE}.CheckLabels',
        num_classes=user.num_classes,
        ignore_values=user.ignore_values,
    )


def _kept_transforms(options: Options) -> tuple[str, ...]:
    if options.transforms != 'auto':
        return tuple(options.transforms)
    if like(options.nodes) == 'points':
        return pipelines.GEOMETRIC + pipelines.PHOTOMETRIC
    return pipelines.FLIPS


def tuning_dataset(user: UserConfig) -> dict[str, Any]:
    """The user's training data set with the pipeline of stage one."""
    keep, extra = _kept_transforms(user.options), augmentation(user.options.augment)
    return pipelines.with_pipeline(
        user.train_dataset,
        lambda steps: pipelines.tuning_pipeline(
            steps, keep, label_check(user), _sample(user), extra
        ),
    )


def train_dataloader(user: UserConfig) -> dict[str, Any]:
    """Config of the loader of training nodes."""
    own = user.share(user.options.images_per_batch)
    return dict(
        **_loader_options(user.train_loader),
        batch_size=own,
        drop_last=False,
        sampler=dict(type=f'{SCOPE}.SeededInfiniteSampler', seed=user.seed, batch_size=own),
        dataset=dict(type=f'{SCOPE}.SeededDataset', dataset=tuning_dataset(user)),
        collate_fn=dict(type='pseudo_collate'),
    )


def _loader_options(loader: Mapping[str, Any]) -> dict[str, Any]:
    """What a DataLoader's config says of workers and memory, not of data."""
    names = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'timeout')
    return {name: copy.deepcopy(loader[name]) for name in names if name in loader}


def validation(user: UserConfig) -> dict[str, Any]:
    """Node retrieval: queries of the validation images, gallery of the training images."""
    if user.val_dataset is None:
        return dict(val_dataloader=None, val_cfg=None, val_evaluator=None)
    leaf = next(leaf_datasets(user.val_dataset))
    resizes, window = pipelines.resizes_of(steps_of(leaf)), _window(user)

    check, sample = label_check(user), _sample(user)
    train = user.train_dataset
    fit = pipelines.has_early_moves(train)

    def gallery(steps: Any) -> list[dict[str, Any]]:
        derived = pipelines.retrieval_pipeline(steps, resizes, check, sample)
        return pipelines.before_sampling(derived, window)

    def queries(steps: Any) -> list[dict[str, Any]]:
        derived = pipelines.validation_pipeline(steps, resizes, check, sample, fit)
        return pipelines.before_sampling(derived, window)

    return dict(
        val_dataloader=dict(
            **_loader_options(user.val_loader),
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type=f'{SCOPE}.RetrievalDataset',
                gallery=pipelines.with_pipeline(train, gallery),
                queries=pipelines.with_pipeline(user.val_dataset, queries),
                max_images=user.options.retrieval_images,
            ),
            collate_fn=dict(type='pseudo_collate'),
        ),
        val_cfg=dict(type='ValLoop'),
        val_evaluator=dict(type=f'{SCOPE}.NodeRetrievalMetric'),
    )


def _window(user: UserConfig) -> list[dict[str, Any]]:
    """What keeps an image from passing the backbone whole that is far larger than training's."""
    if like(user.options.nodes) == 'patches':  # each of which is an image of its own
        return []
    size = pipelines.crop_size(user.train_dataset)
    return [dict(type=f'{SCOPE}.CutLargeImage', crop_size=size and list(size))]
