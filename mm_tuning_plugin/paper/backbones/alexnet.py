"""AlexNet with BatchNorm, as the paper's AlexNet systems have it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.paper.backbones.chain import ChainBackbone, dilated, gaussian, norm, pooling
from mm_tuning_plugin.registry import MODELS

NAMES = ('input', 'conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'pool5', 'fc6', 'fc7')
# Name, channels, kernel, stride, padding, groups, and the constant that biases begin with.
CONVOLUTIONS = (
    ('conv1', 96, 11, 4, 5, 1, 0.0),
    ('conv2', 256, 5, 1, 2, 2, 0.1),
    ('conv3', 384, 3, 1, 1, 1, 0.0),
    ('conv4', 384, 3, 1, 1, 2, 0.1),
    ('conv5', 256, 3, 1, 1, 2, 0.1),
)
POOLED = ('conv1', 'conv2', 'conv5')
STD, STD_FC, FC = 0.01, 0.005, 4096


@MODELS.register_module()
class AlexNetBN(ChainBackbone):
    """AlexNet with BatchNorm without affine parameters on every convolution.

    Layers, paddings, fillers as in the released networks of Zhan et al. (AAAI 2018; github
    XiaohangZhan/mix-and-match at 8d4c9df). On a patch of 128 pixels pool5 is 4 x 4 x 256, 4096
    numbers; of the jigsaw variant, whose poolings are padded by 1 and come before the local
    response normalisation, 5 x 5 x 256, 6400.

    Args:
        variant: 'colorize', which the random start shares, or 'jigsaw'.
        in_channels: 1 (grey) or 3.
        out_indices: Outputs that are given, of 'input', 'conv1' to 'conv5' (after norm and ReLU),
            'pool5', 'fc6' and 'fc7'; the last three of these with `with_fc` alone.
        with_fc: Whether fc6 (6 x 6) and fc7 belong to the backbone, as convolutions; else they are
            the head's (`FCN32sHead`).
        output_stride: Of pool5: 32, or 16 or 8, where the last poolings keep the resolution and
            what follows is dilated: about the same function on a finer grid, with the same weights.
        width: Multiplies all channels; for small networks.
        norm_cfg: Of the norms, without `affine`: they have no parameters.
        norm_eval: Whether norms stay in evaluation mode in training.
        init_cfg: As every mmengine module has it.

    Raises:
        UserError: An argument is out of range.
    """

    def __init__(
        self,
        variant: str = 'colorize',
        in_channels: int = 3,
        out_indices: Sequence[int] = (6,),
        with_fc: bool = False,
        output_stride: int = 32,
        width: float = 1.0,
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(
            NAMES if with_fc else NAMES[:7], in_channels, out_indices, norm_eval, init_cfg
        )
        if variant not in ('colorize', 'jigsaw'):
            raise UserError(
                'AlexNetBN.variant', f'{variant!r} found', "expected 'colorize' or 'jigsaw'"
            )
        if output_stride not in (8, 16, 32):
            raise UserError(
                'AlexNetBN.output_stride', f'{output_stride!r} found', 'expected 8, 16 or 32'
            )
        if (norm_cfg or {}).get('affine'):
            raise UserError(
                'AlexNetBN.norm_cfg',
                f'{norm_cfg} found',
                'expected norms without affine parameters',
            )
        self.norm_cfg = dict(norm_cfg or {'type': 'BN'}, affine=False)
        jigsaw = variant == 'jigsaw'
        stride, dilation = 1, 1
        for number, (name, size, kernel, step, padding, groups, bias) in enumerate(CONVOLUTIONS, 1):
            size = 2 * max(1, round(width * size / 2))
            # The jigsaw nets of the release begin with larger biases.
            start = 10 * bias if jigsaw else bias
            convolution = nn.Conv2d(in_channels, size, kernel, step, padding, groups=groups)
            self._add_convolution(name, dilated(gaussian(convolution, STD, start), dilation), size)
            in_channels, stride = size, stride * step
            if name not in POOLED:
                continue
            response = nn.LocalResponseNorm(5, 1e-4, 0.75) if number < 3 else None
            keep = 2 * stride > output_stride
            pool = pooling(3, 1, 1) if keep else pooling(3, 2, 1 if jigsaw else 0)
            dilation, stride = (2 * dilation, stride) if keep else (dilation, 2 * stride)
            steps = [(f'pool{number}', pool), (f'lrn{number}', response)]
            for label, module in steps if jigsaw else reversed(steps):
                if module is not None:
                    self.add(label, module, 'pool5' if label == 'pool5' else None)
        if with_fc:
            hidden = 2 * max(1, round(width * FC / 2))
            for name, kernel in (('fc6', 6), ('fc7', 1)):
                convolution = nn.Conv2d(in_channels, hidden, kernel, padding=kernel // 2)
                self.add(name, gaussian(convolution, STD_FC, 0.1))
                self.add(f'bn_{name}', norm(self.norm_cfg, hidden))
                self.add(f'relu_{name}', nn.ReLU(inplace=True))
                self.add(f'dropout_{name}', nn.Dropout(0.5), name)
                in_channels = hidden

    def _add_convolution(self, name: str, convolution: nn.Conv2d, channels: int) -> None:
        self.add(name, convolution)
        self.add(f'bn{name[4:]}', norm(self.norm_cfg, channels))
        self.add(f'relu{name[4:]}', nn.ReLU(inplace=True), name)
