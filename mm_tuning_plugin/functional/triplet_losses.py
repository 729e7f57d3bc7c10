"""Triplet losses on labelled embeddings: the released one, and its expectation.

Shape legend: N embeddings of D dimensions, T triplets, K classes present.

The embeddings are brought to unit length here; rows of zeros stay zeros. The arithmetic is in
float32 at least, regardless of autocast; float64 stays. If there is nothing to compare, the loss is
a zero connected to the graph, so `backward()` works.
"""

from __future__ import annotations

import math

import torch
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
    github XiaohangZhan/mix-and-match at 8d4c9df). With post-ReLU features no cosine is negative, so
    with margin 2.1 the hinge is always open and each term is 1.05 + cos(a, n) - cos(a, p).

    Args:
        embeddings: (N, D) float, of any length; L2-normalised here, as in the released system.
        triplets: T triplets of row indices, for example from `graph_triplets`.
        margin: Wanted difference of the squared distances, which are in 0..4.

    Returns:
        Scalar; 0, connected to the graph, if there are no triplets.

    Raises:
        ValueError: The embeddings are not a float matrix, the margin is not finite, or the triplets
            have unequal lengths or indices outside the rows (the latter is not checked on a GPU,
            where it would stall the stream).

    Examples:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> triplets = Triplets(torch.tensor([0]), torch.tensor([1]), torch.tensor([2]))
        >>> triplet_margin_loss(embeddings, triplets, margin=1.0)  # (1 + 2 - 0) / 2
        tensor(1.5000)
    """
    _check_triplets(embeddings, triplets, margin)
    with full_precision(embeddings):
        embeddings = as_precise(embeddings)
        if len(triplets.anchor) == 0:
            return embeddings.sum() * 0
        return _triplet_terms(embeddings, triplets, margin).clamp_min(0).mean() / 2


def expected_triplet_loss(embeddings: Tensor, labels: Tensor, margin: float = 2.1) -> Tensor:
    """The mean of `triplet_margin_loss` over all triplets of a batch, without the hinge.

    For each anchor that has a positive and a negative, the mean over its triplets: each other node
    of its class with each node of another class. Then the mean over the anchors. Without the hinge
    (it is always open for post-ReLU features with margin 2.1) a term is linear in positive and
    negative, so it needs only the sums of the classes: O(N D), no sampling noise. If the hinge
    would close for some triplets, it is a lower bound.

    Args:
        embeddings: (N, D) float; L2-normalised here.
        labels: (N,) integers, the class of each row.
        margin: As in `triplet_margin_loss`; it does not change the gradient.

    Returns:
        Scalar; 0, connected to the graph, if no node has a positive and a negative.

    Raises:
        ValueError: The embeddings are not a float matrix, the labels do not match their rows, or
            the margin is not finite.

    Examples:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> expected_triplet_loss(embeddings, torch.tensor([0, 0, 1]), margin=1.0)
        tensor(1.)
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


@torch.no_grad()
def active_triplet_share(embeddings: Tensor, triplets: Triplets, margin: float = 2.1) -> Tensor:
    """The share of triplets whose hinge is open: only these have a gradient.

    Args:
        embeddings: (N, D) float; L2-normalised here.
        triplets: T triplets of row indices.
        margin: As in `triplet_margin_loss`.

    Returns:
        Scalar in [0, 1] without gradient; 0 if there are no triplets.

    Raises:
        ValueError: As `triplet_margin_loss`.

    Examples:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> triplets = Triplets(torch.tensor([0, 2]), torch.tensor([2, 0]), torch.tensor([1, 1]))
        >>> active_triplet_share(embeddings, triplets, margin=1.0)
        tensor(0.)
    """
    _check_triplets(embeddings, triplets, margin)
    with full_precision(embeddings):
        embeddings = as_precise(embeddings)
        if len(triplets.anchor) == 0:
            return embeddings.new_zeros(())
        return (_triplet_terms(embeddings, triplets, margin) > 0).to(embeddings.dtype).mean()


def _triplet_terms(embeddings: Tensor, triplets: Triplets, margin: float) -> Tensor:
    """Returns margin + |a - p|^2 - |a - n|^2 of the unit rows: (T,), before the hinge.

    |a - p|^2 = |a|^2 + |p|^2 - 2 a.p, with squared lengths of 1, or 0 for rows of zeros. Products
    are divided by the lengths, which are products of a row with itself. So only one pass over pairs
    of rows, and one sparse product for the gradient, read an (N, D) tensor.
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
