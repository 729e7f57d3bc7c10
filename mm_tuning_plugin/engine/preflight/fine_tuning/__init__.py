"""Looking at fine-tuning before anything is trained: what only it would meet is told at once."""

from mm_tuning_plugin.engine.preflight.fine_tuning.look import (
    look_at_fine_tuning,
    look_at_first_batch,
)

__all__ = ['look_at_fine_tuning', 'look_at_first_batch']
