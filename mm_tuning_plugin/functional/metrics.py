"""How close embeddings of one class are to each other: retrieval and distances, by cosine.

Shape legend: Q queries, G gallery items, N embeddings, D dimensions.

Rows of zeros have cosine 0 to all others. There are no gradients. Queries are processed in chunks,
which bounds the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mm_tuning_plugin.functional.embeddings import as_precise, class_sums, full_precision, unit_rows

from ._checks import check_at_least, check_embeddings, check_integers, check_labels

_CHUNK = 1 << 22  # similarities held at a time: 16 MiB of float32


class ClassDistances(NamedTuple):
    """Mean cosine distances (1 - cosine, in 0..2) over pairs of embeddings.

    Attributes:
        intra: Scalar, over pairs of one class; nan if there is none.
        inter: Scalar, over pairs of different classes; nan if there is none.
    """

    intra: Tensor
    inter: Tensor


@torch.no_grad()
def recall_at_k(
    queries: Tensor,
    query_labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    k: int = 1,
    *,
    exclude_self: bool = False,
) -> Tensor:
    """The share of queries with an item of their class among the k nearest of the gallery.

    Args:
        queries: (Q, D) float; any length, compared by cosine.
        query_labels: (Q,) integers.
        gallery: (G, D) float.
        gallery_labels: (G,) integers.
        k: Number of neighbours.
        exclude_self: Whether query i is item i of the gallery and must not find itself.

    Returns:
        Scalar in [0, 1]. A query whose class is not in the gallery is a miss. Ties are broken
        arbitrarily.

    Raises:
        ValueError: The inputs are empty or do not match, or k exceeds the number of items.

    Examples:
        >>> queries, gallery = torch.eye(2), torch.tensor([[1.0, 0.1], [0.1, 1.0]])
        >>> recall_at_k(queries, torch.tensor([0, 1]), gallery, torch.tensor([0, 0]))
        tensor(0.5000)
    """
    _check_retrieval(queries, query_labels, gallery, gallery_labels, exclude_self)
    check_at_least('k', k, 1)
    if k > len(gallery) - exclude_self:
        raise ValueError(f'k must be at most {len(gallery) - exclude_self}, the items, got {k}')
    hits = torch.zeros((), dtype=torch.int64, device=queries.device)
    for rows, similarity in _similarities(queries, gallery, exclude_self):
        nearest = similarity.topk(k, dim=1).indices  # (q, k)
        hits += (gallery_labels[nearest] == query_labels[rows, None]).any(1).sum()
    return hits / len(queries)


@torch.no_grad()
def mean_average_precision_at_r(
    queries: Tensor,
    query_labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    *,
    exclude_self: bool = False,
) -> Tensor:
    """Mean average precision at R, the number of gallery items of the query's class.

    MAP@R of Musgrave et al., "A Metric Learning Reality Check", ECCV 2020 (arXiv 2003.08505): the
    mean over the queries of 1 / R * sum of P(i) over those i <= R whose i-th nearest item has the
    query's class, with P(i) the precision among the i nearest.

    Args:
        queries: (Q, D) float; any length, compared by cosine.
        query_labels: (Q,) integers.
        gallery: (G, D) float.
        gallery_labels: (G,) integers.
        exclude_self: Whether query i is item i of the gallery and must not find itself.

    Returns:
        Scalar in [0, 1]. A query whose class is not in the gallery has precision 0.

    Raises:
        ValueError: The inputs are empty or do not match.

    Examples:
        >>> gallery = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        >>> labels = torch.tensor([0, 1, 0])
        >>> mean_average_precision_at_r(gallery[:1], labels[:1], gallery, labels)  # R = 2
        tensor(0.5000)
    """
    _check_retrieval(queries, query_labels, gallery, gallery_labels, exclude_self)
    ranks = torch.arange(1, len(gallery) + 1, device=queries.device)  # (G,)
    total = torch.zeros((), dtype=torch.float64, device=queries.device)
    for rows, similarity in _similarities(queries, gallery, exclude_self):
        order = similarity.argsort(dim=1, descending=True)  # (q, G)
        right = gallery_labels[order] == query_labels[rows, None]  # (q, G)
        relevant = (gallery_labels == query_labels[rows, None]).sum(1) - int(exclude_self)  # (q,)
        counted = right & (ranks <= relevant[:, None])
        precision = right.cumsum(1) / ranks
        total += ((precision * counted).sum(1) / relevant.clamp_min(1)).sum()
    return (total / len(queries)).float()


@torch.no_grad()
def intra_inter_distance(embeddings: Tensor, labels: Tensor) -> ClassDistances:
    """Mean cosine distance of pairs inside classes and of pairs across classes.

    All unordered pairs have equal weights. Computed from the sums of the classes, in float64 and
    O(N D), without forming a pair.

    Args:
        embeddings: (N, D) float; any length.
        labels: (N,) integers.

    Returns:
        Both means, float64 scalars; nan without a pair.

    Raises:
        ValueError: The inputs are empty or do not match.

    Examples:
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> distances = intra_inter_distance(embeddings, torch.tensor([0, 0, 1]))
        >>> distances.intra.item(), distances.inter.item()
        (0.0, 1.0)
    """
    check_embeddings('embeddings', embeddings)
    check_labels('labels', labels, 'embeddings', embeddings)
    _check_not_empty('embeddings', embeddings)
    with full_precision(embeddings):
        sums, squares, counts, _ = class_sums(unit_rows(embeddings.double()), labels)
        inside = sums.square().sum(1)  # (K,) products of all ordered pairs of a class, and squares
        intra = (inside - squares).sum() / (counts.square() - counts).sum()
        between = sums.sum(0).square().sum() - inside.sum()
        inter = between / (counts.sum().square() - counts.square().sum())
    return ClassDistances(1 - intra, 1 - inter)


@torch.no_grad()
def embedding_variance(embeddings: Tensor) -> Tensor:
    """Total variance of the embeddings, each scaled to unit length.

    The mean squared distance of the unit rows to their mean, which equals the mean cosine distance
    of all ordered pairs, a row with itself included. It does not depend on the scale, so one
    threshold detects a collapse for every width and length.

    Args:
        embeddings: (N, D) float; any length. A row of zeros stays zero.

    Returns:
        Scalar in [0, 1]: 0 if all rows have one direction or are zero, near 1 if they are spread
        over all directions.

    Raises:
        ValueError: The input is empty or not a float matrix.

    Examples:
        >>> embedding_variance(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        tensor(0.5000)
    """
    check_embeddings('embeddings', embeddings)
    _check_not_empty('embeddings', embeddings)
    with full_precision(embeddings):
        unit = unit_rows(as_precise(embeddings))
        return (unit - unit.mean(0)).square().sum(1).mean()


@torch.no_grad()
def lone_classes(labels: Tensor) -> Tensor:
    """The number of singleton classes: classes with a single node, which has no positive.

    Computed by sorting, which does not wait for the device and needs no number of classes.

    Args:
        labels: (N,) integers.

    Returns:
        Scalar int64; 0 for no labels.

    Raises:
        ValueError: The labels are not an integer vector.

    Examples:
        >>> lone_classes(torch.tensor([3, 3, 0, 7]))
        tensor(2)
    """
    check_integers('labels', labels, '(N,)', 1)
    ordered = labels.sort().values
    begins = torch.ones_like(ordered, dtype=torch.bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    ends = torch.ones_like(begins)
    ends[:-1] = begins[1:]
    return (begins & ends).sum()


def _similarities(
    queries: Tensor, gallery: Tensor, exclude_self: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield indices (q,) of queries and their cosines (q, G); an excluded item has -inf."""
    with full_precision(queries):
        queries = unit_rows(as_precise(queries))
        gallery = unit_rows(as_precise(gallery)).to(queries.dtype)
        everything = torch.arange(len(queries), device=queries.device)
        for rows in torch.split(everything, max(1, _CHUNK // len(gallery))):
            similarity = queries[rows] @ gallery.T
            if exclude_self:
                similarity.scatter_(1, rows[:, None], -torch.inf)
            yield rows, similarity


def _check_not_empty(name: str, value: Tensor) -> None:
    if len(value) == 0:
        raise ValueError(f'{name} must have at least one row, got none')


def _check_retrieval(
    queries: Tensor,
    query_labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    exclude_self: bool,
) -> None:
    check_embeddings('queries', queries)
    check_labels('query_labels', query_labels, 'queries', queries)
    check_embeddings('gallery', gallery)
    check_labels('gallery_labels', gallery_labels, 'gallery', gallery)
    _check_not_empty('queries', queries)
    _check_not_empty('gallery', gallery)
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f'gallery must have the {queries.shape[1]} dimensions of queries, '
            f'got {gallery.shape[1]}'
        )
    if exclude_self and len(queries) != len(gallery):
        raise ValueError(
            f'exclude_self needs the queries as the gallery, got {len(queries)} queries '
            f'and {len(gallery)} items'
        )
