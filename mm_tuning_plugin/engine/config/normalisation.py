"""How the user's data preprocessor normalises images.

Stage one has its own preprocessor, which normalises in the same way. The config of mmseg's
`SegDataPreProcessor` gives mean, std and channel order. A class derived from it may set them in its
constructor, so one is built and read. Methods that it overrides have no effect in stage one.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmengine.registry import MODELS, DefaultScope

from mm_tuning_plugin.config_types import ConfigMap, class_of, shown_type
from mm_tuning_plugin.datasets.wrappers import random_state
from mm_tuning_plugin.errors import UserError


class Normalisation(NamedTuple):
    """How the user's preprocessor changes pixels: see `NodeDataPreprocessor`."""

    mean: list[float] | None
    std: list[float] | None
    swap_channels: bool
    seg_pad_val: int


class Derived(NamedTuple):
    """A preprocessor whose class is derived from mmseg's.

    Attributes:
        built: The preprocessor, built from the config.
        overridden: Methods of mmseg's class that it overrides.
        options: Options in the config that mmseg's class does not have.
    """

    built: Any
    overridden: list[str]
    options: list[str]


def read_normalisation(cfg: ConfigMap) -> Normalisation:
    """Return mean, std, channel order and the padding value of label maps.

    Raises:
        UserError: The preprocessor has an unknown type, or cannot be built.
    """
    config = _config(cfg)
    if config is None:
        return Normalisation(None, None, False, 255)
    found = Normalisation(
        mean=_floats(config.get('mean')),
        std=_floats(config.get('std')),
        swap_channels=bool(config.get('bgr_to_rgb') or config.get('rgb_to_bgr')),
        seg_pad_val=255 if config.get('seg_pad_val') is None else config['seg_pad_val'],
    )
    derived = read_derived(cfg)
    return found if derived is None else _of(derived.built, found)


def read_size(cfg: ConfigMap) -> Sequence[int] | None:
    """Return the (H, W), in pixels, to which the preprocessor pads in training.

    Raises:
        UserError: As `read_normalisation`.
    """
    derived = read_derived(cfg)
    size: Sequence[int] | None
    size = (_config(cfg) or {}).get('size') if derived is None else derived.built.size
    return size


def read_derived(cfg: ConfigMap) -> Derived | None:
    """Build the preprocessor if its class is derived from mmseg's; None if it is mmseg's own.

    Raises:
        UserError: It has another type, or cannot be built.
    """
    config = _config(cfg)
    if config is None or config.get('type') is None:
        return None
    from mmseg.models.data_preprocessor import SegDataPreProcessor

    scope = cfg.get('default_scope') or 'mmseg'
    known = class_of(config, MODELS, scope)
    if known is SegDataPreProcessor:
        return None
    if not (isinstance(known, type) and issubclass(known, SegDataPreProcessor)):
        raise UserError(
            'data_preprocessor',
            f'{shown_type(config)} found, whose config does not tell how it normalises images',
            'expected SegDataPreProcessor or a class derived from it',
        )
    try:
        with random_state(0), DefaultScope.overwrite_default_scope(scope):
            built = MODELS.build(dict(config))
    except Exception as error:  # a constructor of the user's can raise anything
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise UserError(
            'data_preprocessor',
            f'{known.__name__} cannot be built: {reason}',
            'correct its arguments or its class',
        ) from error
    own = known.__mro__[: known.__mro__.index(SegDataPreProcessor)]
    defined = {name for kind in own for name, value in vars(kind).items() if _is_method(value)}
    overridden = sorted(defined & set(dir(SegDataPreProcessor)) - {'__init__'})
    return Derived(built, overridden, _unknown_options(config, SegDataPreProcessor))


def describe_derived(derived: Derived) -> str:
    """Return one line on what stage one uses of a preprocessor, and what it ignores."""
    name = type(derived.built).__name__
    line = (
        f'data_preprocessor: {name} is not used in stage one, which takes its mean, std, channel '
        'order and seg_pad_val'
    )
    if derived.overridden:
        line += f'; it ignores the overridden methods {", ".join(derived.overridden)}'
    if derived.options:
        line += f'; it ignores the options {", ".join(derived.options)}'
    return line


def _config(cfg: ConfigMap) -> ConfigMap | None:
    return cfg['model'].get('data_preprocessor') or cfg.get('data_preprocessor')


def _is_method(value: object) -> bool:
    return callable(value) or isinstance(value, (property, staticmethod, classmethod))


def _unknown_options(config: ConfigMap, stock: type) -> list[str]:
    known = inspect.signature(stock).parameters
    return sorted(str(key) for key in config if key != 'type' and key not in known)


def _of(built: Any, config: Normalisation) -> Normalisation:
    """Read a built preprocessor. Numbers that equal the config's are the config's."""
    normalises = getattr(built, '_enable_normalize', False)
    swaps = getattr(built, '_channel_conversion', getattr(built, 'channel_conversion', False))
    return Normalisation(
        mean=_numbers(built.mean, config.mean) if normalises else None,
        std=_numbers(built.std, config.std) if normalises else None,
        swap_channels=bool(swaps),
        seg_pad_val=int(built.seg_pad_val),
    )


def _numbers(values: torch.Tensor, config: list[float] | None) -> list[float]:
    """Return the numbers of a buffer, or the config's if they are equal in float32."""
    flat = values.flatten().cpu()
    if config is not None and torch.equal(flat, torch.tensor(config).to(flat)):
        return config
    return [float(value) for value in flat]


def _floats(values: Sequence[Any] | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]
