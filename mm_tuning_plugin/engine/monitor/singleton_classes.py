"""Singleton classes: a class with a single node in a batch has no positive pair there.

Shape legend: B batches, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from mm_tuning_plugin.config_types import PlainConfig
from mm_tuning_plugin.engine.monitor.rules import MIN_BATCHES_WITH_CLASS, SINGLETON_SHARE

# More names do not fit a line.
MOST_NAMES = 8


class SingletonClasses:
    """Count the batches in which each class occurs, and those in which it has a single node.

    Batches are counted over all ranks.

    Args:
        class_names: K names.

    Attributes:
        present: (K,) int64, batches with a node of the class.
        alone: (K,) int64, batches with exactly one.
        warned: Classes already named in a warning.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        self.present = torch.zeros(len(self.class_names), dtype=torch.int64)
        self.alone = torch.zeros_like(self.present)
        self.warned: set[int] = set()
        self._batches: list[Tensor] = []  # of this rank, (K,) each

    def add(self, labels: Tensor) -> None:
        """Count the labels of this rank's share of a batch; they are on the host."""
        self._batches.append(torch.bincount(labels, minlength=len(self.class_names)))

    def exchange(self) -> None:
        """Sum the counts since the last call over all ranks. Every rank must call it."""
        if not self._batches:
            return
        nodes = torch.stack(self._batches)  # (B, K)
        self._batches = []
        all_reduce(nodes)
        self.present += (nodes > 0).sum(0)
        self.alone += (nodes == 1).sum(0)

    def judge(self, iteration: int) -> str | None:
        """One line that names new singleton classes, or None."""
        often = (self.present >= MIN_BATCHES_WITH_CLASS) & (
            self.alone >= SINGLETON_SHARE * self.present
        )
        found = [k for k in often.nonzero()[:, 0].tolist() if k not in self.warned]
        if not found:
            return None
        self.warned.update(found)
        named = [
            f'{self.class_names[k]} (alone in {self.alone[k]} of {self.present[k]} batches)'
            for k in found[:MOST_NAMES]
        ]
        more = f', and {len(found) - MOST_NAMES} more' if len(found) > MOST_NAMES else ''
        return (
            f'iteration {iteration}: classes without positives: {", ".join(named)}{more}, expected '
            'two nodes of a class in a batch; raise mix_and_match.images_per_batch or '
            "nodes_per_image, or set balance='class' for patches"
        )

    def state_dict(self) -> PlainConfig:
        """The state, in built-ins and tensors. Counts not yet exchanged are of this rank only."""
        return dict(
            present=self.present.clone(),
            alone=self.alone.clone(),
            told=sorted(self.warned),
            batches=list(self._batches),
        )

    def load_state_dict(self, state: PlainConfig) -> None:
        """Restore what `state_dict` returned."""
        self.present, self.alone = state['present'].cpu(), state['alone'].cpu()
        self.warned = set(state['told'])
        self._batches = [nodes.cpu() for nodes in state['batches']]
