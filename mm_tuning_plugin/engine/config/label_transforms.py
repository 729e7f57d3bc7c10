"""The label check and the transforms around it.

After the check, a label map has 8 bits, and 255 is the only ignored value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmseg.registry import TRANSFORMS

from mm_tuning_plugin.config_types import ConfigMap, PlainConfig, base_type, class_of
from mm_tuning_plugin.datasets.cached import without_cache
from mm_tuning_plugin.datasets.label_files import loader_of
from mm_tuning_plugin.errors import UserError

KNOWN_PACKAGES = ('mmseg', 'mmcv', 'mm_tuning_plugin')  # their transforms do not load labels again
# Values that transforms fill label maps with: Pad, RandomRotate, RandomCutOut, Albu (two versions).
FILLING_KEYS = ('pad_val.seg', 'seg_pad_val', 'seg_fill_in', 'mask_value', 'fill_mask')
COUNTING_KEYS = ('ignore_index',)  # the value that RandomCrop does not count
MIXING = 'RandomMosaic'  # never kept in stage one; NumPy refuses a wrong fill value in stage two
Steps = Sequence[ConfigMap]


def with_loader(check: ConfigMap, before: Steps, pipeline: Steps) -> PlainConfig:
    """Copy the config of the label check and add how the user's transforms load labels.

    Nothing is added if mmseg's own ``LoadAnnotations`` reads labels from a folder and only known
    transforms follow it.

    Args:
        check: Config of the label check; empty for no check.
        before: The transforms before it.
        pipeline: All of the user's transforms.
    """
    found = dict(check)
    if not found:
        return found
    steps = without_cache([dict(step) for step in before])
    kinds = [class_of(step, TRANSFORMS) for step in steps]
    at = max((i for i, kind in enumerate(kinds) if loader_of(kind) != 'own'), default=None)
    if at is None:
        found['label_loader'] = 'own'
    else:
        if loader_of(kinds[at]) == 'either' or not all(map(_is_known, kinds[at + 1 :])):
            found['label_loader'] = 'either'
        if steps[at].get('backend_args'):
            found['backend_args'] = steps[at]['backend_args']
    behind = pipeline[list(pipeline).index(before[-1]) + 1 :] if before else pipeline
    negative = {value for step in behind for value in _fillings(step) if value < 0}
    if negative:
        found['filled'] = sorted(negative)
    return found


def in_bytes(step: ConfigMap, ignore_values: Sequence[int]) -> ConfigMap:
    """Make a transform after the check fill and count 255 in place of the ignored values.

    Args:
        step: Its config.
        ignore_values: Label values that the user's config ignores.

    Returns:
        The changed config, or `step` itself if all its values are in 0..255.

    Raises:
        UserError: It fills label maps with a value that is outside 0..255 and is not ignored.
    """

    def as_byte(key: str, value: float) -> float:
        if value in ignore_values:
            return 255
        if key in FILLING_KEYS:
            raise UserError(
                base_type(step),
                f'it fills label maps with {value}',
                f'expected 0 to 255, or one of the ignored values {sorted(ignore_values)}',
            )
        return value

    changed = _changed(step, as_byte)
    return step if changed == step else changed


def _fillings(step: ConfigMap) -> list[float]:
    """Return the values outside 0..255 that a transform fills label maps with."""
    found: list[float] = []

    def collect(key: str, value: float) -> float:
        if key in FILLING_KEYS:
            found.append(value)
        return value

    if base_type(step) != MIXING:
        _changed(step, collect)
    return found


def _changed(config: Any, change: Callable[[str, float], float], key: str = '') -> Any:
    """Copy nested configs; `change` replaces each label value outside 0..255."""
    if isinstance(config, Mapping):
        inside = f'{key}.' if key == 'pad_val' else ''
        return {k: _changed(part, change, inside + str(k)) for k, part in config.items()}
    if isinstance(config, (list, tuple)):
        parts = (_changed(part, change, key) for part in config)
        return tuple(parts) if isinstance(config, tuple) else list(parts)
    number = isinstance(config, (int, float)) and not 0 <= config <= 255
    return change(key, config) if number and key in FILLING_KEYS + COUNTING_KEYS else config


def _is_known(kind: type | None) -> bool:
    return kind is not None and kind.__module__.split('.')[0] in KNOWN_PACKAGES
