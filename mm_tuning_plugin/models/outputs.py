"""The outputs of a backbone: which of them are the feature maps that a head reads.

Shape legend: B images, C channels, (H, W) cells of a map. For the dimension of the channels see
`channel_layout`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.models.module_modes import keep_modes

DIVISORS = (1, 2, 4, 8, 16, 32)  # of the sides of images, pixels
# Without these options, mmpretrain's classes return class tokens or pooled vectors.
MAP_OPTIONS = {
    'out_type': "out_type='featmap'",
    'gap_before_final_norm': 'gap_before_final_norm=False',
}


def as_maps(outputs: Any, backbone: nn.Module) -> list[Tensor]:
    """The outputs of a backbone as a list of maps, (B, C, H, W) or with channels elsewhere.

    A single map gives a list of one, a dict its values in order, and (map, class token) pairs give
    the maps. For the dimension of the channels see `channel_dims`.

    Raises:
        UserError: The outputs are not feature maps, but class tokens, for example.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    outputs = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
    if not isinstance(outputs, (list, tuple)) or not outputs:
        raise UserError(
            'model.backbone',
            f'{type(backbone).__name__} gives {type(outputs).__name__}',
            'expected feature maps (B, C, H, W), one or a tuple of them',
        )
    maps = [item[0] if isinstance(item, (tuple, list)) and item else item for item in outputs]
    for item in maps:
        if not isinstance(item, Tensor) or item.ndim != 4:
            what = tuple(item.shape) if isinstance(item, Tensor) else type(item).__name__
            hints = [option for name, option in MAP_OPTIONS.items() if hasattr(backbone, name)]
            hint = f', for which set {hints[0]}' if hints else ''
            raise UserError(
                'model.backbone',
                f'{type(backbone).__name__} gives {what}',
                f'expected feature maps (B, C, H, W){hint}',
            )
    return maps


def level_names(outputs: Any, maps: Sequence[Tensor]) -> list[Any]:
    """Return the names of a backbone's maps: the keys of a dict, or their positions."""
    return list(outputs) if isinstance(outputs, Mapping) else list(range(len(maps)))


def place_of(index: Any, names: Sequence[Any]) -> int | None:
    """Return the position of the level that an entry of ``in_index`` names or counts.

    Returns:
        The position, from 0; None if there is no such level.

    Examples:
        >>> place_of('res3', ['res2', 'res3']), place_of(-1, [0, 1, 2]), place_of(3, [0, 1, 2])
        (1, 2, None)
    """
    if index in names:
        return list(names).index(index)
    positional = isinstance(index, int) and -len(names) <= index < len(names)
    return index % len(names) if positional else None


def probe_image(config: Mapping[str, Any], backbone: nn.Module, size: Sequence[int]) -> Tensor:
    """One image (1, C, H, W) of noise, the same in every call.

    C is ``in_channels`` of the config, else that of the first convolution.
    """
    channels = config.get('in_channels')
    if not isinstance(channels, int):
        stems = (part for part in backbone.modules() if isinstance(part, nn.Conv2d))
        channels = next((stem.in_channels for stem in stems), 3)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, channels, *size, generator=generator)


@contextmanager
def eval_leaf_modules(backbone: nn.Module, training: bool) -> Iterator[None]:
    """Evaluate a backbone; with `training`, modules that have children are in training mode.

    A backbone that returns other outputs in training decides so in its own forward. This context
    gets these outputs while layers (BatchNorm, dropout, stochastic depth) are in evaluation mode.
    """
    before = backbone.training
    with keep_modes(backbone):
        if training:
            for module in backbone.modules():
                module.training = any(True for _ in module.children())
        else:
            backbone.eval()
        try:
            yield
        finally:
            if not training:
                backbone.train(before)  # some backbones drop their evaluation caches here


def run_probe(backbone: nn.Module, images: Tensor, training: bool) -> list[Tensor]:
    """The maps of `images` in one mode.

    Raises:
        UserError: The backbone fails on images of this size, or returns no maps.
    """
    return as_maps(probed(backbone, images, training), backbone)


