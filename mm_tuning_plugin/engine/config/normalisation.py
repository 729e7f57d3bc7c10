"""What a user's data preprocessor does to pixels, of which stage one has a preprocessor of its own.

mmseg's `SegDataPreProcessor` says it in its config. A class derived from it may say it in its
constructor, so one is built and asked; what it does in methods of its own is not taken over.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.registry import MODELS, DefaultScope

from mm_tuning_plugin.config_types import class_of, shown_type
from mm_tuning_plugin.datasets.wrappers import random_state
from mm_tuning_plugin.errors import UserError


class Normalisation(NamedTuple):
    """What the user's preprocessor does to pixels: see `NodeDataPreprocessor`."""

    mean: list[float] | None
    std: list[float] | None
    swap_channels: bool
    seg_pad_val: int


class Derived(NamedTuple):
    """A preprocessor of a class that is derived from mmseg's.

    Attributes:
        built: As the config says.
        overridden: Methods of mmseg's class that its own class defines anew.
        options: What the config gives it that mmseg's class does not know.
    """

    built: Any
    overridden: list[str]
    options: list[str]


def read_normalisation(cfg: Mapping[str, Any]) -> Normalisation:
    """Mean, std, channel order and the padding of label maps.

    Raises:
        UserError: The preprocessor is of an unknown type, or cannot be built.
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


def read_size(cfg: Mapping[str, Any]) -> Sequence[int] | None:
    """The (H, W) to which the preprocessor pads in training, pixels.

    Raises:
        UserError: As `read_normalisation`.
    """
    derived = read_derived(cfg)
    size: Sequence[int] | None
    size = (_config(cfg) or {}).get('size') if derived is None else derived.built.size
    return size


def read_derived(cfg: Mapping[str, Any]) -> Derived | None:
    """The preprocessor where its class is derived from mmseg's; None where it is mmseg's.

    Raises:
        UserError: It is of another type, or cannot be built.
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
    """One line: what stage one takes over of a preprocessor, and what it does not."""
    name = type(derived.built).__name__
    told = (
        f'data_preprocessor: {name} is not used in stage one, which takes its mean, std, channel '
        'order and seg_pad_val'
    )
    if derived.overridden:
        told += f'; not taken over: what it does in its own {", ".join(derived.overridden)}'
    if derived.options:
        told += f'; without effect there: {", ".join(derived.options)}'
    return told


def _config(cfg: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return cfg['model'].get('data_preprocessor') or cfg.get('data_preprocessor')


def _is_method(value: Any) -> bool:
    return callable(value) or isinstance(value, (property, staticmethod, classmethod))


def _unknown_options(config: Mapping[str, Any], stock: type) -> list[str]:
    known = inspect.signature(stock).parameters
    return sorted(str(key) for key in config if key != 'type' and key not in known)


def _of(built: Any, said: Normalisation) -> Normalisation:
    """What a preprocessor really does; in the config's own numbers where they are the same."""
    normalises = getattr(built, '_enable_normalize', False)
    swaps = getattr(built, '_channel_conversion', getattr(built, 'channel_conversion', False))
    return Normalisation(
        mean=_same(built.mean, said.mean) if normalises else None,
        std=_same(built.std, said.std) if normalises else None,
        swap_channels=bool(swaps),
        seg_pad_val=int(built.seg_pad_val),
    )


def _same(values: torch.Tensor, said: list[float] | None) -> list[float]:
    """The numbers of a buffer, in the precision of the config."""
    flat = values.flatten().cpu()
    if said is not None and torch.equal(flat, torch.tensor(said).to(flat)):
        return said
    return [float(value) for value in flat]


def _floats(values: Sequence[Any] | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]
