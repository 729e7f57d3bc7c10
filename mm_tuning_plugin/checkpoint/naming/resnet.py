"""ResNets: names of torchvision's kin to mmseg's, which are the same but for wrappers and stems."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .rules import Naming, Rules, Tensors, rename_by_rules

_SEQUENTIAL: Rules = (
    (r'^0\.', 'conv1.'),
    (r'^1\.', 'bn1.'),
    (r'^([4-7])\.', lambda found: f'layer{int(found.group(1)) - 3}.'),
)
_DEEP_STEM: Rules = (
    (r'^bn1\.', 'stem.7.'),
    (r'^conv1\.(\d)\.', r'stem.\1.'),
)
_DETECTRON2: Rules = (
    (r'^stem\.conv1\.norm\.', 'bn1.'),
    (r'^stem\.conv1\.', 'conv1.'),
    (r'^res([2-5])\.', lambda found: f'layer{int(found.group(1)) - 1}.'),
    (r'\.conv(\d)\.norm\.', r'.bn\1.'),
    (r'\.shortcut\.norm\.', '.downsample.1.'),
    (r'\.shortcut\.', '.downsample.0.'),
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
    """``ResNetModel``: the n-th convolution of a block is ``layer.n``, next to its norm."""
    return rename_by_rules(_HUGGING_FACE, tensors)


def sequential_resnet(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """A ResNet wrapped as ``nn.Sequential(*resnet.children())``, as in lightly: 0, 1, 4..7."""
    return rename_by_rules(_SEQUENTIAL, tensors)


def deep_stem_resnet(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Timm's ResNet-D: its stem is ``conv1.0, 1, 3, 4, 6, bn1``, mmseg's ``stem.0 .. stem.7``."""
    if not any(name.startswith('conv1.0.') for name in tensors):
        return dict(tensors)
    return rename_by_rules(_DEEP_STEM, tensors)


def detectron2_resnet(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """Detectron2's: ``stem.conv1``, ``res2`` to ``res5``, a norm inside its convolution."""
    if not any(name.startswith('res2.0.') for name in tensors):
        return dict(tensors)
    return rename_by_rules(_DETECTRON2, tensors)


RANK = 4
NAMINGS = (
    Naming('Sequential ResNet', sequential_resnet),
    Naming('timm deep-stem ResNet', deep_stem_resnet),
    Naming('Hugging Face ResNet', hugging_face_resnet),
    Naming('detectron2 ResNet', detectron2_resnet),
)
