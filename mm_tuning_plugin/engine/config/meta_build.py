"""A backbone's outline: its modules, names and shapes, without the memory and time of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import nn
from torch.overrides import TorchFunctionMode

from mm_tuning_plugin.datasets.wrappers import random_state
from mm_tuning_plugin.registry import MODELS


class _EmptyOnMeta(TorchFunctionMode):
    """Put what torch's own layers allocate on the 'meta' device.

    Not all that is made: constructors of transformers read numbers back out of small tensors
    (rates of stochastic depth), which the 'meta' device cannot give.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.empty:
            kwargs = {**(kwargs or {}), 'device': 'meta'}
        return func(*args, **(kwargs or {}))


def outline(config: Mapping[str, Any], scope: str = 'mmseg') -> nn.Module:
    """Build a backbone of which nothing but modules, names and shapes is needed.

    Args:
        config: Of the backbone; what loads weights must be out of it (`remove_pretrained`).
        scope: The config's ``default_scope``.

    Returns:
        The module, on the 'meta' device. No random state has moved.

    Raises:
        Exception: Whatever the constructor raises.
    """
    # No Runner lives yet, so nothing has said in whose scope unprefixed types are meant.
    with random_state(0), DefaultScope.overwrite_default_scope(scope), _EmptyOnMeta():
        built: nn.Module = MODELS.build(config)
    return built.to('meta')
