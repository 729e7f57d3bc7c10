"""How long stage one learns, and how fast: loop, optimizer and learning rate."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mm_tuning_plugin.config_types import base_type
from mm_tuning_plugin.engine.config.learning_rates import thawed
from mm_tuning_plugin.engine.config.options import Options
from mm_tuning_plugin.errors import UserError


def schedule(cfg: Mapping[str, Any], options: Options) -> dict:
    """Derive loop, optimizer and learning rate: the paper's for SGD, else the user's own optimizer.

    Args:
        cfg: The user's config.
        options: The resolved options.

    Returns:
        ``train_cfg``, ``optim_wrapper`` and ``param_scheduler`` of stage one.

    Raises:
        UserError: The config has no optimizer.
    """
    wrapper = copy.deepcopy(dict(cfg.get('optim_wrapper') or {}))
    if not isinstance(wrapper.get('optimizer'), Mapping):
        raise UserError(
            'optim_wrapper', f'{wrapper or None!r} found', 'expected one with an optimizer'
        )
    wrapper.pop('accumulative_counts', None)
    wrapper = thawed(wrapper, cfg['model']['backbone'], cfg.get('default_scope') or 'mmseg')
    iters = options.max_iters
    if base_type(wrapper['optimizer']) == 'SGD':
        lr = 0.01 if options.lr is None else options.lr
        wrapper['optimizer'] = dict(type='SGD', lr=lr, momentum=0.9, weight_decay=5e-4)
        scheduler = [
            dict(type='MultiStepLR', milestones=[max(1, iters * 3 // 4)], gamma=0.1, by_epoch=False)
        ]
    else:
        if options.lr is not None:
            wrapper['optimizer']['lr'] = options.lr
        warmup = max(1, min(1500, iters // 10))
        scheduler = [
            dict(type='LinearLR', start_factor=1e-3, begin=0, end=warmup, by_epoch=False),
            dict(type='PolyLR', power=1.0, eta_min=0.0, begin=warmup, end=iters, by_epoch=False),
        ]
        scheduler = scheduler if iters > warmup else scheduler[:1]
    return dict(
        train_cfg=dict(
            type='IterBasedTrainLoop',
            max_iters=iters,
            val_interval=options.val_interval or iters,
        ),
        optim_wrapper=wrapper,
        param_scheduler=scheduler,
    )
