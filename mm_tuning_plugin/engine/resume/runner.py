"""A mmengine Runner that can be stopped at any moment and taken up to the bit.

Uninterrupted it computes exactly what a plain Runner computes.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import (
    all_gather_object,
    barrier,
    broadcast_object_list,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.runner import BaseLoop, Runner, ValLoop
from torch import nn
from torch.utils.data import DataLoader

from mm_tuning_plugin.atomic_write import atomic_write, remove_leftovers
from mm_tuning_plugin.engine.common.messages import MISTAKES, config_mistake, warn
from mm_tuning_plugin.engine.distributed import RankRunner
from mm_tuning_plugin.engine.resume.checkpoint_files import newest_sound, places, with_careful_hook
from mm_tuning_plugin.engine.resume.history_globals import allow_histories
from mm_tuning_plugin.engine.resume.loops import OURS, with_resumable_loop
from mm_tuning_plugin.engine.resume.rank_state import Progress
from mm_tuning_plugin.engine.resume.signals import GOES_ON, Interruption, OutliveSigterm, Rounds
from mm_tuning_plugin.engine.resume.validation_weights import take_back_averages
from mm_tuning_plugin.errors import UserError

KEY = 'resume_state'


class ResumeStateHook(Hook):
    """Carry what resuming to the bit needs through mmengine's own checkpoints."""

    priority = 89  # right before the hook that writes checkpoints

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put it in; only the main rank comes here."""
        checkpoint[KEY] = dict(run=runner.run_id, ranks=runner.states_of_ranks)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take it out."""
        runner.loaded_state = checkpoint.pop(KEY, None)
        runner.loaded_optimizer = 'optimizer' in checkpoint

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """From now on there is something to lose; a loop of the user's own is stopped here."""
        if runner.interruption is not None:
            if not isinstance(runner.train_loop, tuple(OURS.values())):
                runner.stop_if_asked()
            runner.interruption.busy()

    def before_val_epoch(self, runner: Runner) -> None:
        """Prepare for a signal."""
        runner.validation_begins()

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Stop between two batches if asked to."""
        runner.stop_validating_if_asked(batch_idx)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Mark checkpoints from here on as saved after the validation."""
        runner.progress.validated = True


