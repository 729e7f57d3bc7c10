"""Mix: the nodes of all images of a batch become one set of nodes on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mm_tuning_plugin.registry import MODELS
from mm_tuning_plugin.structures import NodeBatch


@MODELS.register_module()
class NodeDataPreprocessor(BaseDataPreprocessor):
    """Move nodes to the device, normalise their images, mix the batch.

    Mean, std and channel order are those of the user's own preprocessor. That one is not used
    itself: its class differs between the two stacks, and it does not accept stacks of patches.

    Args:
        mean: Per channel, in the order after the channel conversion; None: no normalisation.
        std: Per channel; given exactly when `mean` is.
        swap_channels: Reverse the three channels first (BGR to RGB, or RGB to BGR); images of
            another number of channels are left as they are, as mmseg leaves them.
        size: (H, W) to which node images are resized, pixels; for backbones that accept one size.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        swap_channels: bool = False,
        size: Sequence[int] | None = None,
    ) -> None:
        super().__init__(non_blocking=True)  # has an effect if the loader pins memory
        self.swap_channels = swap_channels
        self.size = None if size is None else (size[0], size[1])
        for name, values in (('mean', mean), ('std', std)):
            tensor = None if values is None else torch.tensor(values).float().view(1, -1, 1, 1)
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Mix a batch.

        Args:
            data: ``inputs``: list of (M_i, C, H_i, W_i) uint8; ``points``: list of (P_i, 3);
                ``labels``: list of (P_i,); ``meta``.
            training: Ignored.

        Returns:
            ``nodes`` (a `NodeBatch`) and ``counts``, the list of the P_i.
        """
        inputs = self.cast_data(data['inputs'])
        images = self._normalise(inputs)
        # The first coordinate is an index into the images of one sample; make it one of the batch.
        counts = [len(image) for image in inputs]
        starts = [sum(counts[:i]) for i in range(len(counts))]
        shift = torch.tensor([[start, 0, 0] for start in starts])
        points = torch.cat([p + s for p, s in zip(data['points'], shift)])
        labels = torch.cat(list(data['labels']))
        if self.size is not None:
            images, points = _resize(images, points, self.size)
        nodes = NodeBatch(images, self.cast_data(points), self.cast_data(labels))
        return {'nodes': nodes, 'counts': [len(label) for label in data['labels']]}

    def _normalise(self, inputs: Sequence[Tensor]) -> Tensor:
        """Normalise image stacks into one, padded below and right with 0, the mean, to one size.

        In place on the result: new memory for each operation costs several times the arithmetic.
        """
        height = max(images.shape[-2] for images in inputs)
        width = max(images.shape[-1] for images in inputs)
        counts = [len(images) for images in inputs]
        shape = (sum(counts), inputs[0].shape[1], height, width)
        batch = inputs[0].new_zeros(shape, dtype=torch.float32)
        for images, part in zip(inputs, batch.split(counts)):
            part = part[..., : images.shape[-2], : images.shape[-1]]
            swap = self.swap_channels and images.shape[1] == 3
            part.copy_(images.flip(1) if swap else images)
            if self.mean is not None:
                part.sub_(self.mean).div_(self.std)
        return batch


def _resize(images: Tensor, points: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Resize images, and move each point to the pixel that contains its old pixel's centre."""
    old = torch.tensor(images.shape[-2:])
    new = torch.tensor(size)
    moved = (2 * points[:, 1:] + 1) * new // (2 * old)  # floor((p + 0.5) * new / old), exactly
    if len(images):
        images = F.interpolate(images, size=size, mode='bilinear', align_corners=False)
    else:  # nothing to interpolate, but the backbone needs images of this size
        images = images.new_zeros((0, images.shape[1], *size))
    return images, torch.cat([points[:, :1], moved], dim=1)
