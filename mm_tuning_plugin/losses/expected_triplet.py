"""The exact mean of the triplet loss, without a draw."""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor

from mm_tuning_plugin import functional
from mm_tuning_plugin.losses.base import Diagnostics, NodeLoss, comparable_nodes
from mm_tuning_plugin.registry import MODELS


@MODELS.register_module()
class ExpectedTripletLoss(NodeLoss):
    """The mean of the triplet loss over all triplets of the batch, without sampling noise.

    ``L = 1 / 2 * mean over anchors a of (m + mean_p |a - p|^2 - mean_n |a - n|^2)``

    over all positives p and negatives n of an anchor, on unit embeddings. The hinge is left out,
    so the loss is linear in p and n and costs O(N E); see `functional.expected_triplet_loss`.

    Args:
        margin: m, on squared distances of unit vectors; it does not change the gradient.

    Examples:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> done = ExpectedTripletLoss(margin=1.0)(embeddings, torch.tensor([0, 0, 1]))
        >>> done['loss'], done['triplets']
        (tensor(1.), tensor(2.))
    """

    short_names = {'expected_triplet': {}}
    options = ('margin',)

    def __init__(self, margin: float = 2.1) -> None:
        super().__init__()
        self.margin = margin

    def prepare(self, labels: Tensor, generator: Generator | None) -> Tensor:
        """Count the anchors."""
        return comparable_nodes(labels)

    def compute(
        self, embeddings: Tensor, labels: Tensor, prepared: Any
    ) -> tuple[Tensor, Diagnostics]:
        """Return the mean over the anchors; ``triplets`` is their number."""
        loss = functional.expected_triplet_loss(embeddings, labels, self.margin)
        return loss, {'triplets': prepared}
