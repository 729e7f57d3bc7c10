"""What proxies that classify whole images or tiles share: one level, pooled; loss and accuracy.

Shape legend: N images that pass the backbone, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor

from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.proxies.trunk import read_levels
from mm_tuning_plugin.registry import MODELS


def check_mode(mode: str, target: Tensor | None, name: str) -> None:
    """Refuses unknown modes, and the loss without what it needs.

    Raises:
        ValueError: On either.
    """
    if mode not in ('tensor', 'predict', 'loss'):
        raise ValueError(f"mode: expected 'tensor', 'predict' or 'loss', got {mode!r}")
    if mode == 'loss' and target is None:
        raise ValueError(f'{name}: expected a tensor for the loss, got None')


def check_positive(**numbers: int) -> None:
    """Refuses numbers below 1.

    Raises:
        UserError: On the first that is.
    """
    for name, value in numbers.items():
        if value < 1:
            raise UserError(name, f'{value} found', 'expected at least 1')


class PooledProxy(BaseModel):
    """A backbone, of which one level is read and averaged over its cells.

    Args:
        backbone: Config of a backbone with three input channels that returns a tuple of levels.
        in_channels: Channels of the level that is read.
        in_index: Its index. If it is the last, the whole backbone is trained.
        data_preprocessor: Config.
        init_cfg: As every mmengine model has it.

    Raises:
        UserError: If ``in_channels`` is not positive.
    """

    proxy_task = True

    def __init__(
        self,
        backbone: dict,
        in_channels: int,
        in_index: int,
        data_preprocessor: dict,
        init_cfg: dict | None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        check_positive(in_channels=in_channels)
        self.backbone = MODELS.build(backbone)
        self.in_channels, self.in_index = in_channels, in_index

    def pooled(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> (N, in_channels).

        Raises:
            UserError: If the level has another number of channels, or does not exist; or the
                backbone takes another number of channels.
        """
        (level,) = read_levels(self.backbone, images, [self.in_index], [self.in_channels])
        return level.mean(dim=(2, 3))


def classification_losses(name: str, scores: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Cross-entropy and accuracy.

    Args:
        name: The thing that is classified.
        scores: (N, K).
        target: (N,) int64.

    Returns:
        ``loss_NAME``, the mean, and ``acc_NAME``, per cent.
    """
    scores = scores.float()
    hits = (scores.detach().argmax(dim=1) == target).to(torch.float32)
    return {f'loss_{name}': F.cross_entropy(scores, target), f'acc_{name}': 100.0 * hits.mean()}
