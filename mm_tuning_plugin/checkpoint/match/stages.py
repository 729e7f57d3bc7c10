"""A backbone's stages, from its parameter names, and the share of each that a file provides.

Legend: the *stages* of a ResNet are the stem and ``layer1``..``layer4``; those of a transformer are
the patch embedding, the tokens, each ``layers.i`` and the final norm, or each ``layers.i.j`` if a
list of lists holds patch embedding, blocks and norm of every level (MiT). Other networks have a
stage for each first component of a name, with the index if it is a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from mm_tuning_plugin.checkpoint.match.droppable_parts import is_buffer

_PLACE = re.compile(r'(?<=^layer)\d(?=\.)|(?<=^block)\d(?=\.)|(?<=^stage)\d(?=\.)|(?<=\.)\d+(?=\.)')
# ``layers.0.1.2.norm1``: a list of levels, each a list of parts, one of which lists blocks.
_LIST_OF_LISTS = re.compile(r'\w*[^\W\d]\.\d+\.\d+\.\d+\.')
# Roots that are a ResNet's or HRNet's stem: conv1, bn1, conv2, stem. Whatever else stands beside
# layer1 (HRNet's transition1, stage2) is a stage of its own.
_RESIDUAL_STEM = re.compile(r'(conv|bn|gn|ln|in|norm)\d*|stem')


class Stages:
    """Which stage of a backbone a tensor belongs to.

    Args:
        names: All names of the backbone's state dict, in its order: what comes first is the stem.
    """

    def __init__(self, names: Iterable[str]) -> None:
        names = list(names)
        self.roots = {name.split('.')[0] for name in names}
        self.residual = 'layer1' in self.roots
        self.nested = {name.split('.')[0] for name in names if _LIST_OF_LISTS.match(name)}
        self.indices: dict[str, set[int]] = {}
        for name in names:
            for parent, index in _indices(name):
                self.indices.setdefault(parent, set()).add(index)
        self.first = next((self.of(name) for name in names if '.' in name), '')

    def of(self, name: str) -> str:
        """The stage of a tensor of the backbone: 'conv1.weight' -> 'stem'."""
        parts = name.split('.')
        if len(parts) == 1:
            return 'tokens'
        if re.fullmatch(r'layer\d+', parts[0]):
            return parts[0]
        if self.residual and _RESIDUAL_STEM.fullmatch(parts[0]):
            return 'stem'
        if parts[0] in self.nested:
            return '.'.join(parts[:3])
        if parts[1].isdigit() and not parts[0][-1].isdigit():
            return f'{parts[0]}.{parts[1]}'
        return parts[0]

    def is_stem(self, name: str) -> bool:
        """Whether a tensor of the backbone is in its first stage, which gets the image."""
        return self.of(name) == self.first

    def of_foreign(self, name: str) -> str | None:
        """Return the stage of a tensor that the backbone does not have; None if it is in no stage.

        Separate tokens (mask token, distillation token) are in no stage.
        """
        if name.split('.')[0] not in self.roots:
            return None
        return self.of(name)

    def surplus(self, names: Iterable[str]) -> str | None:
        """The first module that continues a list of the backbone beyond its end.

        ``layer3.6`` where the backbone's layer3 has six blocks: the file is of a deeper network,
        though each tensor of the backbone finds its place.
        """
        for name in names:
            for parent, index in _indices(name):
                if parent in self.indices and index > max(self.indices[parent]):
                    return f'{parent}.{index}'
        return None


def _indices(name: str) -> list[tuple[str, int]]:
    """('layer1', 0) and ('layer1.0.downsample', 1) of 'layer1.0.downsample.1.weight'."""
    parts = name.split('.')
    return [
        ('.'.join(parts[:i]), int(part)) for i, part in enumerate(parts) if i and part.isdigit()
    ]


def coverage(
    stages: Stages, targets: Mapping[str, Tensor], loaded: Iterable[str]
) -> dict[str, tuple[int, int]]:
    """Parameters found and parameters there are, for each stage of the backbone.

    Args:
        stages: Of the backbone.
        targets: The backbone's own tensors by name.
        loaded: Names among `targets` that a value was found for.

    Returns:
        Stage -> (found, total), in the order of the backbone; buffers are not counted.
    """
    found = set(loaded)
    counts: dict[str, tuple[int, int]] = {}
    for name, target in targets.items():
        if is_buffer(name):
            continue
        have, total = counts.get(stages.of(name), (0, 0))
        size = target.numel()
        counts[stages.of(name)] = (have + size * (name in found), total + size)
    return counts


def lacking_kinds(targets: Mapping[str, Tensor], found: Iterable[str]) -> tuple[str, ...]:
    """Kinds of parameters of which the file gives none, though several blocks have one.

    A kind is a name without the place of its block: ``layer#.#.bn2.bias``. A file that lacks one of
    many lost it; a file that lacks all of them is of another network, and they may be few numbers.

    Args:
        targets: The backbone's own tensors by name.
        found: Names among them that the file provides or that are filled.

    Returns:
        The first name of each such kind.
    """
    found = set(found)
    members: dict[str, list[str]] = {}
    for name in targets:
        if not is_buffer(name):
            members.setdefault(_PLACE.sub('#', name), []).append(name)
    return tuple(
        names[0] for names in members.values() if len(names) > 1 and found.isdisjoint(names)
    )


def leftover(stages: Stages, unused: Mapping[str, Tensor]) -> dict[str, int]:
    """Count the file's parameters that are inside a stage of the backbone without a place there."""
    counts: dict[str, int] = {}
    for name, tensor in unused.items():
        stage = stages.of_foreign(name)
        if stage is not None:
            counts[stage] = counts.get(stage, 0) + tensor.numel()
    return counts
