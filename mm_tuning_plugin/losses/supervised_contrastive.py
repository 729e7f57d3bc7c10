"""The supervised contrastive loss, plain or balanced over classes."""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor

from mm_tuning_plugin import functional
from mm_tuning_plugin.losses.base import Diagnostics, NodeLoss, comparable_nodes
from mm_tuning_plugin.registry import MODELS


@MODELS.register_module()
class SupervisedContrastiveLoss(NodeLoss):
    """Each node against all others of the batch, with the nodes of its class as positives.

    ``L = mean over anchors a of mean_p -log(exp(a.p / t) / sum over k != a of exp(a.k / t))``

    on unit embeddings (Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020). Balanced,
    each class has the same weight in both sums, regardless of how many nodes it has (Zhu et al.,
    "Balanced Contrastive Learning for Long-Tailed Visual Recognition", CVPR 2022).

    Args:
        temperature: t, which divides the cosines.
        balanced: Whether classes have equal weights; if not, nodes have.

    Examples:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> loss = SupervisedContrastiveLoss(temperature=1.0)
        >>> done = loss(embeddings, torch.tensor([0, 0, 1]))
        >>> done['loss'], done['triplets']
        (tensor(0.3133), tensor(2.))
    """

    short_names = {
        'supervised_contrastive': {},
        'balanced_contrastive': {'balanced': True},
    }
    options = ('temperature',)

    def __init__(self, temperature: float = 0.1, balanced: bool = False) -> None:
        super().__init__()
        self.temperature = temperature
        self.balanced = balanced

    def prepare(self, labels: Tensor, generator: Generator | None) -> Tensor:
        """Count the nodes that have a positive and a negative."""
        return comparable_nodes(labels)

    def compute(
        self, embeddings: Tensor, labels: Tensor, prepared: Any
    ) -> tuple[Tensor, Diagnostics]:
        """Return the loss; ``triplets`` counts nodes that have a positive and a negative."""
        loss = functional.supervised_contrastive_loss(
            embeddings, labels, self.temperature, balanced=self.balanced
        )
        return loss, {'triplets': prepared}
