"""The runner of stage two: a plain Runner that also receives the weights of the backbone."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from mm_tuning_plugin.engine.common.models import unwrap
from mm_tuning_plugin.engine.resume.runner import ResumableRunner

Handover = Callable[[nn.Module], None]
"""Puts weights into a backbone."""


class FineTuningRunner(ResumableRunner):
    """A plain Runner whose backbone receives weights right after the model's initialisation.

    The backbone's own loader is not used, so it cannot lose weights. mmengine's resume comes later
    and overrides them.
    """

    handover: Handover | None = None

    def _init_model_weights(self) -> None:
        super()._init_model_weights()
        if self.handover is not None:
            self.handover(unwrap(self.model).backbone)
