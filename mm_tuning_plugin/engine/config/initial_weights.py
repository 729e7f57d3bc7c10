"""The initial weights of a backbone: where they come from, and which others a config loses."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmseg.registry import MODELS

from mm_tuning_plugin.checkpoint import needed_arguments
from mm_tuning_plugin.config_types import ConfigMap, PlainConfig, base_type, class_of
from mm_tuning_plugin.engine.config.meta_build import build_on_meta
from mm_tuning_plugin.engine.config.options import Options
from mm_tuning_plugin.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

SELF_SUPERVISED = 'SelfSupervised'
# Keys of such an init_cfg, and the options with the same meaning.
ADOPTED = {
    'checkpoint': 'checkpoint',
    'min_matched': 'min_matched',
    'allow_pickle': 'allow_pickle',
    'prefix': 'checkpoint_prefix',
}


def remove_pretrained(config: Any) -> Any:
    """Copy a model's config without entries that load weights, at any depth.

    ``pretrained`` becomes None (False for timm's wrapper, which loads weights by default). An
    ``init_cfg`` of type Pretrained and timm's ``checkpoint_path`` are removed. Other entries of
    ``init_cfg`` stay.
    """
    if isinstance(config, Mapping):
        copied = {
            key: remove_pretrained(value)
            for key, value in config.items()
            if not (key == 'init_cfg' and _loads_weights(value)) and key != 'checkpoint_path'
        }
        if 'pretrained' in copied or base_type(config) == 'TIMMBackbone':
            copied['pretrained'] = False if base_type(config) == 'TIMMBackbone' else None
        return copied
    if isinstance(config, (list, tuple)):
        return type(config)(remove_pretrained(value) for value in config)
    return copy.copy(config)


def split_start(model: ConfigMap, checkpoint: str | None) -> tuple[PlainConfig, str | None]:
    """Find the initial weights of stage one.

    The first of these that exists:

    1. the option ``checkpoint``;
    2. a local file that the config names as ``pretrained`` or ``init_cfg`` of the backbone. It is
       read by this package's loader, because mmseg's stays silent if nothing was loaded;
    3. anything else in the config, such as a URL. mmseg loads it.

    Args:
        model: The segmentor's config.
        checkpoint: The option.

    Returns:
        The backbone's config for stage one, and the file to load into it, or None.

    Raises:
        UserError: The file is missing, or the config has weights only for the whole segmentor.
    """
    backbone = copy.deepcopy(dict(model['backbone']))
    if checkpoint is None:
        named = model.get('pretrained') or backbone.get('pretrained')
        for item in _items(backbone.get('init_cfg')):
            if _loads_weights(item):
                named = item.get('checkpoint')
        if isinstance(named, str) and os.path.exists(named):
            checkpoint = named
        elif model.get('pretrained'):
            backbone['pretrained'] = model['pretrained']
        elif _loads_weights(model.get('init_cfg')) and not named:
            raise UserError(
                'model.init_cfg',
                'weights of a whole segmentor found',
                'give weights of the backbone as mix_and_match.checkpoint',
            )
    if checkpoint is None:
        return backbone, None
    if not os.path.exists(checkpoint):
        raise UserError(str(checkpoint), 'no such file', 'expected the checkpoint of a backbone')
    return remove_pretrained(backbone), checkpoint


def with_needed_arguments(
    backbone: PlainConfig,
    checkpoint: str | None,
    options: Options,
    scope: str = 'mmseg',
) -> PlainConfig:
    """Add the arguments that a backbone needs to compute what its initial weights were trained for.

    Args:
        backbone: The backbone's config.
        checkpoint: Its initial weights, or None.
        options: The resolved options.
        scope: The config's ``default_scope``.

    Returns:
        The config with `needed_arguments`. It is unchanged if the file or the backbone is wrong;
        loading the weights then reports the mistake.
    """
    if checkpoint is None:
        return backbone
    try:
        if not _has_layer_norms(backbone):
            return backbone
        needed = needed_arguments(
            build_on_meta(backbone, scope),
            checkpoint,
            allow_pickle=options.allow_pickle,
            prefix=options.checkpoint_prefix,
        )
    except Exception:  # reported when the file is loaded
        return backbone
    return {
        **backbone,
        **{name: {**(backbone.get(name) or {}), **value} for name, value in needed.items()},
    }


def changed_arguments(model: ConfigMap, tuned: ConfigMap) -> PlainConfig:
    """Return what `with_needed_arguments` changed, from the models' configs of both stages."""
    before, after = model['backbone'], tuned['backbone']
    return {key: after[key] for key in ('norm_cfg',) if after.get(key) != before.get(key)}


def _has_layer_norms(backbone: ConfigMap) -> bool:
    """Whether ``norm_cfg``, given or by default, is LayerNorm: others need no arguments."""
    known = class_of(backbone, MODELS, 'mmseg')
    default = inspect.signature(known).parameters.get('norm_cfg') if known else None
    norm = backbone.get('norm_cfg') or (default.default if default else None)
    return isinstance(norm, Mapping) and base_type(norm) == 'LN'


def adopt_self_supervised(cfg: Config) -> Config:
    """Move an ``init_cfg`` of type SelfSupervised from the model into the options.

    One loader then reads it with and without tuning, and for backbones that ignore ``init_cfg``.

    Args:
        cfg: The user's config; not changed.

    Returns:
        The config without it, with its keys as options. Options that the user gave win.

    Raises:
        UserError: There are two, or one is malformed.
    """
    model, options = cfg.get('model'), cfg.get('mix_and_match') or {}
    if not isinstance(model, Mapping) or not isinstance(options, Mapping):
        return cfg  # reported where they are read
    places = {'model': model, 'model.backbone': model.get('backbone')}
    found = {
        f'{place}.init_cfg': item
        for place, config in places.items()
        if isinstance(config, Mapping)
        for item in _items(config.get('init_cfg'))
        if base_type(item) == SELF_SUPERVISED
    }
    if not found:
        return cfg
    if len(found) > 1:
        raise UserError(' and '.join(found), f'two {SELF_SUPERVISED} found', 'expected one')
    place, given = next(iter(found.items()))
    unknown = sorted(set(given) - {'type', *ADOPTED})
    if unknown or not isinstance(given.get('checkpoint'), str):
        raise UserError(
            place,
            f'{SELF_SUPERVISED} with {", ".join(sorted(given))} found',
            f'expected checkpoint=FILE and no more than {", ".join(ADOPTED)}',
        )
    adopted = {ADOPTED[key]: value for key, value in given.items() if key != 'type'}
    if options.get('checkpoint') is not None or options.get('tuned_backbone') is not None:
        adopted = {}  # the user chose other weights
    cfg = copy.deepcopy(cfg)
    for config in (cfg['model'], cfg['model']['backbone']):
        items = _items(config.get('init_cfg'))
        kept = [item for item in items if base_type(item) != SELF_SUPERVISED]
        if len(kept) < len(items):
            config['init_cfg'] = kept or None
    cfg['mix_and_match'] = {**adopted, **options}
    return cfg


def _items(init_cfg: object) -> list[ConfigMap]:
    """Return the entries of an ``init_cfg``, which is a dict, a list of dicts, or None."""
    items = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    return [item for item in items if isinstance(item, Mapping)]


def _loads_weights(init_cfg: object) -> bool:
    kinds = {base_type(item) for item in _items(init_cfg)}
    return not kinds.isdisjoint(('Pretrained', 'PretrainedInit', SELF_SUPERVISED))
