"""Check fine-tuning before anything is trained, so that its mistakes are reported at once."""

from mm_tuning_plugin.engine.preflight.fine_tuning.look import (
    look_at_fine_tuning,
    look_at_first_batch,
)

__all__ = ['look_at_fine_tuning', 'look_at_first_batch']
