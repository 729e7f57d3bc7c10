"""MobileNetV2 and V3: numbered blocks of torchvision and timm to mmseg's layers.

Legend: a block is an expansion (absent in some), a depthwise convolution, squeeze-and-excitation
(V3, absent in some) and a linear projection, each convolution with its norm. Names do not tell all
of the function of V3: see `notes_cnn`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from .rules import Naming, Rules, Tensors, apply_rules, rename_all

BLOCKS = (1, 2, 3, 4, 3, 3, 1)  # of each layer of V2, in every width
TORCHVISION_V3, TIMM = 'torchvision MobileNetV3', 'timm MobileNet'
_PLACES = [(layer + 1, block) for layer, count in enumerate(BLOCKS) for block in range(count)]
_STEM = re.compile(r'features\.0\.([01])\.(\w+)')
_PAIR = re.compile(r'features\.(\d+)\.conv\.(\d)\.([01])\.(\w+)')  # convolution, norm, activation
_LAST = re.compile(r'features\.(\d+)\.conv\.(\d)\.(\w+)')  # the projection and its norm
_KIND = ('conv', 'bn')

_SQUEEZE = re.compile(r'features\.(\d+)\.block\.(\d)\.fc([12])\.(\w+)')
_PART = re.compile(r'features\.(\d+)\.block\.(\d)\.([01])\.(\w+)')
_OUTER = re.compile(r'features\.(\d+)\.([01])\.(\w+)')  # the stem and the last convolution
_PARTS = ('expand_conv', 'depthwise_conv', 'linear_conv')

_TIMM_BLOCK = re.compile(r'blocks\.(\d+)\.(\d+)\.([\w.]+)\.(\w+)')
# The convolutions of a block in their order, whose norms are counted along: bn1, bn2, bn3. Which
# block it is shows in the first of these names.
_TIMM_CONVOLUTIONS = {
    'conv_pwl': ('conv_pw', 'conv_dw', 'conv_pwl'),
    'conv_dw': ('conv_dw', 'conv_pw'),
}
_TIMM_SQUEEZE = {'se.conv_reduce': 'se.conv1.conv', 'se.conv_expand': 'se.conv2.conv'}


def numbered_mobilenet_v2(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """``features.1 .. features.17`` to ``layer1.0 .. layer7.0``; 18 is the classifier's."""
    return rename_all(tensors, _v2_name)


def _v2_name(name: str) -> str:
    stem, pair, last = (pattern.fullmatch(name) for pattern in (_STEM, _PAIR, _LAST))
    if stem:
        return f'conv1.{_KIND[int(stem.group(1))]}.{stem.group(2)}'
    if name.startswith(f'features.{len(_PLACES) + 1}.'):
        return f'head.{name}'
    found = pair or last
    if not found or not 1 <= int(found.group(1)) <= len(_PLACES):
        return name
    layer, block = _PLACES[int(found.group(1)) - 1]
    part = int(found.group(2))
    if pair:
        kind, leaf = _KIND[int(pair.group(3))], pair.group(4)
    else:  # the projection comes after one pair in the first block, after two in the others
        pairs = 1 if layer == 1 else 2
        kind, leaf, part = _KIND[part - pairs], found.group(3), pairs
    return f'layer{layer}.{block}.conv.{part}.{kind}.{leaf}'


def numbered_mobilenet_v3(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """``features.n.block.k`` to ``layern``; the parts of a block are counted from its end."""
    parts = _v3_parts(tensors)

    def renamed(name: str) -> str:
        squeeze, part, outer = (p.fullmatch(name) for p in (_SQUEEZE, _PART, _OUTER))
        if squeeze:
            return f'layer{squeeze.group(1)}.se.conv{squeeze.group(3)}.conv.{squeeze.group(4)}'
        if part:
            block, place, kind, leaf = part.groups()
            title = parts.get((int(block), int(place)), f'block.{place}')
            return f'layer{block}.{title}.{_KIND[int(kind)]}.{leaf}'
        if outer and parts:
            return f'layer{outer.group(1)}.{_KIND[int(outer.group(2))]}.{outer.group(3)}'
        return name

    return rename_all(tensors, renamed)


def _v3_parts(names: Iterable[str]) -> dict[tuple[int, int], str]:
    """(block, position in it) of each convolution -> mmseg's name for it."""
    places: dict[int, set[int]] = {}
    for part in filter(None, map(_PART.fullmatch, names)):
        places.setdefault(int(part.group(1)), set()).add(int(part.group(2)))
    return {
        (block, place): title
        for block, found in places.items()
        for place, title in zip(sorted(found)[::-1], _PARTS[::-1])
    }


def timm_mobilenet(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """``blocks.s.b`` of timm, V2 or V3 as the backbone is; what follows the last block stays."""
    is_v3 = 'layer0.conv.weight' in targets
    blocks: dict[tuple[int, int], set[str]] = {}
    found = {name: _TIMM_BLOCK.fullmatch(name) for name in tensors}
    for inside in filter(None, found.values()):
        blocks.setdefault((int(inside.group(1)), int(inside.group(2))), set()).add(inside.group(3))
    if 'conv_stem.weight' not in tensors or not blocks:
        return dict(tensors)
    order = {place: number for number, place in enumerate(sorted(blocks), start=1)}
    modules = {place: _timm_modules(held, is_v3) for place, held in blocks.items()}
    stem = 'layer0' if is_v3 else 'conv1'
    outer: Rules = (
        (r'^conv_stem\.', f'{stem}.conv.'),
        (r'^bn1\.', f'{stem}.bn.'),
        (r'^bn2\.', 'head.bn2.'),  # V2's, of the classifier's last convolution
    )

    def renamed(name: str) -> str:
        block = found[name]
        if block is None:
            return apply_rules(outer, name)
        place = int(block.group(1)), int(block.group(2))
        layer = f'layer{order[place]}' if is_v3 else f'layer{place[0] + 1}.{place[1]}'
        module = modules[place].get(block.group(3), block.group(3))
        return f'{layer}.{module}.{block.group(4)}'

    return rename_all(tensors, renamed)


def _timm_modules(held: set[str], is_v3: bool) -> dict[str, str]:
    """Name in a block of timm's -> name in mmseg's, from the names that the block holds."""
    kind = next((kind for kind in _TIMM_CONVOLUTIONS if kind in held), None)
    if kind is None:  # V3 ends in a single convolution
        return {'conv': 'conv', 'bn1': 'bn'}
    convolutions = _TIMM_CONVOLUTIONS[kind]
    modules = dict(_TIMM_SQUEEZE)
    for number, convolution in enumerate(convolutions):
        title = _PARTS[number - len(convolutions)] if is_v3 else f'conv.{number}'
        modules[convolution] = f'{title}.conv'
        modules[f'bn{number + 1}'] = f'{title}.bn'
    return modules


RANK = 11
NAMINGS = (
    Naming('torchvision MobileNetV2', numbered_mobilenet_v2),
    Naming(TORCHVISION_V3, numbered_mobilenet_v3),
    Naming(TIMM, timm_mobilenet),
)
