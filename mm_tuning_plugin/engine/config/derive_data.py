"""The data of stage one: training nodes, and images for node retrieval."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from mm_tuning_plugin.config_types import ConfigMap, PlainConfig
from mm_tuning_plugin.engine.config import derive_pipelines as pipelines
from mm_tuning_plugin.engine.config.augmentation import augmentation
from mm_tuning_plugin.engine.config.dataset_tree import leaf_datasets
from mm_tuning_plugin.engine.config.entry_types import steps_of
from mm_tuning_plugin.engine.config.options import Options
from mm_tuning_plugin.engine.config.user_config import UserConfig
from mm_tuning_plugin.nodes.base import DataFacts, node_kind, sample_config
from mm_tuning_plugin.registry import SCOPE


def _sample(user: UserConfig) -> PlainConfig:
    norm = user.normalisation
    # Pixels outside the image get the mean, so they are 0 after normalisation, as in mmseg.
    mean = norm.mean or [0.0, 0.0, 0.0]
    facts = DataFacts(user.background_index, mean[::-1] if norm.swap_channels else mean)
    labels = dict(num_classes=user.num_classes, ignore_values=user.ignore_values)
    return sample_config(vars(user.options), facts, labels)


def label_check(user: UserConfig) -> PlainConfig:
    """Config of the transform that checks labels."""
    return dict(
        type=f'{SCOPE}.CheckLabels',
        num_classes=user.num_classes,
        ignore_values=user.ignore_values,
    )


def _kept_transforms(options: Options) -> tuple[str, ...]:
    if options.transforms != 'auto':
        return tuple(options.transforms)
    kept = node_kind(options.nodes).kept_transforms
    return pipelines.GEOMETRIC + pipelines.PHOTOMETRIC if kept is None else kept


def tuning_dataset(user: UserConfig) -> PlainConfig:
    """The user's training data set with the pipeline of stage one."""
    keep, extra = _kept_transforms(user.options), augmentation(user.options.augment)
    return pipelines.with_pipeline(
        user.train_dataset,
        lambda steps: pipelines.tuning_pipeline(
            steps, keep, label_check(user), _sample(user), extra
        ),
    )


def train_dataloader(user: UserConfig) -> PlainConfig:
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


def _loader_options(loader: ConfigMap) -> PlainConfig:
    """Return the entries of a DataLoader's config about workers and memory."""
    names = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'timeout')
    return {name: copy.deepcopy(loader[name]) for name in names if name in loader}


def validation(user: UserConfig) -> PlainConfig:
    """Config of node retrieval: queries from validation images, gallery from training images."""
    if user.val_dataset is None:
        return dict(val_dataloader=None, val_cfg=None, val_evaluator=None)
    leaf = next(leaf_datasets(user.val_dataset))
    resizes, window = pipelines.resizes_of(steps_of(leaf)), _window(user)

    check, sample = label_check(user), _sample(user)
    train = user.train_dataset
    fit = pipelines.has_early_moves(train)

    def gallery(steps: Sequence[ConfigMap]) -> list[PlainConfig]:
        derived = pipelines.retrieval_pipeline(steps, resizes, check, sample)
        return pipelines.before_sampling(derived, window)

    def queries(steps: Sequence[ConfigMap]) -> list[PlainConfig]:
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


def _window(user: UserConfig) -> list[PlainConfig]:
    """Config of the transform that cuts images far larger than training's crops."""
    if not node_kind(user.options.nodes).whole_images:
        return []
    size = pipelines.crop_size(user.train_dataset)
    return [dict(type=f'{SCOPE}.CutLargeImage', crop_size=size and list(size))]
