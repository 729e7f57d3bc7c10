"""A hook that keeps what a benchmark asks of a run: its beginning, its seconds, its memory."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from mm_tuning_plugin.checkpoint import hash_state_dict, save_backbone
from mm_tuning_plugin.engine.common.files import CARRIED, write_json
from mm_tuning_plugin.engine.common.models import unwrap
from mm_tuning_plugin.registry import HOOKS

START = 'start_backbone.pth'
OBSERVED = 'observed.json'


@HOOKS.register_module()
class ObserveHook(Hook):
    """Write the backbone that a run begins from, and at its end what the run took.

    It only observes. ``start_backbone.pth`` is written as the first iteration begins;
    ``observed.json`` at the end: ``seconds`` from the first iteration to the last, validation
    included (what an interrupted run did behind its last checkpoint is not counted, as it was done
    again), ``iterations``, ``peak_memory_mib`` of this process or of its GPU.

    Args:
        folder: Where they are written.
    """

    priority = 'LOW'

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.seconds = 0.0  # up to the checkpoint that was resumed
        self.peak = 0.0
        self.begun = 0.0

    def before_train(self, runner: Any) -> None:
        """Keep the start; start the clock."""
        if runner.iter == 0 and is_main_process():
            state_dict = unwrap(runner.model).backbone.state_dict()
            meta = dict(hash_after=hash_state_dict(state_dict))
            save_backbone(self.folder / START, state_dict, meta)
        self.begun = time.monotonic()

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Carry seconds and memory over an interruption."""
        own = dict(seconds=self._elapsed(), peak=max(self.peak, peak_memory_mib()))
        checkpoint.setdefault(CARRIED, {})['observed'] = own

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Take them up."""
        own = checkpoint.get(CARRIED, {}).get('observed', {})
        self.seconds, self.peak = own.get('seconds', 0.0), own.get('peak', 0.0)

    def after_train(self, runner: Any) -> None:
        """Write what the run took."""
        if is_main_process():
            content = dict(
                seconds=round(self._elapsed(), 2),
                iterations=runner.iter,
                peak_memory_mib=round(max(self.peak, peak_memory_mib()), 1),
            )
            write_json(self.folder / OBSERVED, content)

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self.begun


def peak_memory_mib() -> float:
    """Most memory so far: allocated on the GPU, else resident in this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == 'darwin' else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
