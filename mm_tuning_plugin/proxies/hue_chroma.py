"""Colorization by hue and chroma: predict their histograms around some pixels from the grey image.

Shape legend: B images, H, W pixels, P points of an image, N = B * P, S bins, (h, w) the grid of the
finest level that is read.

An ordinary mmengine model, like `colorization`: the weights are under ``backbone.`` in its
checkpoints. Source and arithmetic of the targets: `hues`. The loss, Larsson's: cross-entropy with
the histogram of chroma, plus that with the histogram of hue times `hue_weight` times the chroma.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.functional.points import sample_labelled_pixels
from mm_tuning_plugin.paper.heads.columns import (
    HypercolumnLinear,
    as_maps,
    check_levels,
    finest_grid,
)
from mm_tuning_plugin.proxies.classification import check_mode, check_positive
from mm_tuning_plugin.proxies.colorization import ChromaHead, ColorizationDataPreprocessor
from mm_tuning_plugin.proxies.hues import bin_centres, rgb_to_hue_chroma, window_histograms
from mm_tuning_plugin.proxies.trunk import read_levels
from mm_tuning_plugin.registry import MODELS

IGNORED = 255


@MODELS.register_module()
class HueChromaDataPreprocessor(ColorizationDataPreprocessor):
    """Splits images into grey, hue and chroma.

    Arguments are those of `ColorizationDataPreprocessor`; ``chroma`` (B, 2, H, W) of what it
    returns is hue in [0, 1) and chroma in [0, 1].
    """

    def _targets(self, rgb: Tensor) -> Tensor:
        return rgb_to_hue_chroma(rgb)


class HypercolumnChromaHead(nn.Module):
    """One hidden layer over all levels, read at a pixel.

    Args:
        in_channels: Channels of each level.
        channels: Width of the hidden layer.
        num_scores: Scores of a pixel.
        tile: Cells of a dense prediction that are computed at once.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int, num_scores: int, tile: int = 4096
    ) -> None:
        super().__init__()
        self.tile = tile
        self.hidden = HypercolumnLinear(in_channels, channels)
        self.classify = nn.Linear(channels, num_scores)

    def at_points(
        self, levels: Sequence[Tensor], points: Tensor, image_size: tuple[int, int]
    ) -> Tensor:
        """Levels (B, C_i, h_i, w_i) and points (N, 3) of the image (H, W) -> scores (N, Q)."""
        return self.classify(F.relu(self.hidden(levels, points, image_size)))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels (B, C_i, h_i, w_i) -> scores (B, Q, h, w), at the size of the finest level."""
        size = finest_grid(levels, 1)
        hidden = self.hidden.over_grid(levels, size, self.tile)
        return as_maps([self.classify(F.relu(tile)) for tile in hidden], size)


HEADS = {'hypercolumn': HypercolumnChromaHead, 'convolutional': ChromaHead}


@MODELS.register_module()
class HueChromaModel(BaseModel):
    """Classifies hue and chroma around pixels, given the grey image.

    Args:
        backbone: Config of a backbone with as many input channels as the preprocessor gives.
        in_index: The levels that the head reads.
        in_channels: Channels of each of them.
        channels: Width of the head.
        head: 'hypercolumn', which reads the levels at the points, or 'convolutional', whose scores
            of the whole image are read there.
        points: P, drawn over the pixels of an image without replacement.
        bins: S.
        window: Side of the square of a histogram in pixels, odd.
        hue_weight: Of the loss of hue.
        data_preprocessor: Config. None: ``HueChromaDataPreprocessor`` with its defaults.
        init_cfg: As every mmengine model has it.

    Raises:
        UserError: If the levels and channels do not pair up, or an argument is out of range.
    """

    proxy_task = True

    def __init__(
        self,
        backbone: dict,
        in_index: Sequence[int],
        in_channels: Sequence[int],
        channels: int = 1024,
        head: str = 'hypercolumn',
        points: int = 256,
        bins: int = 32,
        window: int = 7,
        hue_weight: float = 5.0,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if data_preprocessor is None:
            data_preprocessor = {'type': 'mm_tuning_plugin.HueChromaDataPreprocessor'}
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        check_levels(in_channels, in_index)
        check_positive(channels=channels, points=points, bins=bins, window=window)
        if head not in HEADS:
            raise UserError('head', f'{head!r} found', f'expected one of {", ".join(HEADS)}')
        if window % 2 == 0:
            raise UserError('window', f'{window} found', 'expected an odd number of pixels')
        if hue_weight < 0:
            raise UserError('hue_weight', f'{hue_weight} found', 'expected at least 0')
        if not isinstance(self.data_preprocessor, HueChromaDataPreprocessor):
            raise UserError(
                'data_preprocessor',
                f'{type(self.data_preprocessor).__name__} found',
                'expected HueChromaDataPreprocessor',
            )
        self.backbone = MODELS.build(backbone)
        self.head = HEADS[head](in_channels, channels, 2 * bins)
        self.in_index, self.in_channels = tuple(in_index), tuple(in_channels)
        self.points, self.bins, self.window = points, bins, window
        self.hue_weight = hue_weight
        self.register_buffer('centres', bin_centres(bins), persistent=False)

    def forward(
        self,
        inputs: Tensor,
        chroma: Tensor | None = None,
        valid: Tensor | None = None,
        mode: str = 'tensor',
    ) -> Tensor | dict[str, Tensor] | list[Tensor]:
        """What ``HueChromaDataPreprocessor`` returns goes in.

        Args:
            inputs: (B, 1 or 3, H, W) grey, normalised.
            chroma: (B, 2, H, W) hue and chroma; for the loss only.
            valid: (B, 1, H, W), 0 on padding; for the loss only.
            mode: 'tensor', 'predict' or 'loss'.

        Returns:
            Scores (B, 2 * S, h, w), of hue and then of chroma; or for each image (2, h, w), its
            likeliest hue and chroma; or the losses.

        Raises:
            ValueError: On another mode, or if the loss is asked for without its targets.
            UserError: If the backbone does not fit, or there are more points than pixels.
        """
        check_mode(mode, chroma, 'chroma')
        check_mode(mode, valid, 'valid')
        levels = read_levels(self.backbone, inputs, self.in_index, self.in_channels)
        if mode == 'loss':
            return self.loss(levels, chroma, valid)
        scores = self.head(levels)
        if mode == 'tensor':
            return scores
        likeliest = torch.stack([part.argmax(dim=1) for part in scores.chunk(2, dim=1)], dim=1)
        return list(self.centres[likeliest])

    def loss(self, levels: Sequence[Tensor], chroma: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Cross-entropy with the histograms, averaged over the points; padding has none.

        Args:
            levels: (B, C_i, h_i, w_i) each.
            chroma: (B, 2, H, W), hue and chroma.
            valid: (B, 1, H, W).

        Returns:
            ``loss_hue``, ``loss_chroma``; ``acc_hue``, ``acc_chroma``, the per cent of points whose
            likeliest bin is told, of hue weighed by chroma.
        """
        drawable = torch.where(valid[:, 0] > 0, 0, IGNORED)
        points, drawn = sample_labelled_pixels(drawable, self.points, ignore_index=IGNORED)
        scores = self.head.at_points(levels, points, tuple(valid.shape[2:])).float()  # (N, 2 * S)
        hues, chromas, colour = window_histograms(chroma, valid, points, self.bins, self.window)
        known = (drawn.flatten() != IGNORED).to(scores)  # (N,)
        of_hue, of_chroma = scores.chunk(2, dim=1)
        count = known.sum().clamp(min=1)
        weight = known * colour
        losses = {
            'loss_hue': self.hue_weight * (weight * _cross_entropy(of_hue, hues)).sum() / count,
            'loss_chroma': (known * _cross_entropy(of_chroma, chromas)).sum() / count,
        }
        losses['acc_hue'] = _told(of_hue, hues, weight)
        losses['acc_chroma'] = _told(of_chroma, chromas, known)
        return losses


def _cross_entropy(scores: Tensor, histogram: Tensor) -> Tensor:
    """Scores (N, S), histograms (N, S) -> (N,)."""
    return -(histogram * scores.log_softmax(dim=1)).sum(dim=1)


def _told(scores: Tensor, histogram: Tensor, weight: Tensor) -> Tensor:
    """Per cent of the weight (N,) of points whose likeliest bin has the highest score."""
    hits = scores.detach().argmax(dim=1) == histogram.argmax(dim=1)
    return 100.0 * (weight * hits).sum() / weight.sum().clamp(min=1e-6)
