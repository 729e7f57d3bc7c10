"""Hugging Face's files into Hugging Face's own classes, whose names changed between versions.

``save_pretrained`` writes the names of the hub; modules of transformers 5 have others. The library
knows the way from the first to the second for each of its classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .rules import Naming, Tensors, rename_all

TITLE = "Hugging Face, the class's own"


def own_namings(backbone: nn.Module) -> tuple[Naming, ...]:
    """The convention that a class of transformers knows for its own files; none for others."""
    steps = _steps(backbone)
    if not steps:
        return ()

    def renamed(name: str) -> str:
        for step in steps:
            name = step.rename_source_key(name)[0]
        return name

    def from_the_hub(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
        return rename_all(tensors, lambda name: name if name in targets else renamed(name))

    return (Naming(TITLE, from_the_hub, square=False),)


def _steps(backbone: nn.Module) -> list[Any]:
    """The library's steps of renaming; those that compute are left out."""
    kinds = {kind.__module__.split('.')[0] for kind in type(backbone).__mro__}
    if 'transformers' not in kinds:
        return []
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping

        steps = get_model_conversion_mapping(backbone)  # type: ignore[arg-type]
    except Exception:  # before transformers 5 names were those of the hub
        return []
    return [step for step in steps if hasattr(step, 'rename_source_key') and not _computes(step)]


def _computes(step: Any) -> bool:
    return bool(getattr(step, 'operations', None))
