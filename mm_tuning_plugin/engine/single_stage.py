"""Training the single stage of a config, as a proxy task has it."""

from __future__ import annotations

import torch
from mmengine.config import Config

from mm_tuning_plugin.atomic_write import explain_full_disk
from mm_tuning_plugin.engine.common.messages import config_named
from mm_tuning_plugin.engine.distributed import join_ranks
from mm_tuning_plugin.engine.resume.runner import ResumableRunner
from mm_tuning_plugin.engine.resume.signals import BEFORE, Interruption


def train_alone(cfg: Config) -> torch.nn.Module:
    """Train by a config, which is interrupted and resumed as both stages of a tuning are.

    Returns:
        The trained model.

    Raises:
        UserError: Something in the config cannot be built, or the disk is full.
        SystemExit: After SIGINT or SIGTERM, with a checkpoint and one line.
    """
    join_ranks(cfg)
    with Interruption() as interruption, explain_full_disk(cfg['work_dir']):
        interruption.idle(BEFORE)
        with config_named():
            runner = ResumableRunner.from_cfg(cfg)
        runner.interruption = interruption
        return runner.train()
