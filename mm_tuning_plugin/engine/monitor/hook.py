"""The hook that watches stage one, and says once, with a remedy, what is not working."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.hooks import Hook

from mm_tuning_plugin.engine.common.files import CARRIED
from mm_tuning_plugin.engine.common.messages import warn
from mm_tuning_plugin.engine.monitor.rules import SHORTEST_RUN, Course, judge
from mm_tuning_plugin.engine.monitor.series import block_length
from mm_tuning_plugin.engine.monitor.singleton_classes import ENOUGH_BATCHES, LoneClasses
from mm_tuning_plugin.registry import HOOKS

RECALL = 'retrieval/recall@1'
SERIES = ('loss', 'variance', 'active', 'unmatched')
# Classes are looked at after a tenth of the run, when something can still be changed, and at its
# end: two lines at most.
CLASSES_AFTER = 0.1


@HOOKS.register_module()
class WatchHook(Hook):
    """Warn where tuning is not working: the rules are in `rules.py` and `lone.py`.

    It reads what mmengine has logged, on the host already, and the labels before they leave it: no
    device is waited for, and nothing of the training is touched. What it knows is carried by
    checkpoints, so that a resumed run says nothing twice and judges the whole run.

    Args:
        class_names: Names of the classes.
    """

    priority = 'NORMAL'  # after mmengine has taken in the iteration's scalars

    def __init__(self, class_names: Sequence[str]) -> None:
        self.lone = LoneClasses(class_names)
        self.course = Course(0)
        self.length = block_length(0)
        self.said: set[str] = set()
        self.warnings: list[str] = []
        self.classes_judged = False
        self.matches = False  # whether the loss counts triplets

    def before_train(self, runner: Any) -> None:
        """Learn how long the run will be."""
        self.course.max_iters = runner.max_iters
        self.length = block_length(runner.max_iters)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Count the nodes of each class."""
        self.lone.add(torch.cat(list(data_batch['labels'])))

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Take in the scalars; judge at the end of a block."""
        iteration, course = runner.iter + 1, self.course

        def logged(name: str) -> float | None:
            if name not in outputs:
                return None
            return float(runner.message_hub.get_scalar(f'train/{name}').current())

        triplets = logged('triplets')
        self.matches = self.matches or triplets is not None
        course.iteration = iteration
        course.loss.add(iteration, logged('loss'))
        course.variance.add(iteration, logged('embedding_variance'))
        course.active.add(iteration, logged('active_share') if triplets else None)
        course.unmatched.add(iteration, None if triplets is None else float(triplets == 0))
        if iteration % self.length:
            return
        for name in SERIES:
            getattr(course, name).close(iteration)
        course.lr = _learning_rate(runner)
        self.lone.exchange()
        self._judge()
        early = max(ENOUGH_BATCHES, CLASSES_AFTER * course.max_iters)
        if not self.classes_judged and iteration >= early:
            self.classes_judged = True
            self._judge_classes()

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Take in recall@1."""
        recall = (metrics or {}).get(RECALL)
        if recall is not None:
            self.course.recalls[runner.iter] = float(recall)
            self._judge()

    def after_train(self, runner: Any) -> None:
        """Look at the classes once more."""
        self.lone.exchange()
        self._judge_classes()

    def exchange_over_ranks(self, runner: Any) -> None:
        """Bring together what the ranks saw; every rank comes here before a checkpoint."""
        self.lone.exchange()

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Carry all of it over an interruption."""
        course = self.course
        checkpoint.setdefault(CARRIED, {})['watch'] = dict(
            said=sorted(self.said),
            warnings=list(self.warnings),
            recalls=dict(course.recalls),
            classes_judged=self.classes_judged,
            matches=self.matches,
            lone=self.lone.state_dict(),
            **{name: getattr(course, name).state_dict() for name in SERIES},
        )

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Take it up."""
        carried = checkpoint.get(CARRIED, {}).get('watch')
        if carried is None:  # of an earlier version: the watch begins here
            return
        self.said, self.warnings = set(carried['said']), list(carried['warnings'])
        self.course.recalls = dict(carried['recalls'])
        self.classes_judged, self.matches = carried['classes_judged'], carried['matches']
        self.lone.load_state_dict(carried['lone'])
        for name in SERIES:
            getattr(self.course, name).load_state_dict(carried[name])

    def _judge(self) -> None:
        for finding in judge(self.course, self.said):
            self._say(finding.text)

    def _judge_classes(self) -> None:
        if self.matches and self.course.max_iters >= SHORTEST_RUN:
            text = self.lone.judge(self.course.iteration)
            if text is not None:
                self._say(text)

    def _say(self, text: str) -> None:
        self.warnings.append(text)
        warn(text)


def _learning_rate(runner: Any) -> float | None:
    """The largest of the rates that the optimizers have now."""
    rates = runner.optim_wrapper.get_lr()
    values = [rate for name, group in rates.items() if name.endswith('lr') for rate in group]
    return max(values, default=None)
