"""ConvNeXt and ConvNeXt V2: the names of four layouts to mmpretrain's.

All go by way of the official names. LayerScale (`gamma`) is multiplied into the layer before it
where the backbone has none; the opposite case, and V2's `grn`, are matters of `neutral`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import Tensor

from .packing import pointwise
from .rules import Naming, Rules, Tensors, last_index, rename_by_rules

_OFFICIAL: Rules = (
    (r'\.dwconv\.', '.depthwise_conv.'),
    (r'\.pwconv([12])\.', r'.pointwise_conv\1.'),
)
_TIMM: Rules = (
    (r'^stem\.', 'downsample_layers.0.'),
    (r'^stages\.(\d+)\.downsample\.', r'downsample_layers.\1.'),
    (r'^stages\.(\d+)\.blocks\.', r'stages.\1.'),
    (r'^head\.norm\.', 'norm.'),
    (r'\.conv_dw\.', '.dwconv.'),
    (r'\.mlp\.fc([12])\.', r'.pwconv\1.'),
    (r'\.mlp\.grn\.weight$', '.grn.gamma'),
    (r'\.mlp\.grn\.bias$', '.grn.beta'),
)
_HUGGING_FACE: Rules = (
    (r'^embeddings\.patch_embeddings\.', 'downsample_layers.0.0.'),
    (r'^embeddings\.layernorm\.', 'downsample_layers.0.1.'),
    (r'^encoder\.stages\.(\d+)\.downsampling_layer\.', r'downsample_layers.\1.'),
    (r'^encoder\.stages\.(\d+)\.layers\.', r'stages.\1.'),
    (r'^layernorm\.', 'norm.'),
    (r'\.layernorm\.', '.norm.'),
    (r'\.layer_scale_parameter$', '.gamma'),
    (r'\.grn\.weight$', '.grn.gamma'),
    (r'\.grn\.bias$', '.grn.beta'),
)
_SPARSE: Rules = (
    (r'(\.dwconv|^downsample_layers\.\d+\.\d+)\.kernel$', r'\1.weight'),
    (r'\.(ln|linear)\.(weight|bias)$', r'.\2'),
)
_GRN = re.compile(r'stages\.\d+\.\d+\.grn\.(gamma|beta)')
_DEPTHWISE = re.compile(r'stages\.\d+\.\d+\.dwconv\.(kernel|bias)')
_DOWNSAMPLING = re.compile(r'downsample_layers\.\d+\.\d+\.(kernel|bias)')


def official_convnext(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """The official names of both versions (SparK's too): ``dwconv``, ``pwconv1``, ``grn``.

    The norm after the last stage is that of the backbone's last output, if it has this output.
    """
    last = f'norm{last_index(targets, "stages")}.'
    rules = (*_OFFICIAL, (r'^norm\.', last)) if f'{last}weight' in targets else _OFFICIAL
    named = rename_by_rules(rules, tensors)
    for name, tensor in named.items():
        flat = name in targets and targets[name].ndim == 1
        if _GRN.fullmatch(name) and flat and tensor.numel() == tensor.shape[-1]:
            named[name] = tensor.flatten()  # (1, 1, 1, 4C) -> (4C,)
    return _fold_layer_scale(pointwise(named, targets), targets)


def timm_convnext(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Timm's names: ``stem``, ``stages.1.downsample``, ``blocks.0.conv_dw``, ``head.norm``."""
    return official_convnext(rename_by_rules(_TIMM, tensors), targets)


def hugging_face_convnext(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """``ConvNextModel`` and ``ConvNextV2Model`` of transformers."""
    return official_convnext(rename_by_rules(_HUGGING_FACE, tensors), targets)


def sparse_convnext(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Masked pre-training of ConvNeXt V2 (FCMAE), whose blocks are sparse convolutions.

    Their kernels are (k*k, C), those of downsampling (k*k, C, D), with the position in front,
    columns before rows; linear layers and norms are wrapped; biases and GRN have leading ones.
    As ``remap_checkpoint_keys`` of the official fine-tuning code.
    """
    dense = {name: _dense(name, tensor) for name, tensor in tensors.items()}
    return official_convnext(rename_by_rules(_SPARSE, dense), targets)


def _dense(name: str, tensor: Tensor) -> Tensor:
    """Reshape a sparse convolution's kernel or bias to a dense one's; others are unchanged."""
    depthwise, downsampling = _DEPTHWISE.fullmatch(name), _DOWNSAMPLING.fullmatch(name)
    found = depthwise or downsampling
    if not found:
        return tensor
    if found.group(1) == 'bias':
        return tensor[0] if tensor.ndim == 2 and tensor.shape[0] == 1 else tensor
    return _dense_kernel(tensor) if tensor.ndim == (2 if depthwise else 3) else tensor


def _dense_kernel(kernel: Tensor) -> Tensor:
    """(k*k, C) -> (C, 1, k, k), (k*k, C, D) -> (D, C, k, k); unchanged if k is no whole number."""
    side = math.isqrt(kernel.shape[0])
    if side * side != kernel.shape[0]:
        return kernel
    if kernel.ndim == 2:
        kernel = kernel[:, None]  # (k*k, 1, C)
    kernel = kernel.permute(2, 1, 0)  # (D, C, k*k)
    return kernel.reshape(*kernel.shape[:2], side, side).transpose(2, 3)


def _fold_layer_scale(named: Tensors, targets: Mapping[str, Tensor]) -> Tensors:
    """Multiplies `gamma` (C,) into pointwise_conv2 (C, 4C) if the backbone has no `gamma`."""
    if any(name.endswith('.gamma') and '.grn.' not in name for name in targets):
        return named
    folded = dict(named)
    for name, gamma in named.items():
        found = re.fullmatch(r'(stages\.\d+\.\d+)\.gamma', name)
        if not found:
            continue
        weight, bias = (f'{found.group(1)}.pointwise_conv2.{kind}' for kind in ('weight', 'bias'))
        if weight in folded and bias in folded and folded[bias].shape == gamma.shape:
            shape = (-1, *[1] * (folded[weight].ndim - 1))
            folded[weight] = folded[weight] * gamma.reshape(shape)
            folded[bias] = folded[bias] * gamma
            del folded[name]
    return folded


RANK = 7
NAMINGS = (
    Naming('official ConvNeXt', official_convnext, norm_eps=1e-6),
    Naming('timm ConvNeXt', timm_convnext, norm_eps=1e-6),
    Naming('Hugging Face ConvNeXt', hugging_face_convnext, norm_eps=1e-6),
    Naming('sparse ConvNeXt', sparse_convnext, norm_eps=1e-6),
)
