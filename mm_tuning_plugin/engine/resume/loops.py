"""mmengine's two training loops, extended so that an interruption at any moment changes nothing.

They work in mmengine's order. In addition, they record the position in the data, stop if a signal
asks for it, and resume exactly at the checkpoint. A validation that was due when the checkpoint was
written runs after the resume, because it changes torch's random state and its metrics belong to the
run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mm_tuning_plugin.config_types import PlainConfig, class_of
from mm_tuning_plugin.engine.resume.data_position import DataPosition


class _Resumable:
    """What both loops share; their runner is a `ResumableRunner`."""

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, **options: Any) -> None:
        if isinstance(dataloader, dict):  # as mmengine's BaseLoop builds it
            dataloader = runner.build_dataloader(
                dataloader,
                seed=runner.seed,
                diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False),
            )
        # First of all, because the original mmengine starts the workers when it makes the loop.
        self.position = DataPosition(dataloader)
        super().__init__(runner, dataloader, **options)

    def continues(self) -> bool:
        """Whether the checkpoint has all that an exact continuation needs."""
        return self.runner.progress.resumed is not None and self.position.known

    def take_up(self, state: PlainConfig, validation_is_due: bool) -> None:
        """Set the random states of the checkpoint, then make up for a validation it came before."""
        if state['validation_began'] and self.runner.val_loop is not None:
            iter(self.runner.val_loop.dataloader)  # its workers stay, and draw a seed but once
        self.runner.progress.restore(state)
        if validation_is_due and not state['validated']:
            self.validate()

    def validate(self) -> None:
        """Validate; checkpoints saved meanwhile keep the earlier random states. Stop if asked."""
        with self.runner.progress.validation():
            self.runner.val_loop.run()
        self.runner.stop_if_asked()

    def begin_iteration(self, data_batch: object, passes: int) -> None:
        """Record the position in the data; the validation of this iteration is still due."""
        self.runner.progress.validated = False
        self.position.take(data_batch, passes)


class ResumableIterLoop(_Resumable, IterBasedTrainLoop):
    """mmengine's IterBasedTrainLoop, resumable to the bit."""

    def run(self) -> object:
        """Train."""
        try:
            if self._iter > 0 and not self.continues():
                self.position.skipped(self._iter)
                return super().run()  # another runner's checkpoint: as mmengine does it
            return self._run()
        finally:
            # Left to the garbage collector, every worker is waited for in vain for five seconds.
            self.dataloader_iterator._iterator = self.dataloader._iterator = None

    def _run(self) -> object:
        runner = self.runner
        runner.call_hook('before_train')
        runner.call_hook('before_train_epoch')
        if self._iter > 0:
            self._continue()
        while self._iter < self._max_iters and not self.stop_training:
            runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            if self._validation_is_due():
                self.validate()
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model

    def run_iter(self, data_batch: object) -> None:
        """Train on one batch."""
        self.begin_iteration(data_batch, self.dataloader_iterator._epoch)
        super().run_iter(data_batch)
        self.runner.stop_if_asked()

    def _continue(self) -> None:
        state = self.runner.progress.resumed
        self.dataloader_iterator._iterator = self.position.start_from(state['data'])
        self.dataloader_iterator._epoch = self.position.passes
        self._decide_current_val_interval()
        self.take_up(state, self._validation_is_due())

    def _validation_is_due(self) -> bool:
        interval_ends = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        return self.runner.val_loop is not None and self._iter >= self.val_begin and interval_ends


class ResumableEpochLoop(_Resumable, EpochBasedTrainLoop):
    """mmengine's EpochBasedTrainLoop, resumable to the bit, between epochs and within one."""

    rest: Iterator | None = None  # of an epoch that was interrupted

    def run(self) -> object:
        """Train."""
        runner = self.runner
        runner.call_hook('before_train')
        if self._iter > 0 and self.continues():
            self._continue()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._decide_current_val_interval()
            if self._validation_is_due():
                self.validate()
        runner.call_hook('after_train')
        return runner.model

    def run_epoch(self) -> None:
        """Train for one epoch, or for the rest of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        batches, begun = iter(self.dataloader) if self.rest is None else self.rest, 0
        if self.rest is not None:
            begun, self.rest = self.position.batches, None
        for index, data_batch in enumerate(batches, begun):
            self.run_iter(index, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: object) -> None:
        """Train on one batch."""
        self.begin_iteration(data_batch, self._epoch)
        super().run_iter(idx, data_batch)
        self.runner.stop_if_asked()

    def _continue(self) -> None:
        state = self.runner.progress.resumed
        between_epochs = state['data']['passes'] < self._epoch
        # New workers of a new epoch start as usual; others continue with the states that they had.
        if self.dataloader.persistent_workers or not between_epochs:
            rest = self.position.start_from(state['data'])
            self.rest = None if between_epochs else rest
        self._decide_current_val_interval()
        self.take_up(state, between_epochs and self._validation_is_due())

    def _validation_is_due(self) -> bool:
        interval_ends = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        return self.runner.val_loop is not None and self._epoch >= self.val_begin and interval_ends


OURS = {IterBasedTrainLoop: ResumableIterLoop, EpochBasedTrainLoop: ResumableEpochLoop}


def with_resumable_loop(config: Any) -> Any:
    """The config of a training loop with our class in the place of mmengine's; others stay."""
    if not isinstance(config, dict):
        return config
    config = dict(config)
    if 'type' not in config and 'by_epoch' in config:
        config['type'] = 'EpochBasedTrainLoop' if config.pop('by_epoch') else 'IterBasedTrainLoop'
    ours = OURS.get(class_of(config, LOOPS))
    return config if ours is None else {**config, 'type': ours}
