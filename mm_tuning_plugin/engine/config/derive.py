"""The config of stage one, derived from the user's config.

The result is an ordinary mmengine config. It is written to ``<work_dir>/tuning/`` before it runs,
and mmseg's own ``tools/train.py`` runs it as well.
"""

from __future__ import annotations

import os

from mmengine.config import Config

from mm_tuning_plugin.config_types import with_named_types
from mm_tuning_plugin.engine.config.derive_data import train_dataloader, validation
from mm_tuning_plugin.engine.config.derive_hooks import hooks_and_logging
from mm_tuning_plugin.engine.config.derive_model import tuner_config
from mm_tuning_plugin.engine.config.derive_schedule import schedule
from mm_tuning_plugin.engine.config.user_config import UserConfig, read_user_config

TUNING_DIR = 'tuning'


def derive_tuning_config(cfg: Config) -> Config:
    """Derive the config of stage one from the config of an mmseg project.

    Args:
        cfg: The user's config, with an optional ``mix_and_match``; not changed.

    Returns:
        The config of stage one. It can be run alone. It has neither ``runner_type`` nor
        ``mix_and_match``.

    Raises:
        ValueError: (`UserError`) The config cannot be tuned, or an option is wrong.
    """
    return derive_from(read_user_config(cfg))


def derive_from(user: UserConfig) -> Config:
    """Derive the config of stage one from the record of the user's config."""
    derived = dict(
        user.kept,
        default_scope=user.scope,
        work_dir=os.path.join(user.work_dir or 'work_dirs', TUNING_DIR),
        experiment_name='mix_and_match_tuning',
        model=tuner_config(user),
        train_dataloader=train_dataloader(user),
        **schedule(user),
        **validation(user),
        **hooks_and_logging(user),
    )
    return with_named_types(Config(derived))
