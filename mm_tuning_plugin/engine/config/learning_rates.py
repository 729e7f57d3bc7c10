"""Rates of 0 over a whole backbone, which freeze it: for fine-tuning, not for stage one.

``paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0)})`` is how a backbone is frozen under
a head that trains. Tuned with it, no weight would move. Over a part of the backbone a rate of 0
stays, as does ``frozen_stages``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.optim import build_optim_wrapper
from torch import nn

from mm_tuning_plugin.engine.config.initial_weights import remove_pretrained
from mm_tuning_plugin.engine.config.meta_build import outline
from mm_tuning_plugin.engine.preflight.no_side_effects import no_trace

CUSTOM = 'custom_keys'
OF_A_KEY = ('lr_mult', 'lr')
# Rates of paramwise_cfg beside its custom keys, and what says nothing: mmengine's two multipliers
# are left out, the decay by layer of mmseg's and mmpretrain's constructors is 1.
NEUTRAL = {'bias_lr_mult': None, 'dcn_offset_lr_mult': None, 'decay_rate': 1.0,
           'layer_decay_rate': 1.0}  # fmt: skip


def thawed(wrapper: dict[str, Any], backbone: Mapping[str, Any], scope: str) -> dict[str, Any]:
    """The optimizer of stage one, without rates of 0 where they reach the whole backbone.

    Args:
        wrapper: Config of an ``optim_wrapper``; not changed.
        backbone: Of the backbone.
        scope: The config's ``default_scope``.

    Returns:
        `wrapper` itself wherever some of the backbone trains, or cannot be told to.
    """
    if not zero_rates(wrapper):
        return wrapper
    names, rates = _rates(wrapper, backbone, scope)
    if not rates or any(rates):
        return wrapper
    changed = copy.deepcopy(wrapper)
    paramwise = changed['paramwise_cfg']
    for place in zero_rates(wrapper):
        if place[0] == CUSTOM:
            key, rate = place[1:]
            if any(key in name for name in names):
                del paramwise[CUSTOM][key][rate]
                if not paramwise[CUSTOM][key]:  # a key that says nothing still outdoes shorter ones
                    del paramwise[CUSTOM][key]
        elif NEUTRAL[place[0]] is None:
            del paramwise[place[0]]
        else:
            paramwise[place[0]] = NEUTRAL[place[0]]
    return changed


def zero_rates(wrapper: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The places in ``paramwise_cfg`` of an ``optim_wrapper`` at which a rate of 0 stands."""
    paramwise = wrapper.get('paramwise_cfg')
    if not isinstance(paramwise, Mapping):
        return []
    custom = paramwise.get(CUSTOM)
    custom = custom if isinstance(custom, Mapping) else {}
    places = [
        (CUSTOM, key, rate)
        for key, options in custom.items()
        if isinstance(options, Mapping)
        for rate in OF_A_KEY
        if _is_zero(options.get(rate))
    ]
    return places + [(key,) for key in NEUTRAL if _is_zero(paramwise.get(key))]


def describe_thawed(given: Mapping[str, Any], derived: Mapping[str, Any]) -> str:
    """One line on what `thawed` left out; empty where that is nothing."""
    left = set(zero_rates(derived))
    out = [place for place in zero_rates(given) if place not in left]
    if not out:
        return ''
    return (
        f'optim_wrapper.paramwise_cfg: {", ".join(f"{_shown(place)}=0" for place in out)} found '
        'over the whole backbone; stage one leaves it out, for it would tune nothing, and '
        'fine-tuning keeps it'
    )


def optimizer_over(backbone: Mapping[str, Any], wrapper: Mapping[str, Any], scope: str) -> Any:
    """The optimizer of stage one over a backbone without weights, and the module that it is over.

    Raises:
        Exception: Whatever the constructors raise.
    """
    with no_trace(scope):
        tuner = nn.Module()
        tuner.backbone = outline(remove_pretrained(backbone), scope)
        return build_optim_wrapper(tuner, copy.deepcopy(dict(wrapper))), tuner


def _rates(
    wrapper: Mapping[str, Any], backbone: Mapping[str, Any], scope: str
) -> tuple[list[str], list[float]]:
    """Names of the backbone's parameters that train, and what their rates are multiplied by.

    Another optimizer stands for the user's, which may want an accelerator; its constructor is the
    user's. Nothing where that cannot be built: who builds it for good names the mistake.
    """
    plain = {key: wrapper[key] for key in ('constructor', 'paramwise_cfg') if key in wrapper}
    plain['optimizer'] = dict(type='SGD', lr=1.0, weight_decay=1.0)
    try:
        built, tuner = optimizer_over(backbone, plain, scope)
    except Exception:
        return [], []
    trained = {id(p): name for name, p in tuner.named_parameters() if p.requires_grad}
    rates = {
        id(parameter): float(group['lr'])
        for group in built.param_groups
        for parameter in group['params']
    }
    return list(trained.values()), [rates.get(key, 0.0) for key in trained]


def trains_backbone(param_groups: Any, model: nn.Module) -> bool:
    """Whether an optimizer moves a parameter of ``model.backbone``: one whose rate is not 0.

    Args:
        param_groups: The optimizer's; of several optimizers, by their names.
        model: What it was built for.

    Returns:
        True also where none of its parameters is one of the model's: a wrapper that shards them has
        put its own in their place.
    """
    groups = param_groups
    if isinstance(param_groups, Mapping):
        groups = [group for part in param_groups.values() for group in part]
    rates = {
        id(parameter): group.get('initial_lr', group.get('lr'))
        for group in groups
        for parameter in group['params']
    }
    if not any(id(parameter) in rates for parameter in model.parameters()):
        return True
    backbone = model.get_submodule('backbone')
    return any(p.requires_grad and rates.get(id(p), 0) != 0 for p in backbone.parameters())


def _is_zero(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == 0


def _shown(place: tuple[str, ...]) -> str:
    return place[0] if len(place) == 1 else f'{place[0]}[{place[1]!r}].{place[2]}'
