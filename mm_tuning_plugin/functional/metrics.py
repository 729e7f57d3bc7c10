"""How well embeddings of one class lie together: retrieval and distances, by cosine.

Shape legend: Q queries, G gallery items, N embeddings, D dimensions.

Rows of zeros have cosine 0 to everything. No gradients; memory stays bounded by chunks of queries.
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
    """Share of the queries with an item of their class among the k nearest of the gallery.

    Args:
        queries: (Q, D) float; any length, compared by cosine.
        query_labels: (Q,) integers.
        gallery: (G, D) float.
        gallery_labels: (G,) integers.
        k: How many neighbours count.
        exclude_self: Whether query i is item i of the gallery and must not find itself.

    Returns:
        Scalar in [0, 1]. A query of a class that the gallery lacks is a miss. Which of several
        equally near items are among the k is up to the sort.

    Raises:
        ValueError: On empty or mismatching inputs, and if k exceeds the items to choose from.
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
    """Mean over the queries of the average precision at R, R the gallery items of its class.

    MAP@R of Musgrave et al., "A Metric Learning Reality Check", ECCV 2020 (arXiv 2003.08505): with
    P(i) the precision among the i nearest, 1 / R * sum over i <= R of P(i) where the i-th is right.

    Args:
        queries: (Q, D) float; any length, compared by cosine.
        query_labels: (Q,) integers.
        gallery: (G, D) float.
        gallery_labels: (G,) integers.
        exclude_self: Whether query i is item i of the gallery and must not find itself.

    Returns:
        Scalar in [0, 1]. A query of a class that the gallery lacks scores 0, as in `recall_at_k`.

    Raises:
        ValueError: On empty or mismatching inputs.
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

    Over all unordered pairs, so that large classes count by their pairs. From the sums of the
    classes, in float64: O(N D), no pair is formed.

    Args:
        embeddings: (N, D) float; any length.
        labels: (N,) integers.

    Returns:
        Both means, float64 scalars; nan where there is no such pair.

    Raises:
        ValueError: On empty or mismatching inputs.
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

    The mean squared distance of the unit rows to their mean: half the mean cosine distance of all
    ordered pairs, a row with itself included. Free of scale, so that one threshold tells a collapse
    for every width and length.

    Args:
        embeddings: (N, D) float; any length. A row of zeros stays one.

    Returns:
        Scalar in [0, 1]: 0 where all rows are one direction or all are zero, near 1 where they
        are spread over all directions.

    Raises:
        ValueError: On empty or malformed input.
    """
    check_embeddings('embeddings', embeddings)
    _check_not_empty('embeddings', embeddings)
    with full_precision(embeddings):
        unit = unit_rows(as_precise(embeddings))
        return (unit - unit.mean(0)).square().sum(1).mean()


@torch.no_grad()
def lone_classes(labels: Tensor) -> Tensor:
    """How many classes of a batch have a single node: nothing is a positive for it.

    By sorting, so that no device is waited for and the number of classes need not be known.

    Args:
        labels: (N,) integers.

    Returns:
        Scalar int64; 0 for no labels.

    Raises:
        ValueError: On other inputs.
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
    """Yields rows (q,) of the queries and their cosines (q, G), -inf for oneself if excluded."""
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
