"""Build a backbone on the 'meta' device: modules, names and shapes, but no weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import nn
from torch.overrides import TorchFunctionMode

from mm_tuning_plugin.config_types import ConfigMap
from mm_tuning_plugin.datasets.wrappers import random_state
from mm_tuning_plugin.registry import MODELS


class _EmptyOnMeta(TorchFunctionMode):
    """Put what torch's own layers allocate on the 'meta' device.

    Other tensors stay on the CPU, because constructors of transformers read numbers back from small
    tensors (rates of stochastic depth).
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: ConfigMap | None = None,
    ) -> Any:
        if func is torch.empty:
            kwargs = {**(kwargs or {}), 'device': 'meta'}
        return func(*args, **(kwargs or {}))


def build_on_meta(config: ConfigMap, scope: str = 'mmseg') -> nn.Module:
    """Build a backbone without weights. Random states stay as they are.

    Args:
        config: The backbone's config, without entries that load weights (`remove_pretrained`).
        scope: The config's ``default_scope``.

    Returns:
        The module, on the 'meta' device.

    Raises:
        Exception: Whatever the constructor raises.
    """
    # There is no Runner yet that sets the default scope.
    with random_state(0), DefaultScope.overwrite_default_scope(scope), _EmptyOnMeta():
        built: nn.Module = MODELS.build(config)
    return built.to('meta')
