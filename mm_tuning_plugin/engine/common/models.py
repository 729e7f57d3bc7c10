"""The model inside its wrappers."""

from __future__ import annotations

import torch
from mmengine.model import is_model_wrapper


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """The model inside a distributed wrapper, or the model itself."""
    return model.module if is_model_wrapper(model) else model
