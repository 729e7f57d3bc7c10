"""The record that `load_backbone_checkpoint` returns: which weights were loaded, from where."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

MOST_ROWS = 6


class Layout(NamedTuple):
    """The layout of the weights in the file.

    Attributes:
        container: Dotted keys of the mapping that held them; '' if the file itself.
        prefix: What stood before each name inside the container.
        renaming: Naming convention they were translated from.
        equals: Other places of the file that fit equally well and were not used.
        format: Of the file: 'torch', 'safetensors', 'caffemodel' or 'caffemodel.h5'.
    """

    container: str
    prefix: str
    renaming: str
    equals: tuple[str, ...] = ()
    format: str = 'torch'

    def __str__(self) -> str:
        where = f'{self.container!r}' if self.container else 'the file itself'
        prefix = f', prefix {self.prefix!r}' if self.prefix else ''
        return f'{where}{prefix}, {self.renaming}'


class LoadReport(NamedTuple):
    """What `load_backbone_checkpoint` did.

    Attributes:
        path: The file.
        layout: Place and naming of the weights in the file.
        rule: Why these weights were used if others of the file fit equally well; '' without others.
        arguments: What the backbone should have been built with, for the weights to mean the same.
        num_loaded: Tensors of the backbone that were loaded from the file.
        share: Parameters loaded or filled / parameters of the backbone, in [0, 1].
        missing: Tensors of the backbone that kept their values.
        dropped: Tensors of the file left out on purpose: heads, queues, decoders, other networks.
        unexpected: Tensors of the file inside the backbone's stages that found no place there, and
            unknown ones beside them.
        resized: Backbone's name -> 'shape in the file -> shape in the backbone'.
        filled: Tensors that the file cannot have, set to the value that changes nothing.
        notes: Lines about what weights cannot carry, such as the epsilon of a norm.
        stages: Stage -> (parameters loaded, parameters there are).
        hash_before: `hash_state_dict` of the backbone before.
        hash_after: And after; it differs unless the file held the same weights.
    """

    path: str
    layout: Layout
    rule: str
    arguments: dict[str, Any]
    num_loaded: int
    share: float
    missing: tuple[str, ...]
    dropped: tuple[str, ...]
    unexpected: tuple[str, ...]
    resized: dict[str, str]
    filled: tuple[str, ...]
    notes: tuple[str, ...]
    stages: dict[str, tuple[int, int]]
    hash_before: str
    hash_after: str

    def to_json(self) -> str:
        """The record as JSON, one object with the attributes' names."""
        record = self._asdict()
        record['layout'] = self.layout._asdict()
        return json.dumps(record, indent=2)

    def __str__(self) -> str:
        rows = list(_table(self.stages))
        width = max((len(stage) for stage, _, _ in rows), default=0)
        lines = [
            f'{self.path}: {self.num_loaded} tensors, {self.share:.1%} of the parameters',
            f'  from {self.layout}',
        ]
        for stage, loaded, total in rows:
            lines.append(
                f'  {stage:<{width}}  {loaded:>13,} / {total:>13,}  {loaded / total:>4.0%}'
            )
        for title in ('missing', 'dropped', 'unexpected', 'filled'):
            names = getattr(self, title)
            if names:
                lines.append(f'  {title}: {len(names)} ({_some(names)})')
        lines += [f'  resized: {name} {change}' for name, change in self.resized.items()]
        if self.layout.equals:
            rule = f' ({self.rule})' if self.rule else ' (the same weights)'
            lines.append(f'  as good, not taken: {_some(self.layout.equals)}{rule}')
        lines += [f'  note: {note}' for note in self.notes]
        lines.append(f'  backbone {self.hash_before[:12]} -> {self.hash_after[:12]}')
        return '\n'.join(lines)


def _table(stages: Mapping[str, tuple[int, int]]) -> Iterator[tuple[str, int, int]]:
    """Rows (title, loaded, total); many consecutive full stages of one list make one row."""

    def of_list(stage: str) -> str:
        loaded, total = stages[stage]
        return re.sub(r'\d+$', '', stage) if loaded == total else stage

    for _, group in itertools.groupby(stages, key=of_list):
        members = list(group)
        if len(members) <= MOST_ROWS:
            yield from ((name, *stages[name]) for name in members)
        else:
            loaded, total = (sum(stages[name][i] for name in members) for i in (0, 1))
            yield f'{members[0]} .. {members[-1]}', loaded, total


def _some(names: tuple[str, ...], at_most: int = 3) -> str:
    shown = ', '.join(names[:at_most])
    return shown + (', ...' if len(names) > at_most else '')