class ResumableRunner(RankRunner):
    """A plain Runner, but for what happens when it is interrupted.

    Attributes:
        progress: What its checkpoints hold in addition to mmengine's content.
        interruption: Whether a signal asks it to end; None: signals are not handled.
        run_id: Distinguishes its checkpoints from an earlier run's in its folder; None: unknown.
    """

    interruption: Interruption | None = None
    run_id: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.progress = Progress(self._validation_began)
        self.states_of_ranks: list[dict] | None = None
        self.loaded_state: dict | None = None
        self.loaded_optimizer = True
        self.is_built = False
        self._saved: tuple[int, str] | None = None
        self._rounds: Rounds | None = None
        super().__init__(*args, **kwargs)
        self.register_hook(ResumeStateHook())

    def register_hook(self, hook: Hook | dict, *args: Any, **kwargs: Any) -> None:
        """See mmengine."""
        super().register_hook(with_careful_hook(hook), *args, **kwargs)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """See mmengine."""
        return super().build_train_loop(with_resumable_loop(loop))

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict, *args: Any, **kwargs: Any) -> DataLoader:
        """See mmengine; its workers are not ended by signals that are meant for the run."""
        loader = Runner.build_dataloader(dataloader, *args, **kwargs)
        if loader.num_workers and loader is not dataloader:
            loader.worker_init_fn = OutliveSigterm(loader.worker_init_fn)
        return loader

    def train(self) -> nn.Module:
        """See mmengine.

        Raises:
            UserError: Something in the config cannot be built.
        """
        try:
            return super().train()
        except MISTAKES as error:
            if self.is_built or isinstance(error, UserError):
                raise
            raise config_mistake(error) from error

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict:
        """See mmengine; also under a torch that refuses its checkpoints."""
        with allow_histories():
            return super().load_checkpoint(*args, **kwargs)

    def load_or_resume(self) -> None:
        """See mmengine; without a file named, resume from the newest one that is sound."""
        self.is_built = True
        if self.interruption is not None:
            self.interruption.end_if_idle()  # the weights may have taken long
        where = places(Path(self.work_dir), self.hooks)
        if is_main_process():
            for folder in where.folders:
                remove_leftovers(folder)
        if self._has_loaded or not self._resume or self._load_from is not None:
            super().load_or_resume()
            return
        found = [newest_sound(where, self._is_ours) if is_main_process() else None]
        broadcast_object_list(found)
        if found[0] is None:
            warn(f'{self.work_dir}: no checkpoint to resume from found: starts at iteration 0')
            return
        self.resume(str(found[0]))

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """See mmengine; random states and data are set as the training loop begins."""
        super().resume(filename, *args, **kwargs)
        if not self.loaded_optimizer:
            warn(f'{filename}: no state of the optimizer found, expected one: it begins anew')
        if any(isinstance(hook, EarlyStoppingHook) for hook in self.hooks):
            warn(
                'EarlyStoppingHook: no count of validations found, expected one (mmengine saves '
                'none): it begins anew'
            )
        state, self.loaded_state = self.loaded_state, None
        ranks = state['ranks'] if state else None
        if not ranks:
            warn(
                f'{filename}: no random states found, expected those that this package saves: what '
                'follows differs from an uninterrupted run'
            )
        elif len(ranks) != get_world_size():
            warn(
                f'{filename}: written by {len(ranks)} ranks, resumed by {get_world_size()}: what '
                'follows differs from an uninterrupted run'
            )
        else:
            self.progress.resumed = ranks[get_rank()]
            self._saved = self.iter, filename

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """See mmengine; a local file is whole or not there. Every rank comes here.

        Raises:
            UserError: It cannot be written; older ones are still there.
        """
        self.call_hook('exchange_over_ranks')  # hooks whose ranks saw different things
        own = None
        if isinstance(self.train_loop, tuple(OURS.values())):
            own = self.progress.state_dict(self.train_loop.position.state_dict())
        ranks = all_gather_object(own)
        self.states_of_ranks = None if own is None else ranks
        if not filename.startswith('best_'):  # mmengine's name for those that cannot be resumed
            meta = kwargs.get('meta') or {}
            self._saved = meta.get('iter', self.iter + 1), f'{out_dir}/{filename}'
        if not is_main_process():
            return
        if '://' in str(out_dir):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        with atomic_write(Path(out_dir, filename)) as aside:
            super().save_checkpoint(out_dir, aside.name, *args, **kwargs)

    def stop_if_asked(self) -> None:
        """End the process with a checkpoint and one line, if a signal asked for it.

        Raises:
            SystemExit: It did.
        """
        if self.interruption is not None and self.interruption.asked():
            self._stop()

    def validation_begins(self) -> None:
        """Find out where, during a validation, a signal can be acted on."""
        self._rounds = None
        loop = self.val_loop
        if get_world_size() > 1 and type(loop).run is ValLoop.run:  # of another nothing is known
            self._rounds = Rounds(len(loop.dataloader))

    def stop_validating_if_asked(self, batch: int) -> None:
        """As `stop_if_asked`, before a batch of a validation, which a resumed run repeats whole.

        Raises:
            SystemExit: It did.
        """
        if self.interruption is None:
            return
        if get_world_size() == 1:
            asked = self.interruption.asked()
        else:
            asked = self._rounds is not None and self._rounds.due(batch)
            asked = asked and self._rounds.ask(batch, self.interruption)
        if asked:
            self._stop(validating=True)

    def stop_if_kept(self) -> None:
        """As `stop_if_asked`, amid something that a checkpoint must not hold.

        Raises:
            SystemExit: It did.
        """
        if self.is_kept:
            self.stop_if_asked()

    def _stop(self, validating: bool = False) -> None:
        unkept = self.iter > 0 and not self.is_kept
        if unkept and (not validating or take_back_averages(self.hooks)):
            self._save_now()
        barrier()
        kept = 'before the first checkpoint'
        if self._saved is not None:
            kept = f'iteration {self._saved[0]} of {self.max_iters} is kept in {self._saved[1]}'
        self.interruption.end(f'{kept}; {GOES_ON}')

    @property
    def is_kept(self) -> bool:
        """Whether a checkpoint of this very iteration is written."""
        return self._saved is not None and self._saved[0] == self.iter

    def _validation_began(self) -> bool:
        loader = getattr(self._val_loop, 'dataloader', None)
        return getattr(loader, '_iterator', None) is not None  # kept where workers persist

    def _save_now(self) -> None:
        meta = dict(epoch=self.epoch, iter=self.iter)
        for hook in self.hooks:
            if isinstance(hook, CheckpointHook) and not hook.by_epoch:
                hook._save_checkpoint_with_step(self, self.iter, meta)
                return
        self.save_checkpoint(self.work_dir, f'iter_{self.iter}.pth', meta=meta, by_epoch=False)

    def _is_ours(self, path: Path) -> bool:
        """Whether a checkpoint is of this run. It is unless it is known to be of another one."""
        if self.run_id is None:
            return True
        try:
            with allow_histories():
                content = torch.load(path, map_location='cpu', mmap=True)
        except pickle.UnpicklingError:  # holds things of the user's own hooks
            return True
        return (content.get(KEY) or {}).get('run') in (None, self.run_id)
