"""End a run after a few iterations without changing its config.

A smaller ``max_iters`` would make it another run: schedulers would begin after its end, and hooks
would refuse it. So the config keeps its length, and the run stops early as if it were complete.
"""

from __future__ import annotations

from typing import Any

from mmengine.config import Config
from mmengine.runner import BaseLoop, EpochBasedTrainLoop

from mm_tuning_plugin.engine.resume.runner import ResumableRunner
from mm_tuning_plugin.engine.runner import MixAndMatchRunner


class Enough(Exception):
    """The wanted iterations are done. Raised and caught in this module."""


def cut_short(kind: type[ResumableRunner], iterations: int) -> type[ResumableRunner]:
    """A subclass of a Runner that ends after `iterations` iterations.

    It then writes a checkpoint, validates if the config has a validation, and calls the hooks of
    the end. It works with any training loop. A shorter run ends as usual.

    Args:
        kind: The class of the Runner.
        iterations: At least 1.
    """

    class Short(kind):  # type: ignore[valid-type, misc]
        taken = 0

        def call_hook(self, fn_name: str, **kwargs: Any) -> None:
            super().call_hook(fn_name, **kwargs)
            if fn_name == 'after_train_iter':  # every hook has been called
                self.taken += 1
                if self.taken == iterations:
                    raise Enough

        def build_train_loop(self, loop: Any) -> Any:
            built = super().build_train_loop(loop)
            if not isinstance(loop, BaseLoop):  # a loop that is already built is wrapped already
                run_whole = built.run
                built.run = lambda: self.run_short(built, run_whole)
            return built

        def run_short(self, loop: Any, run: Any) -> Any:
            try:
                return run()
            except Enough:
                pass
            loop._iter += 1  # a loop counts an iteration after its hooks
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
    """Both stages, each of which ends after `iterations` iterations."""

    iterations = 2

    def _build(self, kind: type[ResumableRunner], cfg: Config) -> Any:
        return super()._build(cut_short(kind, self.iterations), cfg)
