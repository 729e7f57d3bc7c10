"""Read the decode head's config: levels, classes, ignored label value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mm_tuning_plugin.config_types import ConfigMap, base_type
from mm_tuning_plugin.engine.config.entry_types import shown
from mm_tuning_plugin.errors import UserError


def read_head(model: ConfigMap) -> ConfigMap:
    """Return the decode head; of a cascade, the last one.

    Raises:
        UserError: There is none.
    """
    head = model.get('decode_head')
    if isinstance(head, Sequence) and not isinstance(head, str) and head:
        head = head[-1]
    if not isinstance(head, Mapping):
        raise UserError(
            'model.decode_head', f'{shown(head)} found', 'expected the config of a decode head'
        )
    return head


def head_key(head: ConfigMap, key: str) -> Any:
    """Return the value of a key in a decode head's config; None if there is none.

    A head that contains heads (K-Net) is searched from the outside in. Other nested configs are
    skipped, because a loss, a sampler or a pixel decoder can have keys of the same name.
    """
    level: list[object] = [head]
    while level:
        for item in level:
            if isinstance(item, Mapping) and item.get(key) is not None:
                return item[key]
        level = [part for item in level for part in _inner_heads(item)]
    return None


def _inner_heads(item: object) -> list[object]:
    """Return the heads one level inside a head, and its lists of heads."""
    if isinstance(item, Mapping):
        return [
            part
            for key, part in item.items()
            if str(key).lower().endswith(('head', 'heads')) or _is_head(part)
        ]
    return list(item) if isinstance(item, (list, tuple)) else []


def _is_head(part: object) -> bool:
    return isinstance(part, Mapping) and base_type(part).endswith('Head')


def read_levels(model: ConfigMap) -> list[int] | None:
    """Return the backbone outputs that the decode head reads; None: all of them.

    For a cascade, these are the outputs that any of its heads reads. PointRend's last head, for
    instance, reads the first level, and its first head reads all four.

    Raises:
        UserError: There is no decode head.
    """
    read_head(model)
    heads = model['decode_head']
    levels: list[int] = []
    for head in heads if isinstance(heads, Sequence) else [heads]:
        own = _levels_of(head)
        if own is None:
            return None
        levels += [level for level in own if level not in levels]
    return levels


def _levels_of(head: ConfigMap) -> list[int] | None:
    index = head_key(head, 'in_index')
    if index is None:
        # mmseg's default is the last output. Heads with a list of channels read all outputs.
        several = isinstance(head_key(head, 'in_channels'), (list, tuple))
        return None if several else [-1]
    return list(index) if isinstance(index, (list, tuple)) else [index]


def num_label_values(head: ConfigMap, number: int) -> int:
    """Return how many label values are classes.

    A head with one output (``num_classes=1`` or ``out_channels=1``) predicts 0 or 1 by a threshold.
    mmseg's losses then accept both labels, except cross-entropy with softmax, which fails on 1.

    Args:
        head: Config of the decode head.
        number: Its ``num_classes``.
    """
    outputs = head_key(head, 'out_channels')
    if (number if outputs is None else outputs) != 1:
        return number
    given = head_key(head, 'loss_decode')
    losses = given if isinstance(given, (list, tuple)) else [given or dict(type='CrossEntropyLoss')]
    return 1 if any(_is_softmax(loss) for loss in losses) else max(2, number)


def _is_softmax(loss: object) -> bool:
    return (
        isinstance(loss, Mapping)
        and base_type(loss) == 'CrossEntropyLoss'
        and not loss.get('use_sigmoid')
    )
