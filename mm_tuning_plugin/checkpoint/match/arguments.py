"""Arguments of a backbone that weights cannot carry and that change what they compute."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from mm_tuning_plugin.checkpoint.io.read import PathLike, read_file
from mm_tuning_plugin.checkpoint.io.store import own_tensors
from mm_tuning_plugin.checkpoint.match.disambiguate import choose
from mm_tuning_plugin.checkpoint.match.fit import Fit, best_fits
from mm_tuning_plugin.checkpoint.match.wrappers import plain_place


def needed_arguments(
    backbone: nn.Module,
    path: PathLike,
    *,
    allow_pickle: bool = False,
    prefix: str | None = None,
) -> dict[str, Any]:
    """Arguments that a backbone should be built with, for a file's weights to mean the same.

    Args:
        backbone: As it was built; not changed. It may be on the 'meta' device.
        path: The file that it is to start from.
        allow_pickle: See `load_backbone_checkpoint`.
        prefix: See `load_backbone_checkpoint`.

    Returns:
        Constructor's arguments to set; empty where nothing is amiss, or where the backbone's class
        takes none that would help.

    Raises:
        UserError: The file can't be read.
        KeyError: It has nothing under `prefix`.
    """
    place = plain_place(prefix.rstrip('.')) + '.' if prefix else None
    fits = best_fits(backbone, own_tensors(backbone), read_file(path, allow_pickle).tensors, place)
    return fitting_arguments(backbone, fits[choose([fit.prefix for fit in fits]).taken])


def fitting_arguments(backbone: nn.Module, fit: Fit) -> dict[str, Any]:
    """As `needed_arguments`, for a fit that is known already."""
    epsilon, found = fit.naming.norm_eps, layer_norm_epsilons(backbone)
    takes_norm = 'norm_cfg' in inspect.signature(type(backbone).__init__).parameters
    # A backbone may have norms that its argument does not reach; one that it reaches decides.
    if not fit.matched or epsilon is None or not found or epsilon in found or not takes_norm:
        return {}
    return {'norm_cfg': {'type': 'LN', 'eps': epsilon}}


def layer_norm_epsilons(backbone: nn.Module) -> set[float]:
    """Every epsilon among the LayerNorms of a backbone."""
    return {module.eps for module in backbone.modules() if isinstance(module, nn.LayerNorm)}


def as_python(arguments: Mapping[str, Any]) -> str:
    """Format arguments as in a config: ``norm_cfg=dict(type='LN', eps=1e-06)``."""

    def shown(value: Any) -> str:
        if isinstance(value, Mapping):
            return f'dict({as_python(value)})'
        return repr(value)

    return ', '.join(f'{name}={shown(value)}' for name, value in arguments.items())
