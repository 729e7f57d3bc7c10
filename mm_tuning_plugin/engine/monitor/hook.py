"""The hook that monitors stage one. It warns of each problem once, with a remedy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mm_tuning_plugin.engine.common.files import CARRIED
from mm_tuning_plugin.engine.common.messages import warn
from mm_tuning_plugin.engine.monitor.block_means import block_length
from mm_tuning_plugin.engine.monitor.rules import (
    CLASSES_JUDGED_FROM,
    MIN_BATCHES_WITH_CLASS,
    SHORTEST_JUDGED_RUN,
    RunHistory,
    judge,
)
from mm_tuning_plugin.engine.monitor.singleton_classes import SingletonClasses
from mm_tuning_plugin.registry import HOOKS

RECALL = 'retrieval/recall@1'
SERIES = ('loss', 'variance', 'active', 'unmatched')


@HOOKS.register_module()
class WatchHook(Hook):
    """Warn if tuning is not working; `rules.py` has the rules and their thresholds.

    It reads scalars that mmengine has on the host and labels before they leave it, so it waits for
    no device and changes nothing of the training. Checkpoints hold its state: a resumed run judges
    the whole run and repeats no warning.

    Args:
        class_names: Names of the classes.
    """

    priority = 'NORMAL'  # after mmengine has logged the iteration

    def __init__(self, class_names: Sequence[str]) -> None:
        self.singletons = SingletonClasses(class_names)
        self.history = RunHistory(0)
        self.length = block_length(0)
        self.said: set[str] = set()
        self.warnings: list[str] = []
        self.classes_judged = False
        self.matches = False  # whether the loss counts triplets

    def before_train(self, runner: Runner) -> None:
        """Read the length of the run."""
        self.history.max_iters = runner.max_iters
        self.length = block_length(runner.max_iters)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Count the nodes of each class."""
        self.singletons.add(torch.cat(list(data_batch['labels'])))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Add the scalars; judge at the end of a block."""
        iteration, history = runner.iter + 1, self.history

        def logged(name: str) -> float | None:
            if name not in outputs:
                return None
            return float(runner.message_hub.get_scalar(f'train/{name}').current())

        triplets = logged('triplets')
        self.matches = self.matches or triplets is not None
        history.iteration = iteration
        history.loss.add(iteration, logged('loss'))
        history.variance.add(iteration, logged('embedding_variance'))
        history.active.add(iteration, logged('active_share') if triplets else None)
        history.unmatched.add(iteration, None if triplets is None else float(triplets == 0))
        if iteration % self.length:
            return
        for name in SERIES:
            getattr(history, name).close(iteration)
        history.lr = _learning_rate(runner)
        self.singletons.exchange()
        self._judge()
        early = max(MIN_BATCHES_WITH_CLASS, CLASSES_JUDGED_FROM * history.max_iters)
        if not self.classes_judged and iteration >= early:
            self.classes_judged = True
            self._judge_classes()

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Add recall@1."""
        recall = (metrics or {}).get(RECALL)
        if recall is not None:
            self.history.recalls[runner.iter] = float(recall)
            self._judge()

    def after_train(self, runner: Runner) -> None:
        """Judge the classes again."""
        self.singletons.exchange()
        self._judge_classes()

    def exchange_over_ranks(self, runner: Runner) -> None:
        """Sum the counts of all ranks; every rank calls this before a checkpoint."""
        self.singletons.exchange()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the state to the checkpoint."""
        history = self.history
        checkpoint.setdefault(CARRIED, {})['watch'] = dict(
            said=sorted(self.said),
            warnings=list(self.warnings),
            recalls=dict(history.recalls),
            classes_judged=self.classes_judged,
            matches=self.matches,
            lone=self.singletons.state_dict(),
            **{name: getattr(history, name).state_dict() for name in SERIES},
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore the state."""
        carried = checkpoint.get(CARRIED, {}).get('watch')
        if carried is None:  # from an earlier version: monitoring starts here
            return
        self.said, self.warnings = set(carried['said']), list(carried['warnings'])
        self.history.recalls = dict(carried['recalls'])
        self.classes_judged, self.matches = carried['classes_judged'], carried['matches']
        self.singletons.load_state_dict(carried['lone'])
        for name in SERIES:
            getattr(self.history, name).load_state_dict(carried[name])

    def _judge(self) -> None:
        for finding in judge(self.history, self.said):
            self._say(finding.text)

    def _judge_classes(self) -> None:
        if self.matches and self.history.max_iters >= SHORTEST_JUDGED_RUN:
            text = self.singletons.judge(self.history.iteration)
            if text is not None:
                self._say(text)

    def _say(self, text: str) -> None:
        self.warnings.append(text)
        warn(text)


def _learning_rate(runner: Runner) -> float | None:
    """The largest of the rates that the optimizers have now."""
    rates = runner.optim_wrapper.get_lr()
    values = [rate for name, group in rates.items() if name.endswith('lr') for rate in group]
    return max(values, default=None)
