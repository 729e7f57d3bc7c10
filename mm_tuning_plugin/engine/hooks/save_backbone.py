"""Writes the tuned backbone."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mm_tuning_plugin import __version__
from mm_tuning_plugin.atomic_write import write_text
from mm_tuning_plugin.checkpoint import hash_state_dict, save_backbone
from mm_tuning_plugin.engine.common.files import CARRIED, LOAD_REPORT, TUNED_BACKBONE
from mm_tuning_plugin.engine.common.messages import warn
from mm_tuning_plugin.engine.common.models import unwrap
from mm_tuning_plugin.engine.config.learning_rates import trains_backbone
from mm_tuning_plugin.engine.hooks.finite import require_finite
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.registry import HOOKS


@HOOKS.register_module()
class SaveBackboneHook(Hook):
    """Measure node retrieval before tuning, and write the tuned backbone at its end.

    The file is ``tuned_backbone.pth``: ``{'state_dict': plain keys, 'meta': ...}``, of the *last*
    iteration: choosing one by validation labels would leak them into one arm of a comparison.

    Args:
        fingerprint: What determines the tuned weights; goes into ``meta``.
    """

    priority = 'LOW'

    def __init__(self, fingerprint: dict | None = None) -> None:
        self.fingerprint = fingerprint
        self.hash_before: str | None = None
        self.resumed_hash: str | None = None
        self.retrieval: dict[str, dict[str, float]] = {}

    def before_train(self, runner: Runner) -> None:
        """Keep the hash of the start, write its LoadReport, measure retrieval once.

        Raises:
            UserError: The optimizer moves no parameter of the backbone.
        """
        model = unwrap(runner.model)
        if not trains_backbone(runner.optim_wrapper.param_groups, model):
            raise UserError(
                'optim_wrapper',
                'the learning rate of every parameter of the backbone is 0, so nothing is tuned',
                'expected a larger one for some of them (mix_and_match.lr sets that of stage one)',
            )
        self.hash_before = self.resumed_hash or hash_state_dict(model.backbone.state_dict())
        report = getattr(model, 'load_report', None)
        if report is not None:
            runner.logger.info(f'start of the backbone:\n{report}')
            if is_main_process():
                write_text(Path(runner.work_dir, LOAD_REPORT), report.to_json())
        if runner.iter == 0 and runner.val_loop is not None:
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics=None) -> None:
        """Remember the measurements by iteration."""
        self.retrieval[str(runner.iter)] = {k: float(v) for k, v in (metrics or {}).items()}

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the measurements in the checkpoint."""
        checkpoint.setdefault(CARRIED, {}).update(
            hash_before=self.hash_before, retrieval=self.retrieval
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore the measurements from a checkpoint."""
        carried = checkpoint.get(CARRIED, {})
        self.retrieval.update(carried.get('retrieval', {}))
        self.resumed_hash = carried.get('hash_before')

    def after_train(self, runner: Runner) -> None:
        """Write the backbone; warn if tuning did not change it.

        Raises:
            UserError: Its weights are not finite.
        """
        state_dict = unwrap(runner.model).backbone.state_dict()
        require_finite(state_dict, f'tuned backbone, after iteration {runner.iter}')
        hash_after = hash_state_dict(state_dict)
        if hash_after == self.hash_before:
            warn('tuning did not change a single weight of the backbone')
        if not is_main_process():
            return
        meta = dict(
            mm_tuning_plugin=__version__,
            iterations=runner.iter,
            fingerprint=self.fingerprint,
            hash_before=self.hash_before,
            hash_after=hash_after,
            retrieval=self.retrieval,
        )
        path = os.path.join(runner.work_dir, TUNED_BACKBONE)
        save_backbone(path, state_dict, meta)
        runner.logger.info(f'tuned backbone written to {path}')
