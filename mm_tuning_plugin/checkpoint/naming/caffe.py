"""Caffe's AlexNets and VGGs to `AlexNetBN` and `VGG16BN`.

The released nets of Zhan et al. (AAAI 2018) call norms ``batch_conv1``; jigsaw nets end names in
``_s1``; others write ``bn_conv1``, ``conv1_bn`` or ``conv1/bn``, and ``scale_conv1`` for a Scale.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .rules import Naming, Rules, Tensors, rename_by_rules

_PART = r'(weight|bias|running_mean|running_var)$'
_LAYER = r'(conv\d(?:_\d)?|fc\d)'
_RULES: Rules = (
    (r'_s1(?=[._]|$)', ''),
    (r'^conv_add1\.', 'conv8.'),
    (r'^conv_add2\.', 'conv9.'),
    (rf'^(?:batch|bn|scale)_?{_LAYER}\.{_PART}', r'norm.\1.\2'),
    (rf'^{_LAYER}[_.](?:bn|batch|scale)\.{_PART}', r'norm.\1.\2'),
    (rf'^scale(\d(?:_\d)?)\.{_PART}', r'bn\1.\2'),
    (r'^norm\.conv', 'bn'),
    (r'^norm\.fc', 'bn_fc'),
)


def caffe_layers(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Names, and the shapes of inner products that the backbone has as convolutions."""
    named = rename_by_rules(_RULES, tensors)
    for name, tensor in named.items():
        target = targets.get(name)
        if target is not None and _is_inner_product(tensor, target):
            named[name] = tensor.reshape(target.shape)  # (D, C*k*k) -> (D, C, k, k)
    return named


def _is_inner_product(tensor: Tensor, target: Tensor) -> bool:
    """Whether a matrix is a kernel that covers the whole map, with its channels in front."""
    return (
        (tensor.ndim, target.ndim) == (2, 4)
        and tensor.shape[0] == target.shape[0]
        and tensor.shape[1] == target[0].numel()
    )


RANK = 13
NAMINGS = (Naming('Caffe', caffe_layers, square=False),)
