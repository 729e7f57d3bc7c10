"""VGG-16 with BatchNorm, as the paper's VGG systems have it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.paper.backbones.chain import ChainBackbone, dilated, norm, pooling
from mm_tuning_plugin.registry import MODELS

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions
CONVOLUTIONS = tuple(
    f'conv{block}_{number}'
    for block, (_, count) in enumerate(BLOCKS, 1)
    for number in range(1, count + 1)
)
NAMES = ('input', *CONVOLUTIONS, 'pool5', 'fc6', 'fc7', 'conv8', 'conv9')
FC, EXTRA = 4096, 1024


@MODELS.register_module()
class VGG16BN(ChainBackbone):
    """VGG-16 with BatchNorm, affine, on every convolution.

    Layers and fillers as in the released networks of Zhan et al. (AAAI 2018; github
    XiaohangZhan/mix-and-match at 8d4c9df). On a patch of 128 pixels pool5 is 4 x 4 x 512, 8192
    numbers.

    Args:
        in_channels: 1 (grey) or 3.
        out_indices: Outputs that are given, of 'input', 'conv1_1' to 'conv5_3' (behind norm and
            ReLU), 'pool5', and, where they are part of it, 'fc6', 'fc7', 'conv8', 'conv9' (the last
            two behind a pooling: strides 64 and 128).
        with_fc: Whether fc6 (7 x 7) and fc7 belong to the backbone, as convolutions with dropout
            and without norm; else they are the head's (`FCN32sHead`).
        extra_blocks: 0, or 2 further convolutions of 1024 channels, each with a pooling, behind
            fc7: the colorization network has them.
        output_stride: Of pool5: 32, or 16 or 8, where the last poolings, then 3 x 3, keep the
            resolution and what follows is dilated: not quite the same function on a finer grid,
            with the same weights.
        width: Multiplies all channels; for small networks.
        norm_cfg: Of the norms.
        norm_eval: Whether norms stay in evaluation mode in training.
        init_cfg: As every mmengine module has it.

    Raises:
        UserError: An argument is out of range.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_indices: Sequence[int] = (14,),
        with_fc: bool = False,
        extra_blocks: int = 0,
        output_stride: int = 32,
        width: float = 1.0,
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        if extra_blocks not in (0, 2) or (extra_blocks and not with_fc):
            raise UserError(
                'VGG16BN.extra_blocks',
                f'{extra_blocks!r} found with with_fc={with_fc}',
                'expected 0, or 2 with with_fc=True',
            )
        if output_stride not in (8, 16, 32):
            raise UserError(
                'VGG16BN.output_stride', f'{output_stride!r} found', 'expected 8, 16 or 32'
            )
        known = len(NAMES) if extra_blocks else len(NAMES) - 2 if with_fc else len(NAMES) - 4
        super().__init__(NAMES[:known], in_channels, out_indices, norm_eval, init_cfg)
        self.norm_cfg = dict(norm_cfg or {'type': 'BN'})
        stride, dilation = 1, 1
        for block, (channels, count) in enumerate(BLOCKS, 1):
            size = max(1, round(width * channels))
            for number in range(1, count + 1):
                name = f'{block}_{number}'
                convolution = dilated(_xavier(in_channels, size, 3), dilation)
                self.add(f'conv{name}', convolution)
                self.add(f'bn{name}', norm(self.norm_cfg, size))
                self.add(f'relu{name}', nn.ReLU(inplace=True), f'conv{name}')
                in_channels = size
            keep = 2 * stride > output_stride
            pool = pooling(3, 1, 1) if keep else pooling(2, 2)
            dilation, stride = (2 * dilation, stride) if keep else (dilation, 2 * stride)
            self.add(f'pool{block}', pool, 'pool5' if block == 5 else None)
        if with_fc:
            hidden = max(1, round(width * FC))
            for name, kernel in (('fc6', 7), ('fc7', 1)):
                self.add(name, _xavier(in_channels, hidden, kernel))
                self.add(f'relu_{name}', nn.ReLU(inplace=True))
                self.add(f'dropout_{name}', nn.Dropout(0.5), name)
                in_channels = hidden
        for number in range(extra_blocks):
            name, size = f'conv{8 + number}', max(1, round(width * EXTRA))
            self.add(name, _xavier(in_channels, size, 3))
            self.add(f'relu_{name}', nn.ReLU(inplace=True))
            self.add(f'pool_{name}', pooling(2, 2), name)
            in_channels = size


def _xavier(in_channels: int, channels: int, kernel: int) -> nn.Conv2d:
    """A convolution of the same size with Caffe's Xavier filler: uniform, by the inputs alone."""
    convolution = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2)
    bound = (3.0 / (in_channels * kernel * kernel)) ** 0.5
    nn.init.uniform_(convolution.weight, -bound, bound)
    nn.init.zeros_(convolution.bias)
    return convolution
