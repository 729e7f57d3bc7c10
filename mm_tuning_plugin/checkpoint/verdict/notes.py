"""Notes on what weights cannot carry, for the report. Each rule is a function.

`judge_vit` and `notes_cnn` have the rules of vision transformers and convolutional networks.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mm_tuning_plugin.checkpoint.io.read import TensorFile
from mm_tuning_plugin.checkpoint.match.arguments import (
    as_python,
    fitting_arguments,
    layer_norm_epsilons,
)
from mm_tuning_plugin.checkpoint.match.droppable_parts import is_buffer
from mm_tuning_plugin.checkpoint.match.fit import Fit
from mm_tuning_plugin.checkpoint.match.nested import Encoder
from mm_tuning_plugin.checkpoint.verdict.judge_vit import note_parts
from mm_tuning_plugin.checkpoint.verdict.notes_cnn import is_added, note_convolutions

CHANNELS = (
    'weights of Caffe read channels in the order blue, green, red, values of 0 to 255 less a mean '
    '(bgr_to_rgb=False of the data preprocessor), or one grey channel'
)


def all_notes(
    backbone: nn.Module,
    encoder: Encoder,
    fit: Fit,
    targets: Mapping[str, Tensor],
    filled: Mapping[str, Tensor],
    file: TensorFile,
) -> tuple[str, ...]:
    """Return all notes, in the order of the report.

    Args:
        backbone: The loaded backbone.
        encoder: The part of it that the file is of; the whole, mostly.
        fit: The tensors used of the file.
        targets: The encoder's own tensors.
        filled: Those of them that got a neutral value.
        file: The file.
    """
    network = encoder.module
    return (
        *_layer_norm(network, fit),
        *_running_statistics(fit, targets),
        *_labels(file.tensors),
        *([CHANNELS] if file.format.startswith('caffemodel') else []),
        *([fit.naming.note] if fit.naming.note else []),
        *note_parts(network, fit, targets),
        *note_convolutions(network, fit, targets),
        *_kept(fit, targets, filled),
        *_types(fit),
        *_around(backbone, encoder),
    )


def _layer_norm(network: nn.Module, fit: Fit) -> list[str]:
    epsilon, others = fit.naming.norm_eps, layer_norm_epsilons(network)
    if epsilon is None or not others or epsilon in others:
        return []
    remedy = as_python(fitting_arguments(network, fit))
    return [
        f'LayerNorm eps is {max(others):g} in the backbone and {epsilon:g} where such files '
        + (f'come from: {remedy} makes them equal' if remedy else 'come from')
    ]


def _running_statistics(fit: Fit, targets: Mapping[str, Tensor]) -> list[str]:
    running = [name for name in targets if name.endswith(('.running_mean', '.running_var'))]
    lost = [name for name in running if name not in fit.values]
    if not lost:
        return []
    return [
        f'{len(lost)} of {len(running)} running statistics are not in the file and keep the '
        f'values that they have, e.g. {lost[0]}: until trained, evaluation mode is off'
    ]


def _labels(tensors: Mapping[str, Tensor]) -> list[str]:
    if any('decode_head.' in name for name in tensors):
        return ['the file is a whole segmentor: its backbone was trained with labels']
    return []


def _kept(fit: Fit, targets: Mapping[str, Tensor], filled: Mapping[str, Tensor]) -> list[str]:
    given = {*fit.values, *filled}
    lacking = [name for name in targets if name not in given and not is_buffer(name)]
    kept = [name for name in lacking if not is_added(name)]
    if not kept:
        return []
    return [
        f'{len(kept)} parameters are not in the file and keep their own start, e.g. {kept[0]}: '
        'few enough for min_matched'
    ]


def _types(fit: Fit) -> list[str]:
    types = {tensor.dtype for tensor in fit.values.values() if tensor.is_floating_point()}
    return [
        f'weights of {dtype} in the file, converted to those of the backbone'
        for dtype in sorted(types - {torch.float32}, key=str)
    ]


def _around(backbone: nn.Module, encoder: Encoder) -> list[str]:
    """The note for a file of an encoder inside the backbone."""
    inner = sum(parameter.numel() for parameter in encoder.module.parameters())
    rest = sum(parameter.numel() for parameter in backbone.parameters()) - inner
    if not rest:
        return []
    return [
        f"the file is of the encoder '{encoder.name[:-1]}': the {rest:,} parameters of "
        f'{type(backbone).__name__} around it keep their own initialisation'
    ]
