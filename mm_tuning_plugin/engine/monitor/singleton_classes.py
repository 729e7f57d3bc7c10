"""Classes of which a batch has a single node: no other of theirs is there to be pulled to.

Shape legend: B batches, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor

# Iterations that a class must have occurred in before it is judged.
ENOUGH_BATCHES = 20
# A class that is alone in nine batches of ten is pulled together by one in ten.
LONE_SHARE = 0.9
# More names make no line.
MOST_NAMES = 8


class LoneClasses:
    """Counts, over all ranks, in how many batches each class occurred and in how many alone.

    Args:
        class_names: K names.

    Attributes:
        present: (K,) int64, batches with a node of the class.
        alone: (K,) int64, batches with exactly one.
        told: Classes that were told of.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        self.present = torch.zeros(len(self.class_names), dtype=torch.int64)
        self.alone = torch.zeros_like(self.present)
        self.told: set[int] = set()
        self._batches: list[Tensor] = []  # of this rank, (K,) each

    def add(self, labels: Tensor) -> None:
        """Take in the labels of this rank's share of a batch, on the host."""
        self._batches.append(torch.bincount(labels, minlength=len(self.class_names)))

    def exchange(self) -> None:
        """Add up the ranks' shares of the batches since the last time; every rank must call it."""
        if not self._batches:
            return
        nodes = torch.stack(self._batches)  # (B, K)
        self._batches = []
        all_reduce(nodes)
        self.present += (nodes > 0).sum(0)
        self.alone += (nodes == 1).sum(0)

    def judge(self, iteration: int) -> str | None:
        """One line on classes that are nearly always alone, if there are any not yet told of."""
        often = (self.present >= ENOUGH_BATCHES) & (self.alone >= LONE_SHARE * self.present)
        found = [k for k in often.nonzero()[:, 0].tolist() if k not in self.told]
        if not found:
            return None
        self.told.update(found)
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

    def state_dict(self) -> dict[str, Any]:
        """All of it, in built-ins and tensors; what is not exchanged yet is this rank's alone."""
        return dict(
            present=self.present.clone(),
            alone=self.alone.clone(),
            told=sorted(self.told),
            batches=list(self._batches),
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.present, self.alone = state['present'].cpu(), state['alone'].cpu()
        self.told = set(state['told'])
        self._batches = [nodes.cpu() for nodes in state['batches']]
