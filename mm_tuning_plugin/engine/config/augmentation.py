"""The option ``augment``: augmentation in addition to the config's own.

`derive_pipelines.with_augmentation` inserts it. In a comparison, fine-tuning gets it as well.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from mm_tuning_plugin.config_types import ConfigMap, PlainConfig, base_type
from mm_tuning_plugin.engine.config.derive_pipelines import (
    CROPS,
    FLIPS,
    GEOMETRIC,
    NEVER,
    PACKING,
    types_within,
)

Steps = Sequence[ConfigMap]

# 'strong' doubles the ranges of mmseg's PhotoMetricDistortion. Its scale factors apply to the image
# as it is, so they multiply the config's own.
AUGMENTATIONS: dict[str, list[PlainConfig]] = {
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


def is_augmentation(value: object) -> bool:
    """Whether a value is None, a name in `AUGMENTATIONS`, or a list of transform configs."""
    if value is None or isinstance(value, str):
        return value is None or value in AUGMENTATIONS
    return isinstance(value, (list, tuple)) and all(_is_step(step) for step in value)


def augmentation(value: str | Steps | None) -> list[PlainConfig]:
    """Return the transforms that a value of the option means."""
    steps = AUGMENTATIONS[value] if isinstance(value, str) else value or ()
    return [copy.deepcopy(dict(step)) for step in steps]


def moves_without_crop(pipeline: Steps, extra: Steps) -> bool:
    """Whether `extra` changes image sizes and no crop in the pipeline makes them equal again."""
    moving = [kind for kind in types_within(extra) if kind in GEOMETRIC and kind not in FLIPS]
    return bool(moving) and not any(base_type(step) in CROPS for step in pipeline)


def _is_step(step: object) -> bool:
    return isinstance(step, Mapping) and base_type(step) not in ('', *NEVER, *PACKING)
