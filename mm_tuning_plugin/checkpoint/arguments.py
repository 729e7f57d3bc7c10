"""Which arguments a backbone must be built with for a file's weights to mean the same.

Weights do not carry everything that a network computes with. Today one such number is known: the
epsilon of LayerNorm, which timm's kin of ViTs sets to 1e-6 and mmseg leaves at torch's 1e-5.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .choice import choose
from .fit import best_fits
from .naming import Naming
from .read import PathLike, read_tensors


def needed_arguments(
    backbone: nn.Module,
    path: PathLike,
    *,
    config: Mapping[str, Any] | None = None,
    allow_pickle: bool = False,
    prefix: str | None = None,
) -> dict[str, Any]:
    """Says with which other arguments a backbone must be built for a file's weights.

    Args:
        backbone: As it is built now; its weights are not looked at and may be on the 'meta' device.
        path: The file; see `load_backbone_checkpoint`, as for the next two.
        config: The arguments that it was built with; what of them stays is merged in.
        allow_pickle: Whether code in the file may run.
        prefix: Where in the file the weights are; None: searched for.

    Returns:
        Constructor arguments to set, whole: ``norm_cfg=dict(type='LN', eps=1e-06)``. Empty where
        nothing differs, where nothing of the file fits, or where the backbone's constructor has no
        argument for it.

    Raises:
        UserError: The file can't be read.
        KeyError: Nothing of the file stands under `prefix`.
    """
    norm_cfg = _layer_norm_config(backbone, config or {})
    if norm_cfg is None or not _epsilons(backbone):
        return {}  # before the file is opened: most backbones end here
    place = prefix and prefix.rstrip('.') + '.'
    targets = {name: t for name, t in backbone.state_dict().items() if isinstance(t, Tensor)}
    fits = best_fits(backbone, targets, read_tensors(path, allow_pickle), place)
    fit = fits[choose([fit.prefix for fit in fits]).taken]
    epsilon = fit.naming.norm_eps
    if norm_cfg.get('eps') == epsilon or not other_epsilon(backbone, fit.naming):
        return {}
    return {'norm_cfg': {**norm_cfg, 'eps': epsilon}}


def other_epsilon(backbone: nn.Module, naming: Naming) -> float | None:
    """The epsilon of a LayerNorm that differs from that of the networks a naming comes from.

    Args:
        backbone: Whose norms are looked at.
        naming: The convention of the file.

    Returns:
        The largest one that differs; None where all are equal or the convention has no epsilon.
    """
    if naming.norm_eps is None:
        return None
    return max(_epsilons(backbone) - {naming.norm_eps}, default=None)


def _epsilons(backbone: nn.Module) -> set[float]:
    return {module.eps for module in backbone.modules() if isinstance(module, nn.LayerNorm)}


def _layer_norm_config(backbone: nn.Module, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The constructor's ``norm_cfg``: what was given, else its default; None if not LayerNorm's."""
    parameter = inspect.signature(type(backbone).__init__).parameters.get('norm_cfg')
    if parameter is None:
        return None
    given = config.get('norm_cfg')
    norm_cfg = parameter.default if given is None else given
    if not isinstance(norm_cfg, Mapping) or norm_cfg.get('type') not in ('LN', nn.LayerNorm):
        return None
    return dict(norm_cfg)
