"""The head of FCN-32s: two wide layers on the last pooling, and a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from mm_tuning_plugin.paper.backbones.chain import gaussian, norm
from mm_tuning_plugin.registry import MODELS


@MODELS.register_module()
class FCN32sHead(BaseDecodeHead):
    """fc6, fc7, each with ReLU and dropout, and fc8, on one level; mmseg enlarges the scores.

    Long et al., "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015, with the
    paddings of the released networks of Zhan et al. (AAAI 2018), so that scores lie where the level
    does: 6 x 6 (AlexNet) gives one row and column more than the level, 7 x 7 (VGG) as many.

    Args:
        in_channels: Of the level.
        channels: Width of fc6 and fc7.
        kernel_size: Of fc6: 6 or 7 in the released networks.
        norm_cfg: Of norms after fc6 and fc7; None: none. AlexNet has them without affine
            parameters.
        dropout_ratio: After fc6 and fc7.
        **kwargs: As every mmseg decode head has them.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 4096,
        *,
        kernel_size: int = 7,
        norm_cfg: dict | None = None,
        dropout_ratio: float = 0.5,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault('init_cfg', None)  # mmseg's default initialises the classifier again
        super().__init__(
            in_channels, channels, norm_cfg=norm_cfg, dropout_ratio=dropout_ratio, **kwargs
        )
        layers: list[nn.Module] = []
        for width, kernel in ((in_channels, kernel_size), (channels, 1)):
            convolution = nn.Conv2d(width, channels, kernel, padding=kernel // 2)
            layers.append(gaussian(convolution, 0.005, 0.1))
            if norm_cfg is not None:
                layers.append(norm(norm_cfg, channels))
            layers += [nn.ReLU(inplace=True), nn.Dropout(dropout_ratio)]
        self.fc = nn.Sequential(*layers)
        self.dropout = None  # follows each layer instead
        gaussian(self.conv_seg, 0.01, 0.0)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Levels (B, C, h, w) of the backbone to scores (B, num_classes, h', w')."""
        return self.cls_seg(self.fc(self._transform_inputs(inputs)))
