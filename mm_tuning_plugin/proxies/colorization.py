"""Colorization, a self-supervised proxy: predict the colour of an image from its grey version.

Shape legend: B images, H, W pixels, h, w cells of the finest level that is read, Q classes.

An ordinary mmengine model: any Runner and mmseg's own ``tools/train.py`` train it, and the weights
are under ``backbone.`` in its checkpoints. The backbone sees three equal channels, as a stock one
needs them, or a single one. For classes of hue and chroma at points of the image see `hue_chroma`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.functional.reading import read_at_points
from mm_tuning_plugin.paper.heads.columns import check_levels
from mm_tuning_plugin.proxies.chroma import (
    IGNORE_CLASS,
    chroma_classes,
    chroma_targets,
    class_weights,
    rgb_to_grey,
    rgb_to_lab,
    stack_padded,
)
from mm_tuning_plugin.proxies.classification import check_mode
from mm_tuning_plugin.proxies.normalising import NormalisingDataPreprocessor
from mm_tuning_plugin.proxies.trunk import read_levels
from mm_tuning_plugin.registry import MODELS

GREYS = {'luma': rgb_to_grey, 'average': lambda rgb: rgb.mean(dim=1, keepdim=True)}


@MODELS.register_module()
class ColorizationDataPreprocessor(NormalisingDataPreprocessor):
    """Splits images into the model's input, grey, and its target, chroma.

    With three numbers for `mean` and `std` the model sees grey three times, as a stock backbone
    needs it; with one, a single channel. The paper's system takes x / 255 - 0.4488 of the plain
    average of the channels: ``mean=[114.444], std=[255.0], grey='average'``.

    Args:
        grey: 'luma', BT.601, as OpenCV's grey is; or 'average' of the three channels.
        kwargs: Those of ``NormalisingDataPreprocessor``.

    Raises:
        UserError: If `grey` is neither; see also ``NormalisingDataPreprocessor``.
    """

    CHANNELS = (1, 3)

    def __init__(self, *args: Any, grey: str = 'luma', **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if grey not in GREYS:
            raise UserError('grey', f'{grey!r} found', f'expected one of {", ".join(GREYS)}')
        self.grey = grey

    def forward(self, data: dict, training: bool = False) -> dict:
        """Splits a batch.

        Args:
            data: ``inputs``, a list of (3, H, W) images or one (B, 3, H, W) tensor, BGR in
                [0, 255], as mmseg's ``PackSegInputs`` gives them. Anything else is left out.
            training: Makes no difference.

        Returns:
            ``inputs`` (B, 3 or 1, H, W): grey, normalised, 0 on padding; ``chroma``
            (B, 2, H, W): a and b of Lab; ``valid`` (B, 1, H, W): 0 on padding.
        """
        images, valid = stack_padded(list(self.cast_data(data['inputs'])))
        rgb = images.flip(1) / 255.0
        inputs = valid * (255.0 * GREYS[self.grey](rgb) - self.mean) / self.std
        return {'inputs': inputs, 'chroma': self._targets(rgb), 'valid': valid}

    def _targets(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 2, H, W), the target."""
        return rgb_to_lab(rgb)[:, 1:]


class ChromaHead(nn.Module):
    """Scores of the classes of chroma from several levels of a backbone.

    Every level is projected to ``channels``, resized to the finest, and added; one 3x3 convolution
    and a linear layer follow.

    Args:
        in_channels: Channels of each level.
        channels: Width of the head.
        num_classes: Q.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, num_classes: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels))
            for width in in_channels
        )
        self.fuse = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, num_classes, 1),
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels (B, C_i, h_i, w_i) -> scores (B, Q, h, w), at the size of the finest level."""
        size = max(tuple(level.shape[2:]) for level in levels)
        total = 0
        for lateral, level in zip(self.lateral, levels):
            total = total + F.interpolate(
                lateral(level), size=size, mode='bilinear', align_corners=False
            )
        return self.fuse(total)

    def at_points(
        self, levels: Sequence[Tensor], points: Tensor, image_size: tuple[int, int]
    ) -> Tensor:
        """Levels and points (N, 3) of the image (H, W) -> scores (N, Q), read off the map."""
        return read_at_points(self(levels), points, image_size)


