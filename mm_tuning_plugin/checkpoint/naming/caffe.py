"""Caffe's AlexNets and VGGs to `AlexNetBN` and `VGG16BN`.

The released nets of Zhan et al. (AAAI 2018) call norms ``batch_conv1``; jigsaw nets end names in
``_s1``; others write ``bn_conv1``, ``conv1_bn`` or ``conv1/bn``, and ``scale_conv1`` for a Scale.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .rules import Naming, Rules, Tensors, apply_rules

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
    named: Tensors = {}
    for name, tensor in tensors.items():
        name = apply_rules(_RULES, name)
        target = targets.get(name)
        if target is not None and tensor.ndim < target.ndim and tensor.numel() == target.numel():
            tensor = tensor.reshape(target.shape)
        named[name] = tensor
    return named


NAMINGS = (Naming('Caffe', caffe_layers, square=False),)
