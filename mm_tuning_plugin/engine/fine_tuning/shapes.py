"""A training step on shapes alone: what a network cannot read is found without computing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mm_tuning_plugin.engine.fine_tuning.network import Network
from mm_tuning_plugin.engine.fine_tuning.registered import told
from mm_tuning_plugin.errors import UserError

# What torch says where the sizes of two things do not fit; some of it on the 'meta' device alone.
_UNFIT = re.compile(
    r'to have \d+ channels, but got \d+'
    r'|running_mean should contain \d+ elements'
    r'|shapes cannot be multiplied|same reduction dim|size mismatch'
    r'|[Gg]iven normalized_shape'
    r'|vector of size equal to the number of channels'
    r'|weight tensor should be defined either for all'
    r'|Expected more than 1 value per channel'
    r'|must match the (?:existing )?size|Sizes of tensors must match'
    r'|is invalid for input of size'
    r'|index out of range'
    r'|Invalid channel dimensions|Attempting to broadcast|must be broadcastable'
    r'|expecting embedding dimension|input to be divisible by num_groups'
)


def check_step(network: Network, data: Mapping[str, Any]) -> None:
    """Take the forward half of a training step.

    Args:
        network: The segmentor.
        data: ``inputs`` (N, C, H, W) and ``data_samples``, as its preprocessor gives them.

    Raises:
        UserError: Something does not fit: channels, levels, weights of classes.
    """
    try:
        network.ask(lambda model: _step(model, data), _does_not_fit)
    except Exception as error:
        raise _unfit(network, data, error) from error


def _step(model: nn.Module, data: Mapping[str, Any]) -> None:
    device = next(iter(model.parameters())).device
    with torch.no_grad(), MadeUp() if device.type == 'meta' else torch.no_grad():
        model(**_moved(data, device), mode='loss')


def _does_not_fit(error: Exception) -> bool:
    return isinstance(error, (RuntimeError, ValueError, IndexError, AssertionError)) and bool(
        _UNFIT.search(str(error))
    )


class MadeUp(TorchDispatchMode):
    """Answers what is asked of values that are not there: every number is 1, every mask full."""

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
            args = (args[0], [_positions(index) for index in args[1]])
            flat = [index for item in args[1] for index in item]
            args = (args[0], flat)
        return func(*args, **kwargs)


def _positions(index: Any) -> list[Any]:
    """An index as it is, a mask as the positions that it selects: all of them."""
    if index is None or index.dtype not in (torch.bool, torch.uint8):
        return [index]
    return [torch.empty(index.numel(), dtype=torch.long, device='meta')] * index.dim()


def _moved(value: Any, device: torch.device) -> Any:
    """Tensors, in whatever nest, on a device."""
    if isinstance(value, (Tensor, BaseDataElement)):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, device) for item in value)
    return value


def _unfit(network: Network, data: Mapping[str, Any], error: Exception) -> UserError:
    """The one line for sizes that do not fit, with what the head reads and what it is given."""
    module = _raising(error, network)
    place = network.name_of(module) if module is not None else ''
    head = _part(network.real(), place)
    found = f'model{"." if place else ""}{place}: '
    given = _given_to_heads(network, data)
    if head is not None and place.split('.')[0].endswith('_head') and given:
        index, expected = getattr(head, 'in_index', None), getattr(head, 'in_channels', None)
        levels = index if isinstance(index, (list, tuple)) else [index]
        if all(isinstance(level, int) for level in levels):
            beyond = [level for level in levels if not -len(given) <= level < len(given)]
            if beyond:
                return UserError(
                    f'{found}in_index={index} found, expected less than {len(given)}: the backbone '
                    f'gives {len(given)} outputs'
                )
            channels = [given[level] for level in levels]
            wanted = list(expected) if isinstance(expected, (list, tuple)) else [expected]
            if channels != wanted:
                own = channels if isinstance(index, (list, tuple)) else channels[0]
                return UserError(
                    f'{found}in_channels={expected} found, expected {own}: so many channels come '
                    f'to in_index={index}'
                )
    return UserError(f'{found}the first training step fails: {told(error)}')


def _given_to_heads(network: Network, data: Mapping[str, Any]) -> list[int]:
    """Channels of each feature map that heads are given; [] where that cannot be told."""

    def ask(model: nn.Module) -> list[int]:
        device = next(iter(model.parameters())).device
        with torch.no_grad():
            maps = model.extract_feat(_moved(data['inputs'], device))
        return [int(item.shape[1]) for item in maps]

    try:
        return network.ask(ask) or []
    except Exception:  # it serves a message about another failure, which it must not hide
        return []


def _raising(error: BaseException, network: Network) -> nn.Module | None:
    """The innermost module of the network in whose code an error was raised."""
    found, trace = None, error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get('self')
        if isinstance(owner, nn.Module) and network.name_of(owner):
            found = owner
        trace = trace.tb_next
    return found


def _part(model: nn.Module, place: str) -> nn.Module | None:
    try:
        return model.get_submodule(place) if place else None
    except AttributeError:
        return None
