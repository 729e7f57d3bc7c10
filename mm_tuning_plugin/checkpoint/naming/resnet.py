"""ResNets: names of torchvision's kin to mmseg's, which are the same but for wrappers and stems."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .rules import Naming, Rules, Tensors, apply_rules

_SEQUENTIAL: Rules = (
    (r'^0\.', 'conv1.'),
    (r'^1\.', 'bn1.'),
    (r'^([4-7])\.', lambda found: f'layer{int(found.group(1)) - 3}.'),
)
_DEEP_STEM: Rules = (
    (r'^bn1\.', 'stem.7.'),
    (r'^conv1\.(\d)\.', r'stem.\1.'),
)
_SHORT = {'convolution': 'conv', 'normalization': 'bn'}
_HUGGING_FACE: Rules = (
    (r'^resnet\.', ''),
    (r'^embedder\.embedder\.', 'stem.'),
    (
        r'^encoder\.stages\.(\d)\.layers\.',
        lambda found: f'layer{int(found.group(1)) + 1}.',
    ),
    (
        r'\.layer\.(\d)\.(convolution|normalization)\.',
        lambda found: f'.{_SHORT[found.group(2)]}{int(found.group(1)) + 1}.',
    ),
    (r'\.shortcut\.convolution\.', '.downsample.0.'),
    (r'\.shortcut\.normalization\.', '.downsample.1.'),
    (r'^stem\.convolution\.', 'conv1.'),
    (r'^stem\.normalization\.', 'bn1.'),
)


def hugging_face_resnet(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """``ResNetModel``: the n-th convolution of a block is ``layer.n``, its norm lies beside it."""
    return {apply_rules(_HUGGING_FACE, name): tensor for name, tensor in tensors.items()}


def sequential_resnet(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """A ResNet wrapped as ``nn.Sequential(*resnet.children())``, as in lightly: 0, 1, 4..7."""
    return {apply_rules(_SEQUENTIAL, name): tensor for name, tensor in tensors.items()}


def deep_stem_resnet(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Timm's ResNet-D: its stem is ``conv1.0, 1, 3, 4, 6, bn1``, mmseg's ``stem.0 .. stem.7``."""
    if not any(name.startswith('conv1.0.') for name in tensors):
        return dict(tensors)
    return {apply_rules(_DEEP_STEM, name): tensor for name, tensor in tensors.items()}


NAMINGS = (
    Naming('Sequential ResNet', sequential_resnet),
    Naming('timm deep-stem ResNet', deep_stem_resnet),
    Naming('Hugging Face ResNet', hugging_face_resnet),
)
