"""Losses on labelled embeddings: the released triplet loss, its expectation, contrastive ones.

Shape legend: N embeddings of D dimensions, T triplets, K classes present.

All bring the embeddings to unit length themselves (at no effect on what is already unit; rows of
zeros stay zeros), compute in float32 at least whatever autocast did to the input (float64 stays),
and return a zero that still hangs on the embeddings where there is nothing to compare, so that a
backward pass over it works and every parameter is touched.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mm_tuning_plugin.functional.embeddings import (
    as_precise,
    class_sums,
    full_precision,
    inverse_lengths,
    pair_products,
    unit_rows,
)

from ..structures import Triplets
from ._checks import check_embeddings, check_integers, check_labels, describe


def triplet_margin_loss(embeddings: Tensor, triplets: Triplets, margin: float = 2.1) -> Tensor:
    """The released triplet loss on unit embeddings.

    L = 1 / (2 T) * sum over triplets of max(0, margin + |a - p|^2 - |a - n|^2), with rows at unit
    length (Zhan et al., AAAI 2018, arXiv 1712.00661; formula and margin of the released code,
    github XiaohangZhan/mix-and-match at 8d4c9df). With post-ReLU features no cosine is negative,
    so at 2.1 the hinge never closes and each term is 1.05 + cos(a, n) - cos(a, p).

    Args:
        embeddings: (N, D) float, of any length: they are L2-normalised here, as the released
            system does before its loss.
        triplets: T triplets of row indices, as of `graph_triplets`.
        margin: Least gap of the squared distances, on the unit sphere (they lie in 0..4).

    Returns:
        Scalar; 0 that hangs on the embeddings if there are no triplets.

    Raises:
        ValueError: On embeddings that are no float matrix, a margin that is not finite, or triplets
            of unequal lengths or outside the rows (the latter is not checked on a GPU, where
            it would stall the stream).
    """
    _check_triplets(embeddings, triplets, margin)
    with full_precision(embeddings):
        embeddings = as_precise(embeddings)
        if len(triplets.anchor) == 0:
            return embeddings.sum() * 0
        return _triplet_terms(embeddings, triplets, margin).clamp_min(0).mean() / 2


def expected_triplet_loss(embeddings: Tensor, labels: Tensor, margin: float = 2.1) -> Tensor:
    """What `triplet_margin_loss` is on average, over all triplets of a batch, hinge open.

    Mean over the anchors that have a positive and a negative of the mean over the anchor's
    triplets: all nodes of its class but itself times all nodes of other classes. With the hinge
    open (always so for post-ReLU features at 2.1) the term is linear in positive and negative, so
    that it needs only the sums of the classes: O(N D), no sampling noise. For signed
    embeddings whose hinge would close it is a lower bound.

    Args:
        embeddings: (N, D) float; L2-normalised here.
        labels: (N,) integers, the class of each row.
        margin: As in `triplet_margin_loss`; without effect on the gradient.

    Returns:
        Scalar; 0 that hangs on the embeddings if no node has a positive and a negative.

    Raises:
        ValueError: On embeddings that are no float matrix, labels that do not match their rows, or
            a margin that is not finite.
    """
    check_embeddings('embeddings', embeddings)
    check_labels('labels', labels, 'embeddings', embeddings)
    _check_margin(margin)
    with full_precision(embeddings):
        embeddings = as_precise(embeddings)
        sums, squares, counts, _ = class_sums(unit_rows(embeddings), labels)
        others = len(labels) - counts  # (K,) negatives of an anchor of each class
        usable = ((counts > 1) & (others > 0)).to(counts.dtype)
        own = sums.square().sum(1)  # (K,) |S_c|^2: products of all pairs inside a class
        across = sums @ sums.sum(0) - own  # (K,) products of its nodes with all others
        # (K,), summed over the anchors of a class; positives exclude the anchor itself
        to_positives = (squares - own) / (counts - 1).clamp_min(1) + margin / 2 * counts
        to_negatives = across / others.clamp_min(1)
        lengths = squares / 2 - counts / 2 * (squares.sum() - squares) / others.clamp_min(1)
        anchors = (counts * usable).sum().clamp_min(1)
        return ((to_positives + to_negatives + lengths) * usable).sum() / anchors


def supervised_contrastive_loss(
    embeddings: Tensor, labels: Tensor, temperature: float = 0.1, *, balanced: bool = False
) -> Tensor:
    """The supervised contrastive loss, L_out of Khosla et al., NeurIPS 2020 (arXiv 2004.11362).

    Mean over the anchors that have a positive of the mean over the positives of
    -log(exp(a.p / t) / sum over all nodes but the anchor of exp(a.k / t)).
    The original also multiplies by t / t_0; we do not.

    Balanced, all classes weigh alike, however many nodes they have: in the sum each class has the
    mean of its nodes (class averaging of Zhu et al., "Balanced Contrastive Learning for Long-Tailed
    Visual Recognition", CVPR 2022), and the mean over the anchors is one of the means of classes.

    Args:
        embeddings: (N, D) float; L2-normalised here.
        labels: (N,) integers, the class of each row.
        temperature: t, greater than 0.
        balanced: Whether classes weigh alike; if not, nodes do.

    Returns:
        Scalar; 0 that hangs on the embeddings if no class has two nodes.

    Raises:
        ValueError: On embeddings that are no float matrix, labels that do not match their rows, or
            a temperature that is not finite and positive.
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
        own = (sums.square().sum(1) - squares) / (counts - 1).clamp_min(1)  # (K,) zero where alone
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
    """Every node against one learnt prototype of each class.

    Mean over the nodes of -log(exp(a.c / t) / sum over all classes of exp(a.k / t)) with the
    prototype c of the node's own class; the softmax over proxies of Movshovitz-Attias et al., "No
    Fuss Distance Metric Learning using Proxies", ICCV 2017, and the learnt centres that Cui et al.,
    "Parametric Contrastive Learning", ICCV 2021, set beside the nodes of a batch: a class whose
    only node of the batch it is still has something to come near to.

    Args:
        embeddings: (N, D) float; L2-normalised here.
        labels: (N,) integers, rows of `prototypes`.
        prototypes: (C, D) float, one a class; L2-normalised here.
        temperature: t, greater than 0.

    Returns:
        Scalar; 0 that hangs on embeddings and prototypes if there is no node.

    Raises:
        ValueError: As `supervised_contrastive_loss`, and if prototypes are no float matrix of the
            embeddings' width.
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


@torch.no_grad()
def active_triplet_share(embeddings: Tensor, triplets: Triplets, margin: float = 2.1) -> Tensor:
    """Share of the triplets whose hinge is open, that is, which give a gradient.

    Args:
        embeddings: (N, D) float; L2-normalised here.
        triplets: T triplets of row indices.
        margin: As in `triplet_margin_loss`.

    Returns:
        Scalar in [0, 1] without gradient; 0 if there are no triplets.

    Raises:
        ValueError: As `triplet_margin_loss`.
    """
    _check_triplets(embeddings, triplets, margin)
    with full_precision(embeddings):
        embeddings = as_precise(embeddings)
        if len(triplets.anchor) == 0:
            return embeddings.new_zeros(())
        return (_triplet_terms(embeddings, triplets, margin) > 0).to(embeddings.dtype).mean()


def _triplet_terms(embeddings: Tensor, triplets: Triplets, margin: float) -> Tensor:
    """Returns margin + |a - p|^2 - |a - n|^2 of the unit rows: (T,), before the hinge.

    By |a - p|^2 = |a|^2 + |p|^2 - 2 a.p; squared lengths are 1, or 0 for rows of zeros. Lengths
    divide the products, not the rows, and are themselves products of a row with itself: so all that
    touches an (N, D) tensor is one pass over pairs of rows and one sparse product for its gradient.
    """
    anchor, positive, negative = triplets
    everyone = torch.arange(len(embeddings), device=embeddings.device)
    left = torch.cat((anchor, anchor, everyone))
    right = torch.cat((positive, negative, everyone))
    products = pair_products(embeddings, left, right)
    sizes = [len(anchor), len(anchor), len(everyone)]
    to_positive, to_negative, lengths = torch.split_with_sizes(products, sizes)
    inverse = inverse_lengths(lengths)  # (N,)
    squares = (inverse > 0).to(inverse.dtype)  # (N,)
    to_positive = to_positive * inverse[anchor] * inverse[positive]  # (T,) cosines
    to_negative = to_negative * inverse[anchor] * inverse[negative]
    gap = squares[positive] - squares[negative]
    return margin + gap + 2 * (to_negative - to_positive)


def _check_temperature(temperature: float) -> None:
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f'temperature must be finite and above 0, got {describe(temperature)}')


def _check_margin(margin: float) -> None:
    if (
        isinstance(margin, bool)
        or not isinstance(margin, (int, float))
        or not math.isfinite(margin)
    ):
        raise ValueError(f'margin must be a finite number, got {describe(margin)}')


def _check_triplets(embeddings: Tensor, triplets: Triplets, margin: float) -> None:
    check_embeddings('embeddings', embeddings)
    _check_margin(margin)
    if not isinstance(triplets, tuple) or len(triplets) != 3:
        raise ValueError(f'triplets must be three index vectors, got {describe(triplets)}')
    for name, index in zip(Triplets._fields, triplets):
        check_integers(f'triplets.{name}', index, '(T,)', 1)
    if len({len(index) for index in triplets}) > 1:
        lengths = ', '.join(str(len(index)) for index in triplets)
        raise ValueError(f'triplets must be three vectors of one length, got lengths {lengths}')
    if embeddings.is_cuda or len(triplets[0]) == 0:
        return
    for name, index in zip(Triplets._fields, triplets):
        low, high = index.min().item(), index.max().item()
        if low < 0 or high >= len(embeddings):
            raise ValueError(
                f'triplets.{name} must index the {len(embeddings)} rows of embeddings, '
                f'got {low}..{high}'
            )
