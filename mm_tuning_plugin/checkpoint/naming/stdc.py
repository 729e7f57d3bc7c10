"""STDC: the original's flat list of features to mmseg's stages of blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .rules import Naming, Rules, Tensors, apply_rules, rename_all

_FEATURE = re.compile(r'features\.(\d+)\.(.+)')
_BLOCK = re.compile(r'stages\.(\d+)\.(\d+)\.layers\.')
_FINAL: Rules = ((r'^conv_last\.', 'final_conv.'),)
_HEAD: Rules = ((r'^(x\d+|conv_last|bn|linear)\.', r'head.\1.'),)  # copies, and the classifier
_LAYERS: Rules = (
    (r'^conv_list\.', 'layers.'),
    (r'^avd_layer\.0\.', 'downsample.conv.'),
    (r'^avd_layer\.1\.', 'downsample.bn.'),
)


def original_stdc(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """The original's ``features.N`` to ``stages.0``, ``stages.1``, ``stages.2.0``, ...

    How many blocks a stage has is the backbone's, STDCNet1 or 2. The original lists every feature
    once more, by resolution (``x2`` .. ``x32``): the same tensors, not needed.
    """
    blocks = sorted({(int(m.group(1)), int(m.group(2))) for m in map(_BLOCK.match, targets) if m})
    places = ['0', '1', *(f'{stage}.{block}' for stage, block in blocks)]
    outer = _FINAL + _HEAD if 'final_conv.conv.weight' in targets else _HEAD

    def renamed(name: str) -> str:
        feature = _FEATURE.fullmatch(name)
        if feature and blocks:
            number, rest = int(feature.group(1)), apply_rules(_LAYERS, feature.group(2))
            # Parts after the backbone's last block continue its last stage.
            over = number - len(places)
            place = places[number] if over < 0 else f'{blocks[-1][0]}.{blocks[-1][1] + 1 + over}'
            return f'stages.{place}.{rest}'
        return apply_rules(outer, name) if blocks else name

    return rename_all(tensors, renamed)


RANK = 12
NAMINGS = (Naming('original STDC', original_stdc),)
