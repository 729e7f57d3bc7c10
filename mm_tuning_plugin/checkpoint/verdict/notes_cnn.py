"""Notes on what weights and names of a convolutional network can't carry, for the report.

Examples are the padding or stride of a convolution, the epsilon of a norm, the kind of upsampling,
and additions of a config.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from mm_tuning_plugin.checkpoint.match.fit import Fit
from mm_tuning_plugin.checkpoint.naming.mobilenet import TIMM, TORCHVISION_V3

# One name that only such networks of mmseg's, mmcv's and mmpretrain's have: ResNets and HRNet,
# MobileNetV2, MobileNetV3, STDC, VGG.
_CONVOLUTIONAL = re.compile(
    r'layer1\.0\.(conv1|conv\.0\.conv)\.weight|layer0\.conv\.weight|'
    r'stages\.2\.0\.layers\.0\.conv\.weight|features\.0\.(conv\.)?weight'
)
# What a config adds to a ResNet, new by nature: plugins, offsets of deformable convolutions.
_ADDED = re.compile(
    r'\.(context_block|gen_attention_block|nonlocal_block|conv_module)\w*\.|\.conv_offset\.'
)


_ADAPTER = re.compile(r'\.lora_\w+')  # mmpretrain's and peft's, which add nothing at their start


def is_added(name: str) -> bool:
    """Whether a tensor belongs to what a config adds to a network."""
    return bool(_ADDED.search(name) or _ADAPTER.search(name))


def note_convolutions(
    backbone: nn.Module, fit: Fit, targets: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Known differences between a backbone and the network that a file was trained as.

    Args:
        backbone: The loaded backbone.
        fit: The tensors used of the file.
        targets: The backbone's own tensors.
    """
    notes = []
    if 'layer0.conv.weight' in targets and fit.naming.title in (TORCHVISION_V3, TIMM):
        notes += _mobilenet_v3(backbone, fit.naming.title)
    is_hrnet = 'stage2.0.fuse_layers.0.1.0.weight' in targets
    if is_hrnet and _has_classifier(fit.unused) and not _enlarges_by_nearest(backbone):
        notes.append(
            'the file is of an HRNet that classifies, which enlarges maps by the nearest value '
            "where mmseg's interpolates: features differ a little until tuned"
        )
    if getattr(backbone, 'style', '') == 'caffe' and 'layer1.0.conv3.weight' in targets:
        notes.append(
            "the backbone strides in a block's first convolution (style='caffe'); torchvision, "
            "timm and most others in the second: style='pytorch' is theirs"
        )
    lacking = [name for name in targets if name not in fit.values]
    adapters = [name for name in lacking if _ADAPTER.search(name)]
    if adapters:
        notes.append(
            f'{len(adapters)} tensors of low-rank adapters keep their own initialisation, '
            f'e.g. {adapters[0]}'
        )
    new = [name for name in lacking if _ADDED.search(name)]
    if new and any(map(_CONVOLUTIONAL.fullmatch, targets)):
        notes.append(
            f'{len(new)} tensors of plugins or deformable convolutions keep their own '
            f'initialisation, e.g. {new[0]}'
        )
    return tuple(notes)


def _mobilenet_v3(backbone: nn.Module, source: str) -> list[str]:
    notes = [
        "mmseg's MobileNetV3 pads strided convolutions as TensorFlow and timm's 'tf_' models do; "
        'files of others were trained with equal padding on both sides: their features agree on '
        'sides of 32 k + 1 pixels and else lie up to one pixel of each level aside'
    ]
    found = {module.eps for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)}
    if 1e-3 not in found:
        whose = 'such files' if source == TORCHVISION_V3 else "timm's 'tf_' models"
        notes.append(
            f'BatchNorm eps is {max(found, default=0):g} in the backbone and 0.001 in {whose}: '
            "norm_cfg=dict(type='BN', eps=0.001) makes them equal"
        )
    return notes


def _enlarges_by_nearest(backbone: nn.Module) -> bool:
    return any(getattr(module, 'mode', '') == 'nearest' for module in backbone.modules())


def _has_classifier(names: Iterable[str]) -> bool:
    return any(name.startswith(('incre_modules.', 'final_layer.', 'classifier.')) for name in names)
