"""Passing images through a proxy's backbone, and saying in one line where they do not fit.

Shape legend: N images, C channels, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.models.channel_layout import bring_forward, channel_dim, told_by_timm
from mm_tuning_plugin.models.outputs import as_maps
from mm_tuning_plugin.paper.heads.columns import select_levels


def read_levels(
    backbone: nn.Module, images: Tensor, in_index: Sequence[int], in_channels: Sequence[int]
) -> list[Tensor]:
    """Images (N, C, H, W) -> the levels that a proxy reads, each (N, in_channels, h, w).

    If a map has its channels in another dimension, they are found by their number.

    Raises:
        UserError: A level does not exist, or has another number of channels; or the backbone takes
            another number of them, or gives no maps.
    """
    maps = as_maps(run_backbone(backbone, images), backbone)
    told, _ = told_by_timm(backbone, len(maps))
    known = {index % len(maps): channels for index, channels in zip(in_index, in_channels)}
    brought = [
        bring_forward(level, channel_dim(level.shape, images.shape[-2:], (), known.get(i), told))
        for i, level in enumerate(maps)
    ]
    return select_levels(brought, in_index, in_channels)


def run_backbone(backbone: nn.Module, images: Tensor) -> Sequence[Tensor]:
    """Images (N, C, H, W) -> the backbone's outputs.

    Raises:
        UserError: If its first convolution takes another number of channels.
    """
    try:
        return backbone(images)
    except RuntimeError as error:
        stem = next((part for part in backbone.modules() if isinstance(part, nn.Conv2d)), None)
        if stem is None or stem.in_channels == images.shape[1]:
            raise
        raise UserError(
            'model.backbone',
            f'a {type(backbone).__name__} of {stem.in_channels} input channels found',
            f'expected {images.shape[1]}, as many as the preprocessor gives (for colorization mean '
            'and std say how many, by 1 or 3 numbers)',
        ) from error
