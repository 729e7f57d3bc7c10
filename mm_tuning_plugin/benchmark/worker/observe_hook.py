"""A hook that records what a benchmark needs of a run: its first weights, time and memory."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from mm_tuning_plugin.atomic_write import write_json
from mm_tuning_plugin.checkpoint import hash_state_dict, save_backbone
from mm_tuning_plugin.engine.common.files import CARRIED
from mm_tuning_plugin.engine.common.models import unwrap
from mm_tuning_plugin.registry import HOOKS

START = 'start_backbone.pth'
OBSERVED = 'observed.json'


@HOOKS.register_module()
class ObserveHook(Hook):
    """Write the backbone that a run starts from, and at the end its time and memory.

    It changes nothing. It writes ``start_backbone.pth`` before the first iteration, and
    ``observed.json`` at the end: ``seconds`` from the first iteration to the last, including
    validation, without work that an interruption lost; ``iterations``; and ``peak_memory_mib`` of
    the GPU or, without one, of this process.

    Args:
        folder: Where both are written.
    """

    priority = 'LOW'

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.seconds = 0.0  # before the checkpoint that was resumed
        self.peak = 0.0
        self.start_time = 0.0

    def before_train(self, runner: Any) -> None:
        """Write the first weights and start the clock."""
        if runner.iter == 0 and is_main_process():
            state_dict = unwrap(runner.model).backbone.state_dict()
            meta = dict(hash_after=hash_state_dict(state_dict))
            save_backbone(self.folder / START, state_dict, meta)
        self.start_time = time.monotonic()

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Store seconds and memory, for a resumed run."""
        own = dict(seconds=self._elapsed(), peak=max(self.peak, peak_memory_mib()))
        checkpoint.setdefault(CARRIED, {})['observed'] = own

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Restore seconds and memory."""
        own = checkpoint.get(CARRIED, {}).get('observed', {})
        self.seconds, self.peak = own.get('seconds', 0.0), own.get('peak', 0.0)

    def after_train(self, runner: Any) -> None:
        """Write ``observed.json``."""
        if is_main_process():
            content = dict(
                seconds=round(self._elapsed(), 2),
                iterations=runner.iter,
                peak_memory_mib=round(max(self.peak, peak_memory_mib()), 1),
            )
            write_json(self.folder / OBSERVED, content)

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self.start_time


def peak_memory_mib() -> float:
    """Peak memory so far: allocated on the GPU, or resident in this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == 'darwin' else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
