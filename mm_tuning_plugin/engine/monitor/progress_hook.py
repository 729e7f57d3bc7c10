"""The hook that feeds the progress line; it is registered on the main rank only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from numbers import Real

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mm_tuning_plugin.engine.monitor.display import Display
from mm_tuning_plugin.engine.monitor.eta import Pace, validations_left
from mm_tuning_plugin.engine.monitor.hook import RECALL, WatchHook
from mm_tuning_plugin.engine.monitor.status import Status

# Iterations over which the loss is averaged, as in mmengine's own lines.
SMOOTHED = 10
SCORE = 'mIoU'  # of stage two; without it the first metric is shown


class ProgressHook(Hook):
    """Show the progress of one stage. It reads only numbers that mmengine has on the host.

    Args:
        status: Progress of the whole run; this hook updates it.
        display: Where it is shown.
        index: Index of the stage.
    """

    # After mmengine has logged the iteration, and before stage one first measures recall.
    priority = 'BELOW_NORMAL'

    def __init__(self, status: Status, display: Display, index: int) -> None:
        self.status, self.display, self.index = status, display, index

    def before_train(self, runner: Runner) -> None:
        """Start a stage."""
        status = self.status
        status.index, status.pace = self.index, Pace()
        status.iteration, status.of = runner.iter, runner.max_iters
        status.loss = status.active = status.validating = None
        for hook in runner.hooks:
            if isinstance(hook, WatchHook):  # has the values from before an interruption
                status.recall = [hook.history.recalls[i] for i in sorted(hook.history.recalls)]
        status.pace.begin(time.monotonic())
        self._count_validations(runner)
        self.display.update(status)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Update iteration, speed and figures."""
        status = self.status
        status.pace.iterated(time.monotonic())
        status.iteration = runner.iter + 1
        for name, attribute in (('loss', 'loss'), ('active_share', 'active')):
            history = runner.message_hub.log_scalars.get(f'train/{name}')
            if history is not None and name in (outputs or {}):
                setattr(status, attribute, float(history.mean(SMOOTHED)))
        self.display.update(status)

    def before_val_epoch(self, runner: Runner) -> None:
        """Start a validation."""
        self.status.iteration = runner.iter
        self.status.pace.begin_validation(time.monotonic())
        self._count_validations(runner)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Count a validated batch."""
        self.status.validating = (batch_idx + 1, len(runner.val_dataloader))
        self.display.update(self.status)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """End a validation and read its metrics."""
        status = self.status
        status.validating = None
        status.pace.validated(time.monotonic())
        found = {name: float(v) for name, v in (metrics or {}).items() if isinstance(v, Real)}
        if RECALL in found:
            status.recall.append(found[RECALL])
        elif found:
            name = SCORE if SCORE in found else next(iter(found))
            status.score = (name, found[name])
        self._count_validations(runner)
        self.display.update(status)

    def after_train(self, runner: Runner) -> None:
        """Show the last state of the stage."""
        self.status.validations = 0
        self.display.update(self.status, now=True)

    def _count_validations(self, runner: Runner) -> None:
        loop = runner.train_loop
        if runner.val_loop is None:
            self.status.validations = 0
            return
        epochs = isinstance(loop, EpochBasedTrainLoop)
        self.status.validations = validations_left(
            done=runner.epoch if epochs else runner.iter,
            total=loop.max_epochs if epochs else loop.max_iters,
            interval=getattr(loop, 'val_interval', 1),
            begin=getattr(loop, 'val_begin', 1),
        )
