"""Which weights are in the model while it is validated."""

from __future__ import annotations

from collections.abc import Iterable

from mmengine.hooks import EMAHook, Hook

BEGINNINGS = ('before_val', 'before_val_epoch')
KNOWN = ('mmengine.', 'mm_tuning_plugin.')  # of their hooks, only EMAHook changes weights


def take_back_averages(hooks: Iterable[Hook]) -> bool:
    """Put the trained weights back, during a validation that is not going to end.

    mmengine's `EMAHook` exchanges them for averaged ones as the validation begins; to exchange
    them once more is to take it back.

    Returns:
        Whether the weights are the trained ones now. What a hook of the user's own does as a
        validation begins is not known: then nothing is changed.
    """
    hooks = list(hooks)
    begun = [getattr(type(hook), name) for hook in hooks for name in BEGINNINGS]
    if not all(method.__module__.startswith(KNOWN) for method in begun):
        return False
    for hook in reversed(hooks):
        if type(hook).before_val_epoch is EMAHook.before_val_epoch:
            hook._swap_ema_parameters()
    return True