@MODELS.register_module()
class ColorizationModel(BaseModel):
    """Classifies the chroma of every cell of a feature map, given the grey image.

    Args:
        backbone: Config of a backbone with as many input channels as the preprocessor gives, that
            returns a tuple of levels.
        in_index: The levels that the head reads; the finest sets the stride of the targets.
        in_channels: Channels of each of them.
        channels: Width of the head.
        step: Width of a class of chroma in units of Lab.
        rebalance: Share of the uniform distribution in the weights of the classes, in (0, 1]; None
            or 1 gives all the same weight. See ``class_weights``.
        momentum: Of the running estimate of how frequent the classes are, per iteration.
        data_preprocessor: Config. None: ``ColorizationDataPreprocessor`` with its defaults.
        init_cfg: As every mmengine model has it.

    Raises:
        UserError: If ``in_index`` and ``in_channels`` differ in length, or a number is out of
            range.
    """

    proxy_task = True

    def __init__(
        self,
        backbone: dict,
        in_index: Sequence[int],
        in_channels: Sequence[int],
        channels: int = 64,
        step: float = 20.0,
        rebalance: float | None = 0.5,
        momentum: float = 0.99,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if data_preprocessor is None:
            data_preprocessor = {'type': 'mm_tuning_plugin.ColorizationDataPreprocessor'}
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        check_levels(in_channels, in_index)
        for name, value in (('rebalance', rebalance), ('momentum', momentum)):
            if value is not None and not 0 < value <= 1:
                raise UserError(name, f'{value} found', 'expected a number in (0, 1]')
        lookup, centres = chroma_classes(step)
        frequency = torch.full((len(centres),), 1.0 / len(centres))
        self.backbone = MODELS.build(backbone)
        self.head = ChromaHead(in_channels, channels, len(centres))
        self.in_index, self.in_channels = tuple(in_index), tuple(in_channels)
        self.step = step
        self.rebalance, self.momentum = rebalance, momentum
        self.register_buffer('lookup', lookup, persistent=False)
        self.register_buffer('centres', centres, persistent=False)
        self.register_buffer('frequency', frequency)
        self.register_buffer('num_counted', torch.zeros((), dtype=torch.long))

    def forward(
        self,
        inputs: Tensor,
        chroma: Tensor | None = None,
        valid: Tensor | None = None,
        mode: str = 'tensor',
    ) -> Tensor | dict[str, Tensor] | list[Tensor]:
        """What ``ColorizationDataPreprocessor`` returns goes in.

        Args:
            inputs: (B, 3 or 1, H, W) grey, normalised.
            chroma: (B, 2, H, W) a and b; for the loss only.
            valid: (B, 1, H, W), 0 on padding; for the loss only.
            mode: 'tensor', 'predict' or 'loss'.

        Returns:
            Scores (B, Q, h, w); or for each image (2, h, w), a and b of its likeliest classes; or
            the losses.

        Raises:
            ValueError: On another mode, or if the loss is asked for without its targets.
            UserError: If the backbone's input or outputs do not fit.
        """
        check_mode(mode, chroma, 'chroma')
        check_mode(mode, valid, 'valid')
        scores = self.head(read_levels(self.backbone, inputs, self.in_index, self.in_channels))
        if mode == 'tensor':
            return scores
        if mode == 'predict':
            return list(self.centres[scores.argmax(dim=1)].permute(0, 3, 1, 2))
        return self.loss(scores, chroma, valid)

    def loss(self, scores: Tensor, chroma: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Cross-entropy over the cells, weighted by class; 0 where all cells are padding.

        Args:
            scores: (B, Q, h, w).
            chroma: (B, 2, H, W).
            valid: (B, 1, H, W).

        Returns:
            ``loss_chroma``, and ``acc_chroma``, the percentage of cells with the right class.
        """
        target = chroma_targets(chroma, valid, self.lookup, self.step, tuple(scores.shape[2:]))
        self._count(target)
        weights = None
        if self.rebalance is not None:
            weights = class_weights(self.frequency, self.rebalance)
        scores = scores.float()
        losses = F.cross_entropy(
            scores, target, weights, ignore_index=IGNORE_CLASS, reduction='none'
        )
        known = target != IGNORE_CLASS
        count = known.sum().clamp(min=1)
        hits = (scores.detach().argmax(dim=1) == target).sum()
        return {'loss_chroma': losses.sum() / count, 'acc_chroma': 100.0 * hits / count}

    @torch.no_grad()
    def _count(self, target: Tensor) -> None:
        """Moves the running estimate of the classes' frequencies towards those of a batch.

        The first batches are averaged evenly, so that the estimate does not start from a guess.
        """
        known = target[target != IGNORE_CLASS]
        if not self.training or known.numel() == 0:
            return
        now = torch.bincount(known, minlength=len(self.frequency)) / known.numel()
        self.num_counted += 1
        share = (1.0 / self.num_counted.to(self.frequency)).clamp(min=1.0 - self.momentum)
        self.frequency += share * (now.to(self.frequency) - self.frequency)
