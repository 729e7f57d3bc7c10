"""The paper's loss: triplets of a class-wise connected graph."""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor

from mm_tuning_plugin import functional
from mm_tuning_plugin.losses.base import Diagnostics, NodeLoss
from mm_tuning_plugin.registry import MODELS
from mm_tuning_plugin.structures import Triplets


@MODELS.register_module()
class GraphTripletLoss(NodeLoss):
    """The paper's loss: the nodes of a class form a random tree, which gives the triplets.

    ``L = 1 / (2 T) * sum over triplets (a, p, n) of max(0, m + |a - p|^2 - |a - n|^2)``

    with T triplets and unit embeddings. The positive p is the parent of the anchor a in the graph
    (`functional.graph_triplets`), the negative n any node of another class. Without a triplet the
    loss is 0. Zhan et al., "Mix-and-Match Tuning for Self-Supervised Semantic Segmentation", AAAI
    2018 (arXiv 1712.00661).

    Args:
        margin: m, on squared distances of unit vectors.

    Examples:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> loss = GraphTripletLoss(margin=1.0)
        >>> done = loss(embeddings, torch.tensor([0, 0, 1]), torch.Generator().manual_seed(0))
        >>> done['loss'], done['triplets'], done['active_share']
        (tensor(1.), tensor(2.), tensor(1.))
    """

    short_names = {'graph_triplet': {}}
    options = ('margin',)

    def __init__(self, margin: float = 2.1) -> None:
        super().__init__()
        self.margin = margin

    def prepare(self, labels: Tensor, generator: Generator | None) -> Triplets:
        """Draw the graph."""
        return functional.graph_triplets(labels, generator=generator)

    def compute(
        self, embeddings: Tensor, labels: Tensor, prepared: Any
    ) -> tuple[Tensor, Diagnostics]:
        """Return the mean over the triplets; ``active_share`` of them have a gradient."""
        loss = functional.triplet_margin_loss(embeddings, prepared, self.margin)
        share = functional.active_triplet_share(embeddings, prepared, self.margin)
        return loss, {'triplets': len(prepared.anchor), 'active_share': share}
