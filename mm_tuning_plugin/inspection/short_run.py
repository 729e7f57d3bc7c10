"""Runs that end after a few iterations, with all that is measured against their length kept whole.

A config with a smaller ``max_iters`` is another run: its schedulers begin behind its end, and hooks
refuse it. Here the config stays as it is, with its loop, and the run stops as if it were done.
"""

from __future__ import annotations

from typing import Any

from mmengine.config import Config
from mmengine.runner import BaseLoop, EpochBasedTrainLoop

from mm_tuning_plugin.engine.resume.runner import ResumableRunner
from mm_tuning_plugin.engine.runner import MixAndMatchRunner


class Enough(Exception):
    """The iterations that were wanted are done; it never leaves this module."""


def cut_short(kind: type[ResumableRunner], iterations: int) -> type[ResumableRunner]:
    """A kind of Runner that ends after a few iterations as if they were all.

    It then writes a checkpoint, validates if the run ever does, and calls the hooks of the end.
    That goes for any training loop; a run that is shorter ends by itself.

    Args:
        kind: Of Runner.
        iterations: How many, from 1.
    """

    class Short(kind):  # type: ignore[valid-type, misc]
        taken = 0

        def call_hook(self, fn_name: str, **kwargs: Any) -> None:
            super().call_hook(fn_name, **kwargs)
            if fn_name == 'after_train_iter':  # every hook has been there
                self.taken += 1
                if self.taken == iterations:
                    raise Enough

        def build_train_loop(self, loop: Any) -> Any:
            built = super().build_train_loop(loop)
            if not isinstance(loop, BaseLoop):  # else it was built before
                whole = built.run
                built.run = lambda: self.run_short(built, whole)
            return built

        def run_short(self, loop: Any, run: Any) -> Any:
            try:
                return run()
            except Enough:
                pass
            loop._iter += 1  # a loop counts behind its hooks
            if not self.is_kept:
                self._save_now()
            self.call_hook('after_train_epoch')
            if isinstance(loop, EpochBasedTrainLoop):
                loop._epoch += 1
            if self.val_loop is not None:
                self.val_loop.run()
            self.call_hook('after_train')
            return self.model

    return Short


class ShortRun(MixAndMatchRunner):
    """Both stages, each ended after `iterations` iterations."""

    iterations = 2

    def _build(self, kind: type[ResumableRunner], cfg: Config) -> Any:
        return super()._build(cut_short(kind, self.iterations), cfg)
