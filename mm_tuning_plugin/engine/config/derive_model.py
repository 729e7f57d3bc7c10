"""The model of stage one."""

from __future__ import annotations

from mm_tuning_plugin.config_types import PlainConfig
from mm_tuning_plugin.engine.config.initial_weights import with_needed_arguments
from mm_tuning_plugin.engine.config.user_config import UserConfig
from mm_tuning_plugin.losses.base import loss_config, needs_classifier
from mm_tuning_plugin.nodes.base import embedding_config
from mm_tuning_plugin.registry import SCOPE


def tuner_config(user: UserConfig) -> PlainConfig:
    """Config of the tuner: preprocessor, backbone, embedding head, loss."""
    options, norm, size = user.options, user.normalisation, user.image_size
    embedding: PlainConfig = dict(projection_channels=options.projection_channels)
    if needs_classifier(options.loss):
        embedding = dict(projection_channels=user.num_classes, hidden_channels=0, normalise=False)
    embedding.update(embedding_config(vars(options)))
    return dict(
        type=f'{SCOPE}.MixAndMatchTuner',
        data_preprocessor=dict(
            type=f'{SCOPE}.NodeDataPreprocessor',
            mean=norm.mean,
            std=norm.std,
            swap_channels=norm.swap_channels,
            size=size,
        ),
        backbone=with_needed_arguments(user.backbone, user.checkpoint, options, user.scope),
        embedding=embedding,
        criterion=_criterion(user),
        in_index=user.levels,
        seed=user.seed or 0,
        probe_size=size or [128, 128],
        checkpoint=user.checkpoint,
        min_matched=options.min_matched,
        allow_pickle=options.allow_pickle,
        prefix=options.checkpoint_prefix,
        chunk_size=options.chunk_size,
        graph_groups=options.graph_groups,
    )


def _criterion(user: UserConfig) -> PlainConfig:
    sizes = dict(num_classes=user.num_classes, channels=None)
    return loss_config(user.options.loss, {**vars(user.options), **sizes})
