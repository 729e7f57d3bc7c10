"""Training and evaluation modes of a network's modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def keep_modes(network: nn.Module) -> Iterator[None]:
    """Give every module its earlier mode back after the block.

    ``network.train()`` could not do this, because frozen parts override it.
    """
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
