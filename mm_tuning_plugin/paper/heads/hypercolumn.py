"""A decode head that reads many levels at a pixel and classifies what it reads.

Shape legend: M images, H, W pixels, P points of an image, N points or cells altogether, L levels
of C_l channels on (h_l, w_l) cells, D = sum of C_l, K hidden channels, Q classes.

Source: Larsson, Maire, Shakhnarovich, "Colorization as a Proxy Task for Visual Understanding", CVPR
2017, whose head the paper fine-tunes with. Deviations from the released system: points are drawn
over labelled pixels of the whole crop, not over all pixels at least 96 from its border; levels are
read at half-pixel centres, where the release reads cell y / stride, a half cell off; the hidden
layer starts as torch's linear layers do, not with a deviation of 1e-4, and the classifier as
mmseg's, not at 0 (`init_cfg` can say so).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.functional.points import sample_labelled_pixels
from mm_tuning_plugin.paper.heads.columns import (
    HypercolumnLinear,
    as_maps,
    check_levels,
    finest_grid,
    select_levels,
)
from mm_tuning_plugin.registry import MODELS

# Arguments of every decode head that have one meaning only here.
ONLY = {
    'input_transform': 'multiple_select',
    'align_corners': False,
    'conv_cfg': None,
    'norm_cfg': None,
    'act_cfg': {'type': 'ReLU'},
}


@MODELS.register_module()
class HypercolumnHead(BaseDecodeHead):
    """One hidden layer over a hypercolumn: at a few points in training, in tiles over all cells.

    In training each image gives `points` labelled pixels, drawn without replacement from torch's
    generator; of fewer labelled pixels all are taken, and the rest of the points are ignored, as
    unlabelled pixels of a whole map are: each labelled point weighs the same, and an image without
    labels adds a loss of 0 that still reaches every parameter.

    The prediction has the grid of the finest level that is read, or one `stride` times coarser,
    and mmseg resizes it to the image. With the image itself among the levels it is per pixel.
    Memory does not hang on the image's hypercolumn: see `HypercolumnLinear.over_grid`.

    Args:
        in_channels: C_l of each level that is read.
        in_index: Which outputs of the backbone these are.
        channels: K.
        num_classes: Q.
        points: P.
        stride: Side of the prediction's cells, in cells of the finest level.
        tile: Cells that are predicted at once.
        dropout_ratio: Between the hidden layer and the classifier.
        kwargs: Of mmseg's `BaseDecodeHead`: losses, `ignore_index`, `init_cfg` and others.

    Raises:
        UserError: Levels and channels do not pair up, a number is out of range, or an argument
            asks for what the head does not do.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_index: Sequence[int],
        channels: int = 1024,
        *,
        num_classes: int,
        points: int = 256,
        stride: int = 1,
        tile: int = 4096,
        dropout_ratio: float = 0.0,
        **kwargs: Any,
    ) -> None:
        check_levels(in_channels, in_index)
        for name, value in (('points', points), ('stride', stride), ('tile', tile)):
            if not isinstance(value, int) or value < 1:
                raise UserError(name, f'{value!r} found', 'expected a whole number of at least 1')
        for name, only in ONLY.items():
            given = kwargs.pop(name, only)
            if given != only:
                raise UserError(
                    name, f'{given!r} found', f'expected {only!r} for a HypercolumnHead'
                )
        super().__init__(
            list(in_channels),
            channels,
            num_classes=num_classes,
            in_index=list(in_index),
            input_transform='multiple_select',
            dropout_ratio=0.0,
            **kwargs,
        )
        self.points, self.stride, self.tile = points, stride, tile
        self.dropout_ratio = dropout_ratio
        self.dropout = nn.Dropout(dropout_ratio)  # of (N, K): mmseg's drops whole maps
        self.hidden = HypercolumnLinear(in_channels, channels)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """All outputs of the backbone -> scores (M, Q, h, w) on the prediction's grid.

        Raises:
            UserError: An output that is to be read does not exist or has other channels.
        """
        levels = select_levels(inputs, self.in_index, self.in_channels)
        size = finest_grid(levels, self.stride)
        hidden = self.hidden.over_grid(levels, size, self.tile)
        return as_maps([self.cls_seg(tile) for tile in hidden], size)

    def cls_seg(self, feat: Tensor) -> Tensor:
        """What the hidden layer gives, (N, K) -> scores (N, Q)."""
        feat = self.dropout(F.relu(feat))
        return F.linear(feat, self.conv_seg.weight.flatten(1), self.conv_seg.bias)

    def loss(
        self, inputs: Sequence[Tensor], batch_data_samples: list[SegDataSample], train_cfg: dict
    ) -> dict[str, Tensor]:
        """Losses and accuracy at the points: mmseg's own, on maps of P x 1 pixels.

        Args:
            inputs: All outputs of the backbone.
            batch_data_samples: With `gt_sem_seg` (1, H, W) of each image.
            train_cfg: Not used.

        Raises:
            UserError: As `forward`; or there are more points than an image has pixels.
        """
        levels = select_levels(inputs, self.in_index, self.in_channels)
        seg_maps = self._stack_batch_gt(batch_data_samples).squeeze(1)  # (M, H, W)
        ignore_index = -1 if self.ignore_index is None else self.ignore_index
        points, labels = sample_labelled_pixels(seg_maps, self.points, ignore_index=ignore_index)
        scores = self.cls_seg(self.hidden(levels, points, tuple(seg_maps.shape[1:])))  # (M * P, Q)
        scores = scores.view(*labels.shape, -1).transpose(1, 2)[..., None]  # (M, Q, P, 1)
        samples = [SegDataSample(gt_sem_seg=PixelData(data=row[None, :, None])) for row in labels]
        return self.loss_by_feat(scores, samples)
