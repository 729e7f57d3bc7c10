"""The balanced contrastive loss with a learnt prototype for each class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from mm_tuning_plugin import functional
from mm_tuning_plugin.losses.base import Diagnostics, NodeLoss, comparable_nodes
from mm_tuning_plugin.registry import MODELS


@MODELS.register_module()
class PrototypeContrastiveLoss(NodeLoss):
    """Each node against all others of the batch, and against a learnt prototype of each class.

    ``L = L_balanced + w * mean over nodes a of -log(exp(a.c / t) / sum over k of exp(a.k / t))``

    with the prototype c of the node's class and the prototypes k of all classes, on unit embeddings
    and unit prototypes. L_balanced is the balanced `SupervisedContrastiveLoss`; the second term is
    `functional.prototype_loss`. The prototypes are dropped after tuning, as the projection is.

    Args:
        num_classes: Number of classes.
        channels: Width of the embeddings, E.
        temperature: t, which divides the cosines.
        weight: w, of the second term.

    Examples:
        >>> import torch
        >>> loss = PrototypeContrastiveLoss(num_classes=2, channels=2, temperature=1.0)
        >>> loss.prototypes.data = torch.eye(2)
        >>> done = loss(torch.eye(2), torch.tensor([0, 1]))  # no class has two nodes
        >>> done['between_nodes'], done['to_prototypes']
        (tensor(0.), tensor(0.3133))
    """

    short_names = {'prototype_contrastive': {}}
    options = ('temperature', 'num_classes', 'channels')

    def __init__(
        self, num_classes: int, channels: int, temperature: float = 0.1, weight: float = 1.0
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.weight = weight
        self.prototypes = nn.Parameter(torch.randn(num_classes, channels))

    def prepare(self, labels: Tensor, generator: Generator | None) -> Tensor:
        """Count the nodes that have a positive and a negative."""
        return comparable_nodes(labels)

    def compute(
        self, embeddings: Tensor, labels: Tensor, prepared: Any
    ) -> tuple[Tensor, Diagnostics]:
        """Return the sum of both terms, and each of them to log."""
        nodes = functional.supervised_contrastive_loss(
            embeddings, labels, self.temperature, balanced=True
        )
        classes = functional.prototype_loss(embeddings, labels, self.prototypes, self.temperature)
        return nodes + self.weight * classes, {
            'between_nodes': nodes,
            'to_prototypes': classes,
            'triplets': prepared,
        }
