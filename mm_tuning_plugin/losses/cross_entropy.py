"""Cross-entropy of the nodes: the control without matching."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mm_tuning_plugin.losses.base import Diagnostics, NodeLoss
from mm_tuning_plugin.registry import MODELS


@MODELS.register_module()
class NodeCrossEntropyLoss(NodeLoss):
    """Cross-entropy of the nodes: the control of the other losses, without matching.

    ``L = mean over nodes of -log(exp(z_y) / sum over classes k of exp(z_k))``

    with the scores z of a node and its class y. The embeddings are the scores, so the embedding
    head must be a classifier: linear, one output a class, not normalised.

    Examples:
        >>> import torch
        >>> scores = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
        >>> done = NodeCrossEntropyLoss()(scores, torch.tensor([0, 1]))
        >>> done['loss'], done['accuracy']
        (tensor(0.5032), tensor(1.))
    """

    short_names = {'cross_entropy': {}}
    needs_classifier = True

    def compute(
        self, embeddings: Tensor, labels: Tensor, prepared: Any
    ) -> tuple[Tensor, Diagnostics]:
        """Return the mean over the nodes, and the share of nodes whose class scores highest."""
        hits = embeddings.detach().argmax(1) == labels
        return F.cross_entropy(embeddings, labels), {'accuracy': hits.float().mean()}
