"""Learning rates of 0 over a whole backbone: kept for fine-tuning, removed for stage one.

``paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0)})`` freezes a backbone while its head
trains. Stage one would change nothing with it. A rate of 0 for a part of the backbone stays, as
does ``frozen_stages``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from mm_tuning_plugin.config_types import ConfigMap, PlainConfig
from mm_tuning_plugin.engine.config.initial_weights import remove_pretrained
from mm_tuning_plugin.engine.config.meta_build import build_on_meta
from mm_tuning_plugin.engine.preflight.no_side_effects import no_trace

CUSTOM = 'custom_keys'
OF_A_KEY = ('lr_mult', 'lr')
# Rates of paramwise_cfg besides its custom keys, and their neutral values. None: leave the key out.
# The two decay rates belong to the layer-wise constructors of mmseg and mmpretrain.
NEUTRAL = {'bias_lr_mult': None, 'dcn_offset_lr_mult': None, 'decay_rate': 1.0,
           'layer_decay_rate': 1.0}  # fmt: skip


def thawed(wrapper: PlainConfig, backbone: ConfigMap, scope: str) -> PlainConfig:
    """Remove rates of 0 from an optimizer's config if they freeze the whole backbone.

    Args:
        wrapper: Config of an ``optim_wrapper``; not changed.
        backbone: Config of the backbone.
        scope: The config's ``default_scope``.

    Returns:
        The optimizer's config for stage one: `wrapper` itself if a part of the backbone trains, or
        if the rates cannot be found out.
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
                if not paramwise[CUSTOM][key]:  # an empty key still overrides shorter ones
                    del paramwise[CUSTOM][key]
        elif NEUTRAL[place[0]] is None:
            del paramwise[place[0]]
        else:
            paramwise[place[0]] = NEUTRAL[place[0]]
    return changed


def zero_rates(wrapper: ConfigMap) -> list[tuple[str, ...]]:
    """Return the places in ``paramwise_cfg`` where a rate is 0."""
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


def describe_thawed(given: ConfigMap, derived: ConfigMap) -> str:
    """Return one line on what `thawed` removed; empty if it removed nothing."""
    left = set(zero_rates(derived))
    out = [place for place in zero_rates(given) if place not in left]
    if not out:
        return ''
    return (
        f'optim_wrapper.paramwise_cfg: {", ".join(f"{_shown(place)}=0" for place in out)} freezes '
        'the whole backbone; stage one ignores it, because nothing would be tuned; fine-tuning '
        'keeps it'
    )


def optimizer_over(
    backbone: ConfigMap, wrapper: ConfigMap, scope: str
) -> tuple[OptimWrapper, nn.Module]:
    """Build the optimizer of stage one over a backbone without weights; return it and its module.

    Raises:
        Exception: Whatever the constructors raise.
    """
    with no_trace(scope):
        tuner = nn.Module()
        tuner.backbone = build_on_meta(remove_pretrained(backbone), scope)
        return build_optim_wrapper(tuner, copy.deepcopy(dict(wrapper))), tuner


def _rates(wrapper: ConfigMap, backbone: ConfigMap, scope: str) -> tuple[list[str], list[float]]:
    """Return the names of the backbone's trainable parameters and the factors of their rates.

    SGD replaces the user's optimizer, which may need an accelerator; the constructor is the user's.
    Both lists are empty if it cannot be built; building the real one reports the mistake.
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
    """Whether an optimizer changes a parameter of ``model.backbone``, that is, its rate is not 0.

    Args:
        param_groups: Of the optimizer, or of several optimizers by name.
        model: The model that it was built for.

    Returns:
        True also if the optimizer has none of the model's parameters: a wrapper that shards them
        replaces them with its own.
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


def _is_zero(value: object) -> bool:
    return isinstance(value, (int, float)) and value == 0


def _shown(place: tuple[str, ...]) -> str:
    return place[0] if len(place) == 1 else f'{place[0]}[{place[1]!r}].{place[2]}'
