"""Augmentation that tuning has beside the config's own: the option ``augment``.

`pipelines.with_augmentation` says where it stands. A comparison gives it to fine-tuning as well.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from mm_tuning_plugin.config_types import base_type
from mm_tuning_plugin.engine.config.derive_pipelines import (
    CROPS,
    FLIPS,
    GEOMETRIC,
    NEVER,
    PACKING,
    types_within,
)

Steps = Sequence[Mapping[str, Any]]

# Twice the ranges of mmseg's PhotoMetricDistortion, and scales by the image itself, so that
# they multiply those that the config has.
AUGMENTATIONS: dict[str, list[dict[str, Any]]] = {
    'strong': [
        dict(
            type='RandomChoice',
            transforms=[
                [dict(type='Resize', scale_factor=factor, keep_ratio=True)]
                for factor in (0.5, 0.71, 1.0, 1.41, 2.0)
            ],
        ),
        dict(
            type='PhotoMetricDistortion',
            brightness_delta=64,
            contrast_range=(0.25, 1.75),
            saturation_range=(0.0, 2.0),
            hue_delta=36,
        ),
    ]
}


def is_augmentation(value: Any) -> bool:
    """Whether a value is None, a name in `AUGMENTATIONS`, or a list of transforms' configs."""
    if value is None or isinstance(value, str):
        return value is None or value in AUGMENTATIONS
    return isinstance(value, (list, tuple)) and all(_is_step(step) for step in value)


def augmentation(value: str | Steps | None) -> list[dict[str, Any]]:
    """The transforms that a value of the option stands for."""
    steps = AUGMENTATIONS[value] if isinstance(value, str) else value or ()
    return [copy.deepcopy(dict(step)) for step in steps]


def moves_without_crop(pipeline: Steps, extra: Steps) -> bool:
    """Whether transforms change the size of images that the pipeline then leaves so."""
    moving = [kind for kind in types_within(extra) if kind in GEOMETRIC and kind not in FLIPS]
    return bool(moving) and not any(base_type(step) in CROPS for step in pipeline)


def _is_step(step: Any) -> bool:
    named = isinstance(step, Mapping) and bool(base_type(step))
    return named and base_type(step) not in NEVER + PACKING
