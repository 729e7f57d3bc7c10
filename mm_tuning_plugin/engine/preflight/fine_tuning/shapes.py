"""A training step on shapes alone: what a network cannot read is found without computing.

Shape legend: N images, C channels, H x W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from types import FrameType
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mm_tuning_plugin.config_types import ConfigMap
from mm_tuning_plugin.engine.common.messages import MISTAKES
from mm_tuning_plugin.engine.preflight.fine_tuning.network import Network
from mm_tuning_plugin.engine.preflight.fine_tuning.registered import CORRECT, one_line
from mm_tuning_plugin.errors import UserError

# torch's messages for sizes that do not fit; some of them occur only on the 'meta' device.
_UNFIT = re.compile(
    r'to have \d+ channels, but got \d+|Invalid channel dimensions'
    r'|running_mean should contain|[Gg]iven normalized_shape'
    r'|vector of size equal to the number of channels|input to be divisible by num_groups'
    r'|shapes cannot be multiplied|same reduction dim|size mismatch|expecting embedding dimension'
    r'|weight tensor should be defined either for all'
    r'|Expected more than 1 value per channel'
    r'|must match the (?:existing )?size|Sizes of tensors must match'
    r'|Attempting to broadcast|must be broadcastable'
    r'|is invalid for input of size|index out of range'
)
_OF_DEVICES = re.compile('meta|cuda|gpu|device', re.IGNORECASE)
# Attributes of torch's layers for the number of input channels, and its dimension in their input.
_READS = (
    (nn.modules.conv._ConvNd, 'in_channels', 1),
    (nn.modules.batchnorm._BatchNorm, 'num_features', 1),
    (nn.GroupNorm, 'num_channels', 1),
    (nn.Linear, 'in_features', -1),
)


def check_step(network: Network, data: ConfigMap) -> None:
    """Take the forward half of a training step.

    Args:
        network: The segmentor.
        data: ``inputs`` (N, C, H, W) and ``data_samples``, as its preprocessor gives them.

    Raises:
        UserError: Something does not fit: channels, levels, weights of classes, missing labels.
    """
    error = _raised(network.seen, data)
    if error is None:
        return
    explained = _explained(network, data, error)
    if not explained and _is_of_the_config(error):
        error = _raised(network.real(), data)
        if error is not None and _is_of_the_config(error):
            lacking = 'weight tensor should be defined' in str(error)
            remedy = 'expected a class_weight with a value for each class' if lacking else CORRECT
            explained = (one_line(error), remedy)
    if explained and error is not None:
        place = '.'.join(filter(None, ('model', _place(network, error))))
        raise UserError(place, *explained) from error


def _raised(model: nn.Module, data: ConfigMap) -> Exception | None:
    """What a training step raises."""
    device = next(iter(model.parameters())).device
    try:
        with torch.no_grad(), MadeUp() if device.type == 'meta' else nullcontext():
            model(**_moved(data, device), mode='loss')
    except Exception as error:  # networks of the user's can raise anything
        return error
    return None


def _is_of_the_config(error: Exception) -> bool:
    """Whether the config causes an error, on any device.

    An operator that is not there for a device raises too, and is no mistake: training may run on
    another.
    """
    text = str(error)
    if isinstance(error, RuntimeError):
        return bool(_UNFIT.search(text))
    return isinstance(error, MISTAKES) and bool(text) and not _OF_DEVICES.search(text)


def _explained(network: Network, data: ConfigMap, error: Exception) -> tuple[str, str] | None:
    """Return problem and remedy if arithmetic shows them; None otherwise."""
    head = next((module for module in _modules(error) if hasattr(module, 'in_index')), None)
    read = next(filter(None, map(_read_and_given, _frames(error))), None)
    if head is not None and (read or isinstance(error, IndexError)):
        found = _levels(head, _given_to_heads(network, data))
        if found:
            return found
    if read:
        return (
            f'a layer of {read[0]} input channels found',
            f'expected the {read[1]} that come to it',
        )
    if isinstance(error, ValueError) and 'more than 1 value per channel' in str(error):
        return (
            f'BatchNorm over a single value found: {one_line(error)}',
            'expected a larger batch_size, or ranks with SyncBN',
        )
    return None


def _levels(head: nn.Module, given: Sequence[int]) -> tuple[str, str] | None:
    """What a head of mmseg's reads that it is not given, and a remedy; None if not known.

    Args:
        head: It.
        given: Channels of each feature map that comes to the heads.
    """
    index, read = head.in_index, getattr(head, 'in_channels', None)
    several = isinstance(index, (list, tuple))
    levels = list(index) if several else [index]
    if not given or not all(isinstance(level, int) for level in levels):
        return None
    if any(not -len(given) <= level < len(given) for level in levels):
        return f'in_index={index} found', f'expected less than {len(given)}, the number of outputs'
    channels = [given[level] for level in levels]
    if channels == (list(read) if isinstance(read, (list, tuple)) else [read]):
        return None
    return (
        f'in_channels={read} found',
        f'expected {channels if several else channels[0]}, the channels that in_index={index} has',
    )


def _read_and_given(frame: FrameType) -> tuple[int, int] | None:
    """Channels that a layer of torch's reads, and those it was given, where they are not equal."""
    layer, given = frame.f_locals.get('self'), frame.f_locals.get('input')
    for kind, name, axis in _READS:
        if isinstance(layer, kind) and isinstance(given, Tensor) and given.dim() > 1:
            read = int(getattr(layer, name))
            return (read, int(given.shape[axis])) if read != given.shape[axis] else None
    return None


