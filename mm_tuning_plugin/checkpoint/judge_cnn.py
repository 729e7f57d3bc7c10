"""Whether a convolutional network still computes what its file's network computed, or why not.

The stages (`judge`) are counted in parameters, of which a norm or a shortcut has few: in these
networks no part may keep the backbone's own start. What weights and names can't tell, where a
convolution is padded or strides, the epsilon of a norm, how a map is enlarged, is noted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from ..errors import UserError
from .fit import Fit
from .naming.mobilenet import TIMM, TORCHVISION_V3
from .stages import is_buffer

# One name that only such networks of mmseg's, mmcv's and mmpretrain's have: ResNets and HRNet,
# MobileNetV2, MobileNetV3, STDC, VGG.
_CONVOLUTIONAL = re.compile(
    r'layer1\.0\.(conv1|conv\.0\.conv)\.weight|layer0\.conv\.weight|'
    r'stages\.2\.0\.layers\.0\.conv\.weight|features\.0\.(conv\.)?weight'
)
# A smaller min_matched than its default accepts gaps, stage by stage.
_STRICT = 0.9
# What a config adds to a ResNet, new by nature: plugins, offsets of deformable convolutions.
_ADDED = re.compile(
    r'\.(context_block|gen_attention_block|nonlocal_block|conv_module)\w*\.|\.conv_offset\.'
)


def judge_convolutions(
    backbone: nn.Module,
    path: Path,
    fit: Fit,
    targets: Mapping[str, Tensor],
    min_matched: float,
) -> None:
    """Raises where any parameter of a known convolutional network would keep its own start.

    Args:
        backbone: What was to be loaded; any other than such a network passes.
        path: The file, for the message.
        fit: The best fit.
        targets: The backbone's own tensors.
        min_matched: Below its default of 0.9 the user accepts gaps, and this passes.

    Raises:
        UserError: With one name of a parameter.
    """
    if min_matched < _STRICT or not any(map(_CONVOLUTIONAL.fullmatch, targets)):
        return
    lost = _kept(fit, targets, added=False)
    if lost:
        raise UserError(
            f"{path}: does not fit {type(backbone).__name__}: '{lost[0]}' is not in the file and "
            'would keep its random start; expected all of them'
        )


def _kept(fit: Fit, targets: Mapping[str, Tensor], added: bool) -> list[str]:
    """Parameters that the file does not give, among what a config adds or among the rest."""
    return [
        name
        for name in targets
        if name not in fit.values and not is_buffer(name) and bool(_ADDED.search(name)) == added
    ]


def note_convolutions(
    backbone: nn.Module, fit: Fit, targets: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Known differences between a backbone and the network that a file was trained as.

    Args:
        backbone: What was loaded into.
        fit: What was taken of the file.
        targets: The backbone's own tensors.
    """
    notes = []
    if 'layer0.conv.weight' in targets and fit.naming.title in (TORCHVISION_V3, TIMM):
        notes += _mobilenet_v3(backbone, fit.naming.title)
    if 'stage2.0.fuse_layers.0.1.0.weight' in targets and _has_classifier(fit.unused):
        notes.append(
            'the file is of an HRNet that classifies, which enlarges maps by the nearest value '
            "where mmseg's interpolates: features differ a little until tuned"
        )
    if getattr(backbone, 'style', '') == 'caffe' and 'layer1.0.conv3.weight' in targets:
        notes.append(
            "the backbone strides in a block's first convolution (style='caffe'); torchvision, "
            "timm and most others in the second: style='pytorch' is theirs"
        )
    new = _kept(fit, targets, added=True)
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


def _has_classifier(names: Iterable[str]) -> bool:
    return any(name.startswith(('incre_modules.', 'final_layer.', 'classifier.')) for name in names)
