"""Contrastive losses on labelled embeddings: between nodes, and to learnt prototypes.

Shape legend: N embeddings of D dimensions, K classes present, C classes.

The embeddings are brought to unit length here; rows of zeros stay zeros. The arithmetic is in
float32 at least, regardless of autocast; float64 stays. If there is nothing to compare, the loss is
a zero connected to the graph, so `backward()` works.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from mm_tuning_plugin.functional.embeddings import (
    as_precise,
    class_sums,
    full_precision,
    unit_rows,
)

from ._checks import check_embeddings, check_labels, describe


def supervised_contrastive_loss(
    embeddings: Tensor, labels: Tensor, temperature: float = 0.1, *, balanced: bool = False
) -> Tensor:
    """The supervised contrastive loss, L_out of Khosla et al., NeurIPS 2020 (arXiv 2004.11362).

    For each anchor that has a positive, the mean over its positives of
    -log(exp(a.p / t) / sum over all nodes except the anchor of exp(a.k / t)).
    Then the mean over the anchors. The original also multiplies by t / t_0; we do not.

    If balanced, all classes have equal weights, regardless of their numbers of nodes: in the sum, a
    class counts with the mean of its nodes (class averaging of Zhu et al., "Balanced Contrastive
    Learning for Long-Tailed Visual Recognition", CVPR 2022), and the result is the mean of the
    classes' means over their anchors.

    Args:
        embeddings: (N, D) float; L2-normalised here.
        labels: (N,) integers, the class of each row.
        temperature: t, greater than 0.
        balanced: Whether classes have equal weights; if not, nodes have.

    Returns:
        Scalar; 0, connected to the graph, if no class has two nodes.

    Raises:
        ValueError: The embeddings are not a float matrix, the labels do not match their rows, or
            the temperature is not finite and positive.

    Examples:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> supervised_contrastive_loss(embeddings, torch.tensor([0, 0, 1]), temperature=1.0)
        tensor(0.3133)
    """
    check_embeddings('embeddings', embeddings)
    check_labels('labels', labels, 'embeddings', embeddings)
    _check_temperature(temperature)
    with full_precision(embeddings):
        embeddings = as_precise(embeddings)
        if len(labels) < 2:
            return embeddings.sum() * 0
        unit = unit_rows(embeddings)
        logits = (unit @ unit.T / temperature).fill_diagonal_(-math.inf)  # (N, N), self excluded
        sums, squares, counts, member_of = class_sums(unit, labels)
        own = (sums.square().sum(1) - squares) / (counts - 1).clamp_min(1)  # (K,) 0 if single
        weights = (counts > 1).to(counts.dtype)  # (K,) of each anchor of a class
        if balanced:
            weights = weights / counts
            siblings = member_of[:, None] == member_of  # (N, N); an anchor is not its own sibling
            logits = logits - (counts[member_of] - siblings.to(counts.dtype)).clamp_min(1).log()
        normalisers = logits.logsumexp(1) @ weights[member_of]  # summed over the anchors
        anchors = (counts * weights).sum()
        return (normalisers - (own * weights).sum() / temperature) / anchors.clamp_min(1)


def prototype_loss(
    embeddings: Tensor, labels: Tensor, prototypes: Tensor, temperature: float = 0.1
) -> Tensor:
    """Each node against one learnt prototype of each class.

    Mean over the nodes of -log(exp(a.c / t) / sum over all classes of exp(a.k / t)) with the
    prototype c of the node's own class. This is the softmax over proxies of Movshovitz-Attias et
    al., "No Fuss Distance Metric Learning using Proxies", ICCV 2017, with the learnt centres of Cui
    et al., "Parametric Contrastive Learning", ICCV 2021. A node that is the only one of its class
    in the batch still has a target.

    Args:
        embeddings: (N, D) float; L2-normalised here.
        labels: (N,) integers, rows of `prototypes`.
        prototypes: (C, D) float, one per class; L2-normalised here.
        temperature: t, greater than 0.

    Returns:
        Scalar; 0, connected to embeddings and prototypes, if there is no node.

    Raises:
        ValueError: As `supervised_contrastive_loss`, or the prototypes are not a float matrix of
            the embeddings' width.

    Examples:
        >>> import torch
        >>> prototypes = torch.eye(2)
        >>> prototype_loss(torch.eye(2), torch.tensor([0, 1]), prototypes, temperature=1.0)
        tensor(0.3133)
    """
    check_embeddings('embeddings', embeddings)
    check_labels('labels', labels, 'embeddings', embeddings)
    check_embeddings('prototypes', prototypes)
    if prototypes.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f'prototypes must be {embeddings.shape[1]} wide, as the embeddings are, got '
            f'{describe(prototypes)}'
        )
    _check_temperature(temperature)
    with full_precision(embeddings):
        if not len(labels):
            return (as_precise(embeddings).sum() + as_precise(prototypes).sum()) * 0
        centres = unit_rows(as_precise(prototypes))
        scores = unit_rows(as_precise(embeddings)) @ centres.T / temperature  # (N, C)
        return F.cross_entropy(scores, labels)


def _check_temperature(temperature: float) -> None:
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f'temperature must be finite and above 0, got {describe(temperature)}')
