"""The progress line of a run, over all of its stages."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mm_tuning_plugin.config_types import ConfigMap
from mm_tuning_plugin.engine.config.options import Options
from mm_tuning_plugin.engine.monitor.display import make_display
from mm_tuning_plugin.engine.monitor.progress_hook import ProgressHook
from mm_tuning_plugin.engine.monitor.status import Stage, Status

TUNING, FINE_TUNING = 'tuning', 'fine-tuning'


class ProgressLine(contextlib.ExitStack):
    """Context manager that shows the progress of a run, on the main rank only.

    The terminal is restored however the block ends.

    Args:
        stages: All stages that will run, in order.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.status = Status(stages)

    def __enter__(self) -> ProgressLine:
        super().__enter__()
        self.display = self.enter_context(make_display()) if is_main_process() else None
        return self

    def follow(self, runner: Runner, stage: str) -> None:
        """Show the progress of a stage.

        Args:
            runner: Its runner, before it trains.
            stage: Name of the stage.
        """
        if self.display is not None:
            index = [known.name for known in self.status.stages].index(stage)
            runner.register_hook(ProgressHook(self.status, self.display, index))


def stages_of(cfg: ConfigMap, options: Options) -> list[Stage]:
    """The stages that a run of a config will have.

    Args:
        cfg: The user's config.
        options: Resolved ``mix_and_match``.
    """
    stages = [Stage(FINE_TUNING, length_of(cfg.get('train_cfg') or {}))]
    if options.enabled and options.tuned_backbone is None:
        stages.insert(0, tuning_stage(options))
    return stages


def tuning_stage(options: Options) -> Stage:
    """Stage one of a run with these resolved options."""
    return Stage(TUNING, f'{options.max_iters} iterations')


def length_of(train_cfg: ConfigMap) -> str:
    """Length of a training loop, in words."""
    for unit, name in (('max_epochs', 'epochs'), ('max_iters', 'iterations')):
        if train_cfg.get(unit) is not None:
            return f'{train_cfg[unit]} {name}'
    return 'of unknown length'
