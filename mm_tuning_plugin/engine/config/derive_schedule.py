"""Loop, optimizer and learning rate of stage one."""

from __future__ import annotations

import copy

from mm_tuning_plugin.config_types import PlainConfig, base_type
from mm_tuning_plugin.engine.config.learning_rates import thawed
from mm_tuning_plugin.engine.config.user_config import UserConfig


def schedule(user: UserConfig) -> PlainConfig:
    """Derive loop, optimizer and learning rate.

    The optimizer is the paper's if the user's is SGD, and the user's otherwise.

    Returns:
        ``train_cfg``, ``optim_wrapper`` and ``param_scheduler`` of stage one.
    """
    options, wrapper = user.options, copy.deepcopy(user.optim_wrapper)
    wrapper.pop('accumulative_counts', None)
    wrapper = thawed(wrapper, user.backbone, user.scope)
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
