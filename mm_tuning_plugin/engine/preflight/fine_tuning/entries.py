"""Checks of single entries of a config, and of entries that belong together."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.registry import LOG_PROCESSORS, MODEL_WRAPPERS, TRANSFORMS

from mm_tuning_plugin.config_types import ConfigMap
from mm_tuning_plugin.engine.preflight.fine_tuning.loops import check_loop
from mm_tuning_plugin.engine.preflight.fine_tuning.metrics import check_evaluator
from mm_tuning_plugin.engine.preflight.fine_tuning.registered import build, find, items
from mm_tuning_plugin.errors import UserError

# What belongs together: all of it is there, or nothing.
GROUPS = {
    'training': ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    'validation': ('val_dataloader', 'val_cfg', 'val_evaluator'),
    'testing': ('test_dataloader', 'test_cfg', 'test_evaluator'),
}


def check_groups(cfg: ConfigMap) -> None:
    """As a Runner does: of what belongs together, all or nothing.

    Raises:
        UserError: Some of it is missing.
    """
    for group, names in GROUPS.items():
        missing = [name for name in names if cfg.get(name) is None]
        if missing and len(missing) < len(names):
            given = [name for name in names if name not in missing]
            raise UserError(
                ', '.join(missing),
                f'None found beside {", ".join(given)}',
                f'expected all of {", ".join(names)} for {group}, or none',
            )
    scaling = cfg.get('auto_scale_lr') or {}
    if scaling.get('enable') and 'base_batch_size' not in scaling:
        raise UserError('auto_scale_lr', 'enable=True found', 'expected base_batch_size beside it')


def remark_on_testing(cfg: ConfigMap) -> str:
    """Return what is wrong with the entries of testing, which training never builds, or ''."""
    try:
        check_evaluator('test_evaluator', cfg.get('test_evaluator'))
        check_loop('test_cfg', cfg.get('test_cfg'))
    except UserError as error:
        return f'{error} (training does without it, testing will not)'
    return ''


def check_others(cfg: ConfigMap) -> None:
    """Check the log processor, and entries that need only a registered type.

    Raises:
        UserError: A type or an argument does not exist.
    """
    if isinstance(cfg.get('log_processor'), Mapping):
        build('log_processor', LOG_PROCESSORS, {'type': 'LogProcessor', **cfg['log_processor']})
    wrapper = cfg.get('model_wrapper_cfg')
    if isinstance(wrapper, Mapping) and cfg.get('launcher', 'none') != 'none':
        config = {'type': 'MMDistributedDataParallel', **wrapper}
        find('model_wrapper_cfg', MODEL_WRAPPERS, config)
    augment = (cfg.get('mix_and_match') or {}).get('augment')
    for at, item in items('mix_and_match.augment', augment):
        if isinstance(item, Mapping):
            find(at, TRANSFORMS, item)
