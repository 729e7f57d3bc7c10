"""What the paper's two networks share: a chain of named steps, some of whose outputs are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mm_tuning_plugin.errors import UserError


class ChainBackbone(BaseModule):
    """Convolutions, norms and poolings one after the other.

    Sub-classes add their modules, and list the steps: names of modules, which are run in order.
    The result of the last step of a named output is that output.

    Args:
        names: Of the outputs, in order, 'input' first.
        in_channels: 1 or 3.
        out_indices: Which of the outputs are given, indices into `names`; negative ones count from
            the end.
        norm_eval: Whether norms stay in evaluation mode in training.
        init_cfg: As every mmengine module has it.

    Raises:
        UserError: An index or a number of channels is out of range.
    """

    def __init__(
        self,
        names: Sequence[str],
        in_channels: int,
        out_indices: Sequence[int],
        norm_eval: bool,
        init_cfg: dict | list | None,
    ) -> None:
        super().__init__(init_cfg)
        kind = type(self).__name__
        if in_channels not in (1, 3):
            raise UserError(f'{kind}.in_channels', f'{in_channels!r} found', 'expected 1 or 3')
        wrong = [i for i in out_indices if not -len(names) <= i < len(names)]
        if wrong or not len(out_indices):
            listed = ', '.join(f'{i} {name}' for i, name in enumerate(names))
            raise UserError(
                f'{kind}.out_indices', f'{list(out_indices)} found', f'expected some of {listed}'
            )
        self.names = tuple(names)
        self.in_channels = in_channels
        self.out_indices = tuple(out_indices)
        self.norm_eval = norm_eval
        self.wanted = {self.names[i] for i in out_indices}
        self.steps: list[tuple[str, str | None]] = []

    def add(self, name: str, module: nn.Module, output: str | None = None) -> None:
        """Append a step; its result is the output of that name, if one is given."""
        self.add_module(name, module)
        self.steps.append((name, output))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (B, C, H, W) to the outputs that `out_indices` names.

        Raises:
            UserError: The images have another number of channels than the first convolution.
        """
        if images.shape[1] != self.in_channels:
            raise UserError(
                type(self).__name__,
                f'images of {images.shape[1]} channels found',
                f'expected {self.in_channels} channels (in_channels)',
            )
        outputs = {'input': images}
        left = self.wanted - {'input'}
        for name, output in self.steps:
            if not left:
                break
            images = getattr(self, name)(images)
            if output is not None:
                outputs[output] = images
                left = left - {output}
        return tuple(outputs[self.names[i]] for i in self.out_indices)

    def train(self, mode: bool = True) -> ChainBackbone:
        """Set the mode; with `norm_eval` norms stay in evaluation."""
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def norm(cfg: dict[str, Any], channels: int) -> nn.Module:
    """A norm of a config, as mmcv builds it."""
    return build_norm_layer(cfg, channels)[1]


def pooling(kernel: int, stride: int, padding: int = 0) -> nn.MaxPool2d:
    """Max pooling that rounds sizes up, as Caffe does."""
    return nn.MaxPool2d(kernel, stride, padding, ceil_mode=True)


def dilated(module: nn.Conv2d, dilation: int) -> nn.Conv2d:
    """The same convolution with its taps further apart, and padded for the same size."""
    if dilation > 1:
        grown = [(size - 1) * (dilation - 1) for size in module.kernel_size]
        padding = [p + extra // 2 for p, extra in zip(module.padding, grown)]
        module.dilation, module.padding = (dilation, dilation), (padding[0], padding[1])
    return module


def gaussian(module: nn.Conv2d, std: float, bias: float) -> nn.Conv2d:
    """Initialise weights from a normal distribution and biases with a constant."""
    with torch.no_grad():
        module.weight.normal_(0, std)
        module.bias.fill_(bias)
    return module
