"""The start of a backbone: which weights it begins from, and how a config is freed of others."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any

from mm_tuning_plugin.checkpoint import needed_arguments
from mm_tuning_plugin.engine.outline import outline
from mm_tuning_plugin.engine.user_config import base_type
from mm_tuning_plugin.errors import UserError


def remove_pretrained(config: Any) -> Any:
    """Copy a model's config without anything that loads weights, nested ones included.

    ``pretrained`` becomes None (False for timm's wrapper, which loads by default), and an
    ``init_cfg`` of type Pretrained goes. Other initialisations stay.
    """
    if isinstance(config, Mapping):
        copied = {
            key: remove_pretrained(value)
            for key, value in config.items()
            if not (key == 'init_cfg' and _loads_weights(value))
        }
        if 'pretrained' in copied or base_type(config) == 'TIMMBackbone':
            copied['pretrained'] = False if base_type(config) == 'TIMMBackbone' else None
        return copied
    if isinstance(config, (list, tuple)):
        return type(config)(remove_pretrained(value) for value in config)
    return copy.copy(config)


def split_start(
    model: Mapping[str, Any], checkpoint: str | None
) -> tuple[dict[str, Any], str | None]:
    """Find the start of stage one.

    In this order: the option ``checkpoint``; a file on this machine that the config names as
    ``pretrained`` or ``init_cfg`` of the backbone, which is then read by our own loader, since
    mmseg's reports nothing when it loads nothing; anything else the config says (a URL, say),
    which is left to mmseg.

    Args:
        model: The segmentor's config.
        checkpoint: The option.

    Returns:
        The backbone's config for stage one, and the file to load into it or None.

    Raises:
        UserError: The file is missing, or only the whole segmentor has a start.
    """
    backbone = copy.deepcopy(dict(model['backbone']))
    if checkpoint is None:
        init_cfg = backbone.get('init_cfg')
        named = model.get('pretrained') or backbone.get('pretrained')
        if _loads_weights(init_cfg):
            named = init_cfg.get('checkpoint')
        if isinstance(named, str) and os.path.exists(named):
            checkpoint = named
        elif model.get('pretrained'):
            backbone['pretrained'] = model['pretrained']
        elif _loads_weights(model.get('init_cfg')) and not named:
            raise UserError(
                'model.init_cfg: weights of a whole segmentor found, expected a start of the '
                'backbone; give it as mix_and_match.checkpoint'
            )
    if checkpoint is None:
        return backbone, None
    if not os.path.exists(checkpoint):
        raise UserError(f'{checkpoint}: no such file; expected the checkpoint of a backbone')
    return remove_pretrained(backbone), checkpoint


def fit_arguments(
    backbone: Mapping[str, Any], checkpoint: str, scope: str = 'mmseg', **options: Any
) -> dict[str, Any]:
    """The backbone's config with the arguments that the weights of its start need.

    Args:
        backbone: Its config, without anything that loads weights.
        checkpoint: The start.
        scope: The config's ``default_scope``.
        **options: ``allow_pickle`` and ``prefix`` of `needed_arguments`.

    Returns:
        A copy; an equal one where nothing is needed or the start or the backbone is broken, which
        building and loading them says a moment later, in their own words.
    """
    try:
        needed = needed_arguments(outline(backbone, scope), checkpoint, config=backbone, **options)
    except Exception:  # constructors of the user's raise anything, and will raise it again
        needed = {}
    return {**backbone, **needed}


def differing_arguments(users: Mapping[str, Any], tuning: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of stage one's backbone that are not those of the user's config.

    What loads weights is left out: both stages go without once there is a start.
    """
    users = remove_pretrained(users)
    loads = ('pretrained', 'init_cfg')
    return {k: v for k, v in tuning.items() if k not in loads and users.get(k) != v}


def _loads_weights(init_cfg: Any) -> bool:
    if isinstance(init_cfg, (list, tuple)):
        return any(_loads_weights(item) for item in init_cfg)
    return isinstance(init_cfg, Mapping) and base_type(init_cfg) in ('Pretrained', 'PretrainedInit')
