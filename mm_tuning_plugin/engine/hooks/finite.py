"""End tuning if the loss is not finite: later steps cannot repair it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mm_tuning_plugin.engine.common.messages import warn
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.registry import HOOKS

# A loss scaler (--amp) leaves out the steps of such iterations and halves its scale, which mends
# what was only too large for half precision; ten halvings are a factor of a thousand.
TOLERATED_IN_A_ROW = 10
REMEDY = 'lower mix_and_match.lr and tune again, or look for such values in the start'


@HOOKS.register_module()
class FiniteHook(Hook):
    """End tuning at a loss that is not finite, and before a checkpoint of such weights.

    Gradients alone do not count. With a loss scaler, which skips such steps,
    `TOLERATED_IN_A_ROW` iterations may pass, with a warning at the first of a row. Ranks compute
    the loss of all nodes, so all of them end.
    """

    def __init__(self) -> None:
        self.in_a_row = 0
        self.iteration = 0  # the last one that was looked at, counted from 1

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Look at the loss.

        Raises:
            UserError: The loss is not finite, and no loss scaler skips the step.
        """
        self.iteration = runner.iter + 1
        loss = float(outputs['loss'].detach())
        if math.isfinite(loss):
            self.in_a_row = 0
            return
        self.in_a_row += 1
        where = f'tuning, iteration {self.iteration} of {runner.max_iters}'
        if not _skips_steps(runner.optim_wrapper):
            lr = runner.optim_wrapper.get_lr()['lr'][0]
            raise UserError(where, f'loss {loss} at lr {lr:.3g}', REMEDY)
        if self.in_a_row > TOLERATED_IN_A_ROW:
            raise UserError(
                where,
                f'loss {loss}, the {self.in_a_row}th that is not finite in a row, and mixed '
                f'precision allows {TOLERATED_IN_A_ROW}',
                f'{REMEDY}, or go without --amp',
            )
        if self.in_a_row == 1:
            warn(f'{where}: loss {loss}; the loss scaler leaves this step out')

    def exchange_over_ranks(self, runner) -> None:
        """Look at the weights; every rank comes here before a checkpoint is written.

        Raises:
            UserError: Some are not finite.
        """
        require_finite(runner.model.state_dict(), f'tuning, iteration {self.iteration}')


def require_finite(weights: Mapping[str, Tensor], what: str) -> None:
    """Refuse weights, running statistics among them, that are not finite.

    Raises:
        UserError: Some are not; the first of them is named.
    """
    bad = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise UserError(
            what, f'nan or inf in {len(bad)} of {len(weights)} weights, first in {bad[0]}', REMEDY
        )


def _skips_steps(optim_wrapper) -> bool:
    """Whether a loss scaler leaves out steps whose gradients are not finite."""
    scaler = getattr(optim_wrapper, 'loss_scaler', None)
    return scaler is not None and scaler.is_enabled()
