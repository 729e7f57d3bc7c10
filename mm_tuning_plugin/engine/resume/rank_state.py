"""What a checkpoint holds in addition to mmengine's content, so that a run resumes to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mm_tuning_plugin.config_types import PlainConfig
from mm_tuning_plugin.engine.resume.rng_states import (
    capture,
    capture_device,
    restore,
    restore_device,
)


class Progress:
    """The random states of one rank, and whether they are from before or after a validation.

    mmengine writes the checkpoint of an iteration, then validates, and may write it again with the
    best score. So a checkpoint records whether the validation of its iteration is done, and holds
    the matching random states.

    Args:
        validation_began: Whether the validation's loading workers already run and stay: then
            its next pass draws no seed, which the first one draws from torch's random state.

    Attributes:
        validated: Whether the validation after the latest iteration is done.
        resumed: State of this rank that a resume has read; None if there is none.
    """

    def __init__(self, validation_began: Callable[[], bool]) -> None:
        self.validation_began = validation_began
        self.validated = False
        self.resumed: PlainConfig | None = None
        self._before: PlainConfig | None = None

    @contextmanager
    def validation(self) -> Iterator[None]:
        """Around a validation: until `validated` is set, the states are those of its beginning."""
        self.validated, self._before = False, self._now()
        try:
            yield
        finally:
            self._before = None

    def state_dict(self, data: PlainConfig) -> PlainConfig:
        """This rank's part of a checkpoint: built-ins and tensors only.

        Args:
            data: Position in its data.
        """
        states = self._now() if self.validated or self._before is None else self._before
        return dict(states, data=data, validated=self.validated)

    def restore(self, state: PlainConfig) -> None:
        """Set the random states of a checkpoint."""
        restore(state['random'])
        restore_device(state['device'])
        self.validated = state['validated']

    def _now(self) -> PlainConfig:
        return dict(
            random=capture(),
            device=capture_device(),
            validation_began=self.validation_began(),
        )
