"""The part of a preprocessor that proxies share: mean and deviation, as fine-tuning will use."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor

from mm_tuning_plugin.errors import UserError


class NormalisingDataPreprocessor(BaseDataPreprocessor):
    """Holds mean and deviation as buffers (1, C, 1, 1), of R, G, B or, with C = 1, of grey.

    Args:
        mean: Mean of the channels that fine-tuning will subtract, in [0, 255].
        std: Standard deviations that it will divide by.
        non_blocking: Whether copies to the device are asynchronous.

    Raises:
        UserError: If ``mean`` or ``std`` are not as many numbers as the proxy can give channels,
            or a deviation is not positive.
    """

    CHANNELS: tuple[int, ...] = (3,)

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking)
        for name, value in (('mean', mean), ('std', std)):
            if len(value) not in self.CHANNELS:
                numbers = ' or '.join(str(count) for count in self.CHANNELS)
                raise UserError(name, f'{value} found', f'expected {numbers} numbers')
        if len(mean) != len(std):
            raise UserError(
                'mean, std', f'{mean} and {std} found', 'expected as many numbers of each'
            )
        if min(std) <= 0:
            raise UserError('std', f'{std} found', 'expected positive numbers')
        self.register_buffer('mean', torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(1, -1, 1, 1), persistent=False)
