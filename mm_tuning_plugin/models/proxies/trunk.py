"""Passing images through a proxy's backbone, and saying in one line where they do not fit.

Shape legend: N images, C channels, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mm_tuning_plugin.errors import UserError


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
            f'backbone: a {type(backbone).__name__} of {stem.in_channels} input channels found, '
            f'expected {images.shape[1]}, as many as the preprocessor gives; for colorization mean '
            'and std say how many (1 or 3 numbers)'
        ) from error
