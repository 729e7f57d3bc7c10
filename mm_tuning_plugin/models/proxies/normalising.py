"""The part of a preprocessor that proxies share: mean and deviation, as fine-tuning will use."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor


class NormalisingDataPreprocessor(BaseDataPreprocessor):
    """Holds mean and deviation of R, G, B as buffers (1, 3, 1, 1).

    Args:
        mean: Mean of the three channels that fine-tuning will subtract, in [0, 255].
        std: Standard deviations that it will divide by.
        non_blocking: Whether copies to the device are asynchronous.

    Raises:
        ValueError: If ``mean`` or ``std`` are not three numbers, or a deviation is not positive.
    """

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking)
        for name, value in (('mean', mean), ('std', std)):
            if len(value) != 3:
                raise ValueError(f'{name}: expected 3 numbers, got {value}')
        if min(std) <= 0:
            raise ValueError(f'std: expected positive numbers, got {std}')
        self.register_buffer('mean', torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(1, 3, 1, 1), persistent=False)