def _given_to_heads(network: Network, data: ConfigMap) -> list[int]:
    """Return the channels of each feature map that heads get; [] if unknown."""
    model = network.seen
    try:
        with torch.no_grad():
            maps = model.extract_feat(_moved(data['inputs'], next(iter(model.parameters())).device))
        return [int(item.shape[1]) for item in maps]
    except Exception:  # it serves a message about another failure, which it must not hide
        return []


def _place(network: Network, error: Exception) -> str:
    """The part of the config in whose code an error was raised; '' if in none."""
    return next(filter(None, map(network.name_of, _modules(error))), '')


def _modules(error: Exception) -> Iterator[nn.Module]:
    """The modules in whose code an error was raised, the innermost first."""
    owners = (frame.f_locals.get('self') for frame in _frames(error))
    return (owner for owner in owners if isinstance(owner, nn.Module))


def _frames(error: Exception) -> list[FrameType]:
    """The frames that an error passed through, the innermost first."""
    frames, trace = [], error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    return frames[::-1]


class MadeUp(TorchDispatchMode):
    """Answers questions about missing values: every number is 1, every mask is full."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """See torch."""
        aten, kwargs = torch.ops.aten, kwargs or {}
        if func is aten._local_scalar_dense.default and args[0].is_meta:
            return torch.ones((), dtype=args[0].dtype).item()
        if func is aten.nonzero.default and args[0].is_meta:
            shape = (args[0].numel(), args[0].dim())
            return torch.empty(shape, dtype=torch.long, device='meta')
        if func is aten.index.Tensor and args[0].is_meta:
            args = (args[0], [index for item in args[1] for index in _positions(item)])
        return func(*args, **kwargs)


def _positions(index: Any) -> list[Any]:
    """Return an index unchanged, and a mask as the positions it selects: all of them."""
    if index is None or index.dtype not in (torch.bool, torch.uint8):
        return [index]
    return [torch.empty(index.numel(), dtype=torch.long, device='meta')] * index.dim()


def _moved(value: object, device: torch.device) -> Any:
    """Tensors, in whatever nest, on a device."""
    if isinstance(value, (Tensor, BaseDataElement)):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, device) for item in value)
    return value
