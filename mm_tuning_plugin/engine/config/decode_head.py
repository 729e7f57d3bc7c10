"""What the decode head says: its levels, classes and ignored label value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mm_tuning_plugin.config_types import base_type
from mm_tuning_plugin.engine.config.entry_types import shown
from mm_tuning_plugin.errors import UserError


def read_head(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """The decode head; the last one of a cascade.

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


def head_key(head: Mapping[str, Any], key: str) -> Any:
    """What a decode head's config says under a key; None where it says nothing.

    A head that is made of other heads, as K-Net's is, says it in the outermost of theirs. Every
    other nested config is passed over: a loss has an ``ignore_index`` of its own, and a sampler or
    a pixel decoder can have keys of the same names as well.
    """
    level: list[Any] = [head]
    while level:
        for item in level:
            if isinstance(item, Mapping) and item.get(key) is not None:
                return item[key]
        level = [part for item in level for part in _inner_heads(item)]
    return None


def _inner_heads(item: Any) -> list[Any]:
    """The heads right inside a head, and its lists of heads."""
    if isinstance(item, Mapping):
        return [
            part
            for key, part in item.items()
            if str(key).lower().endswith(('head', 'heads')) or _is_head(part)
        ]
    return list(item) if isinstance(item, (list, tuple)) else []


def _is_head(part: Any) -> bool:
    return isinstance(part, Mapping) and base_type(part).endswith('Head')


def read_levels(model: Mapping[str, Any]) -> list[int] | None:
    """Which of the backbone's outputs the decode head reads; None: all of them.

    Of a cascade, those that any of its heads reads: PointRend's last one, for instance, refines by
    the first level what another head has found in all four.

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


def _levels_of(head: Mapping[str, Any]) -> list[int] | None:
    index = head_key(head, 'in_index')
    if index is None:
        # mmseg's default is the last output, but heads with a list of channels read them all.
        several = isinstance(head_key(head, 'in_channels'), (list, tuple))
        return None if several else [-1]
    return list(index) if isinstance(index, (list, tuple)) else [index]


def num_label_values(head: Mapping[str, Any], number: int) -> int:
    """How many label values are classes, for a head of so many ``num_classes``.

    mmseg predicts 0 or 1 by a threshold where there is one output (``num_classes=1``, or
    ``out_channels=1``), and its losses take both as labels: all but the cross-entropy with a
    softmax, which fails on 1.
    """
    outputs = head_key(head, 'out_channels')
    if (number if outputs is None else outputs) != 1:
        return number
    given = head_key(head, 'loss_decode')
    losses = given if isinstance(given, (list, tuple)) else [given or dict(type='CrossEntropyLoss')]
    return 1 if any(_is_softmax(loss) for loss in losses) else max(2, number)


def _is_softmax(loss: Any) -> bool:
    known = isinstance(loss, Mapping) and base_type(loss) == 'CrossEntropyLoss'
    return known and not loss.get('use_sigmoid')
