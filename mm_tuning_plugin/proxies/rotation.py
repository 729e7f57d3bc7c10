"""Rotation, a self-supervised proxy: predict by which quarter turn a crop was rotated.

Shape legend: B crops, H = W pixels.

An ordinary mmengine model, like colorization: the weights are under ``backbone.`` in its
checkpoints. Source: Gidaris, Singh, Komodakis, "Unsupervised Representation Learning by Predicting
Image Rotations", ICLR 2018: all four rotations of a crop are in one batch (section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.proxies.chroma import stack_padded
from mm_tuning_plugin.proxies.classification import PooledProxy, check_mode, classification_losses
from mm_tuning_plugin.proxies.normalising import NormalisingDataPreprocessor
from mm_tuning_plugin.registry import MODELS

TURNS = 4


@MODELS.register_module()
class RotationDataPreprocessor(NormalisingDataPreprocessor):
    """Normalises crops and makes their four rotations. Nothing is drawn.

    Arguments are those of ``NormalisingDataPreprocessor``.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Rotates a batch.

        Args:
            data: ``inputs``, a list of (3, H, H) crops or one (B, 3, H, H) tensor, BGR in
                [0, 255], as mmseg's ``PackSegInputs`` gives them. Anything else is left out.
            training: Makes no difference.

        Returns:
            ``inputs`` (4 * B, 3, H, H): RGB, normalised, all crops by 0, then by 1, 2, 3 quarter
            turns; ``turns`` (4 * B,) int64.

        Raises:
            UserError: If a crop is not square, or not as large as the others: its shape, or its
                padding, would reveal the rotation.
        """
        crops = list(self.cast_data(data['inputs']))
        for crop in crops:
            height, width = crop.shape[-2:]
            side = crops[0].shape[-1]
            if height != width or width != side:
                raise UserError(
                    'inputs',
                    f'a crop of {height} x {width} pixels found',
                    f'expected {side} x {side}, because all crops are squares of one size, no '
                    'larger than the images',
                )
        images, _ = stack_padded(crops)
        images = (images.flip(1) - self.mean) / self.std
        inputs = torch.cat([torch.rot90(images, k, (2, 3)) for k in range(TURNS)])
        turns = torch.arange(TURNS, device=images.device).repeat_interleave(len(images))
        return {'inputs': inputs, 'turns': turns}


@MODELS.register_module()
class RotationModel(PooledProxy):
    """A linear classifier of the rotation, over the averaged last level.

    Args:
        backbone: Config of a backbone with three input channels that returns a tuple of levels.
        in_channels: Channels of the level that is read.
        in_index: Its index; the last.
        data_preprocessor: Config. None: ``RotationDataPreprocessor`` with its defaults.
        init_cfg: As every mmengine model has it.

    Raises:
        UserError: If ``in_channels`` is not positive.
    """

    def __init__(
        self,
        backbone: dict,
        in_channels: int,
        in_index: int = -1,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if data_preprocessor is None:
            data_preprocessor = {'type': 'mm_tuning_plugin.RotationDataPreprocessor'}
        super().__init__(backbone, in_channels, in_index, data_preprocessor, init_cfg)
        self.classify = nn.Linear(in_channels, TURNS)

    def forward(
        self, inputs: Tensor, turns: Tensor | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | Sequence[Tensor]:
        """What ``RotationDataPreprocessor`` returns goes in.

        Args:
            inputs: (4 * B, 3, H, H).
            turns: (4 * B,) int64; for the loss only.
            mode: 'tensor', 'predict' or 'loss'.

        Returns:
            Scores (4 * B, 4); or for each image the number of quarter turns, (); or ``loss_turns``
            and ``acc_turns``, per cent.

        Raises:
            ValueError: On another mode, or if the loss is asked for without the turns.
        """
        check_mode(mode, turns, 'turns')
        scores = self.classify(self.pooled(inputs))
        if mode == 'tensor':
            return scores
        if mode == 'predict':
            return list(scores.argmax(dim=1))
        return classification_losses('turns', scores, turns)
