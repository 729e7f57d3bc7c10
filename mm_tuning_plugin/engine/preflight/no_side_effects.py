"""Building things to look at them, and leaving no trace of it in the process."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections import OrderedDict
from collections.abc import Iterator

import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.utils import ManagerMixin

from mm_tuning_plugin.datasets.wrappers import random_state
from mm_tuning_plugin.engine.resume import rng_states


@contextlib.contextmanager
def no_trace(scope: str) -> Iterator[None]:
    """Build temporary objects inside the block.

    Afterwards, random states, mmengine's named instances (message hubs, visualizers, loggers,
    scopes) and warning filters are restored. There is no output in the block. Files that the
    objects write are not removed.

    Args:
        scope: Of unprefixed types.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_device_state_kept())
        stack.enter_context(random_state(0))
        stack.enter_context(_instances_kept())
        stack.enter_context(_silence())
        stack.enter_context(DefaultScope.overwrite_default_scope(scope))
        yield


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppress output and warnings of constructors; the run shows them again.

    Constructors of optimizers print and log a line for every parameter.
    """
    # mmengine's loggers note which levels are enabled, and do not hear of a change: ones that are
    # made inside the block are asked there, and forgotten with it.
    MMLogger._instance_dict = OrderedDict()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _device_state_kept() -> Iterator[None]:
    """Restore the CUDA generator, if CUDA is in use by now."""
    state = rng_states.capture_device() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        rng_states.restore_device(state)


@contextlib.contextmanager
def _instances_kept() -> Iterator[None]:
    """Forget the named instances of mmengine that the block made, and bring back all others."""
    before = {kind: OrderedDict(kind._instance_dict) for kind in _managers(ManagerMixin)}
    try:
        yield
    finally:
        for kind in _managers(ManagerMixin):
            kind._instance_dict = before.get(kind, OrderedDict())


def _managers(kind: type) -> list[type]:
    """All classes that keep instances by name."""
    return [kind, *(found for child in kind.__subclasses__() for found in _managers(child))]
