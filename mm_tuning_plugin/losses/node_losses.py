"""Registered losses: options stored here, mathematics in `functional`.

Every loss takes (embeddings (N, E), labels (N,), generator) and returns ``loss`` beside
diagnostics, scalar tensors whose names avoid the word "loss": mmengine sums all that have it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm_tuning_plugin import functional
from mm_tuning_plugin.registry import MODELS


@MODELS.register_module()
class GraphTripletLoss(nn.Module):
    """The paper's: match by a class-wise connected graph, pull and push by its triplets.

    Args:
        margin: Margin on squared distances of unit vectors.
    """

    def __init__(self, margin: float = 2.1) -> None:
        super().__init__()
        self.margin = margin

    def forward(
        self, embeddings: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Draw one graph and return the mean loss of its triplets; 0 where there are none."""
        triplets = functional.graph_triplets(labels, generator=generator)
        return {
            'loss': functional.triplet_margin_loss(embeddings, triplets, self.margin),
            'triplets': embeddings.new_full((), len(triplets.anchor), dtype=torch.float32),
            'active_share': functional.active_triplet_share(embeddings, triplets, self.margin),
        }


@MODELS.register_module()
class ExpectedTripletLoss(nn.Module):
    """The exact mean over all triplets of open hinges: no drawing, no sampling noise.

    Args:
        margin: Margin on squared distances of unit vectors.
    """

    def __init__(self, margin: float = 2.1) -> None:
        super().__init__()
        self.margin = margin

    def forward(
        self, embeddings: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the loss; `generator` is not used."""
        return {
            'loss': functional.expected_triplet_loss(embeddings, labels, self.margin),
            'triplets': _matched(labels),
        }


@MODELS.register_module()
class SupervisedContrastiveLoss(nn.Module):
    """Every node against all others of the batch, same class together (Khosla et al., 2020).

    Args:
        temperature: Divides the cosines.
        balanced: Whether classes weigh alike, however many nodes they have.
    """

    def __init__(self, temperature: float = 0.1, balanced: bool = False) -> None:
        super().__init__()
        self.temperature = temperature
        self.balanced = balanced

    def forward(
        self, embeddings: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the loss; `generator` is not used. ``triplets`` counts anchors that have both."""
        return {
            'loss': functional.supervised_contrastive_loss(
                embeddings, labels, self.temperature, balanced=self.balanced
            ),
            'triplets': _matched(labels),
        }


@MODELS.register_module()
class PrototypeContrastiveLoss(nn.Module):
    """Every node against all others of the batch, and against a learnt prototype of each class.

    The sum of the balanced contrastive loss and of `functional.prototype_loss`. The prototypes are
    dropped after tuning, as the projection is.

    Args:
        num_classes: Number of classes.
        channels: Width of the embeddings.
        temperature: Divides the cosines.
        weight: Of the prototypes' share.
    """

    def __init__(
        self, num_classes: int, channels: int, temperature: float = 0.1, weight: float = 1.0
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.weight = weight
        self.prototypes = nn.Parameter(torch.randn(num_classes, channels))

    def forward(
        self, embeddings: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the loss; `generator` is not used. ``triplets`` counts anchors that have both."""
        nodes = functional.supervised_contrastive_loss(
            embeddings, labels, self.temperature, balanced=True
        )
        classes = functional.prototype_loss(embeddings, labels, self.prototypes, self.temperature)
        return {
            'loss': nodes + self.weight * classes,
            'between_nodes': nodes.detach(),
            'to_prototypes': classes.detach(),
            'triplets': _matched(labels),
        }


@MODELS.register_module()
class NodeCrossEntropyLoss(nn.Module):
    """Cross-entropy of the nodes: no graph, each node against the classes.

    The control of the others: the same nodes and labels without any matching. It reads the
    embeddings as scores of the classes, so the embedding head must be a classifier: a linear
    projection to the number of classes, not normalised.
    """

    def forward(
        self, embeddings: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the mean over the nodes, 0 where there are none; `generator` is not used."""
        if not len(labels):
            return {'loss': embeddings.sum() * 0}
        return {
            'loss': F.cross_entropy(embeddings, labels),
            'accuracy': (embeddings.detach().argmax(1) == labels).float().mean(),
        }


def _matched(labels: Tensor) -> Tensor:
    """How many nodes have another of their class and one of another class."""
    if not len(labels):
        return labels.new_zeros((), dtype=torch.float32)
    members = torch.bincount(labels)[labels]
    return ((members > 1) & (members < len(labels))).sum().float()