def probed(backbone: nn.Module, images: Tensor, training: bool) -> Any:
    """The outputs of a backbone for `images` in one mode, unchanged.

    Raises:
        UserError: The backbone fails on images of this size.
    """
    try:
        with eval_leaf_modules(backbone, training):
            return backbone(images)
    except (AssertionError, RuntimeError, ValueError, IndexError) as error:
        height, width = images.shape[-2:]
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            'model.backbone',
            f'{type(backbone).__name__} fails on images of {height} x {width} ({reason})',
            'expected a backbone that takes them',
        ) from error


@torch.no_grad()
def needed_divisor(backbone: nn.Module, image: Tensor) -> int:
    """The number that must divide the height and width of images, found by trial.

    Args:
        backbone: The backbone.
        image: (1, C, H, W) that it accepts, with sides divisible by all `DIVISORS`.

    Returns:
        The smallest of `DIVISORS` that suffices; 1 if none does, because the backbone then accepts
        only the size of `image`.
    """
    for divisor in DIVISORS:
        try:
            for more in (divisor, 3 * divisor):
                run_probe(backbone, F.pad(image, (0, more, 0, more)), training=False)
        except UserError:
            continue
        return divisor
    return 1


def padded(images: Tensor, divisor: int) -> Tensor:
    """Pad (B, C, H, W) below and right to sides that are multiples of `divisor`.

    The value is 0, the mean of normalised images, as in mmseg's own padding.

    Examples:
        >>> padded(torch.zeros(1, 3, 5, 8), 4).shape
        torch.Size([1, 3, 8, 8])
    """
    height, width = images.shape[-2:]
    if height % divisor or width % divisor:
        images = F.pad(images, (0, -width % divisor, 0, -height % divisor))
    return images


def training_order(
    kept: Sequence[Tensor], given: Sequence[Tensor], backbone: nn.Module
) -> list[int]:
    """The order in which to read the backbone's outputs in training.

    DDRNet and PIDNet return further maps in training, for auxiliary losses only. Heads are
    evaluated on the maps of evaluation mode, so these are tuned.

    Args:
        kept: The maps of an image in evaluation mode.
        given: The maps of the same image in training mode.
        backbone: Only its name is used.

    Returns:
        Positions in `given`: first those of `kept`, in their order, then the auxiliary maps.

    Raises:
        UserError: A map of evaluation mode is not among those of training mode.
    """
    if len(given) == len(kept):
        return list(range(len(kept)))
    places: list[int] = []
    for level in kept:
        equal = (
            i
            for i, other in enumerate(given)
            if i not in places and other.shape == level.shape and torch.allclose(other, level)
        )
        place = next(equal, None)
        if place is None:
            raise UserError(
                'model.backbone',
                f'{type(backbone).__name__} gives {len(given)} maps in training and '
                f'{len(kept)} in evaluation',
                'expected each map of evaluation among those of training',
            )
        places.append(place)
    return places + [i for i in range(len(given)) if i not in places]


def freeze_unreached(backbone: nn.Module, maps: Sequence[Tensor]) -> list[str]:
    """Freeze parameters that no map depends on, such as the last layer of a classifier.

    They cannot be tuned, and DDP would wait for their gradients.

    Args:
        backbone: The backbone; gradients of its parameters are reset.
        maps: All its outputs, computed with gradient.

    Returns:
        Names of the frozen parameters.

    Raises:
        UserError: No map depends on any trainable parameter.
    """
    unreached = unreached_parameters(backbone, maps)
    if len(unreached) == sum(p.requires_grad for p in backbone.parameters()):
        raise UserError(
            'model.backbone',
            f'no map of {type(backbone).__name__} depends on any of its {len(unreached)} '
            'parameters that train',
            'tuning needs at least one that a map depends on',
        )
    for parameter in unreached.values():
        parameter.requires_grad_(False)
    return list(unreached)


def unreached_parameters(backbone: nn.Module, maps: Sequence[Tensor]) -> dict[str, nn.Parameter]:
    """The trainable parameters that get no gradient from `maps`, by name."""
    total = torch.stack([level.sum() for level in maps]).sum()
    if total.requires_grad:
        # Not torch.autograd.grad: reentrant checkpointing (with_cp) supports only .backward().
        total.backward(retain_graph=True)
    trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    unreached = {name: p for name, p in trained.items() if p.grad is None}
    backbone.zero_grad(set_to_none=True)
    return unreached
