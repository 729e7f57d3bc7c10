"""What pictures need of the embedded nodes at one moment, small enough to be kept until the end.

Shape legend: I images; P nodes of one of them; N of all, in the order of the images; D numbers of
an embedding; S nodes kept with their embeddings; Q queries; K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mm_tuning_plugin.atomic_write import atomic_write
from mm_tuning_plugin.config_types import ConfigMap
from mm_tuning_plugin.functional import recall_at_k
from mm_tuning_plugin.visualization import class_similarity
from mm_tuning_plugin.visualization.embeddings import thin_out

MOST_POINTS = 2000
MOST_NUMBERS = 2**25  # of the embeddings kept: 64 MiB
MOST_QUERIES = 24
NEIGHBOURS = 5


class Snapshot(NamedTuple):
    """The nodes of node retrieval at one moment.

    Attributes:
        points: (S,) int64, which of the N nodes are kept: the same at every moment.
        labels: (S,) int64, their classes.
        embeddings: (S, D) float16, of length 1.
        similarity: (K, K) float64, see `class_similarity`; of all nodes.
        queries: (Q, 2) int64, (image, place on it): one of each class, or of evenly chosen ones.
        query_labels: (Q,) int64.
        neighbours: (Q, up to 5, 2) int64, their nearest nodes of the gallery, nearest first.
        neighbour_labels: (Q, up to 5) int64.
        recall: recall@1 of all queries; NaN if it could not be measured.
    """

    points: np.ndarray
    labels: np.ndarray
    embeddings: np.ndarray
    similarity: np.ndarray
    queries: np.ndarray
    query_labels: np.ndarray
    neighbours: np.ndarray
    neighbour_labels: np.ndarray
    recall: float

    def same_nodes(self, other: Snapshot) -> bool:
        """Whether another snapshot is of the same nodes."""
        return all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ('points', 'labels', 'queries', 'query_labels')
        )


def take_snapshot(
    nodes: Sequence[ConfigMap], num_classes: int, recall: float | None = None
) -> Snapshot:
    """Reduce the embedded nodes to what pictures need. No random numbers are drawn.

    Args:
        nodes: Of each image ``role`` ('gallery', 'query'), ``embeddings`` (P, D), ``labels`` (P,).
        num_classes: K.
        recall: recall@1 if known; otherwise it is measured here.

    Raises:
        ValueError: An embedding is not finite.
    """
    unit = torch.nn.functional.normalize(torch.cat([n['embeddings'] for n in nodes]).float())
    labels = torch.cat([n['labels'] for n in nodes])
    asks = torch.tensor([n['role'] == 'query' for n in nodes], dtype=torch.bool)
    counts = [len(n['labels']) for n in nodes]
    asks = asks.repeat_interleave(torch.tensor(counts))
    gallery = (~asks).nonzero()[:, 0]
    queries = choose_queries(labels, asks)
    nearest = gallery[_nearest(unit[queries], unit[gallery])]
    if recall is None:
        recall = float('nan')
        if len(gallery) and asks.any():
            recall = float(recall_at_k(unit[asks], labels[asks], unit[gallery], labels[gallery], 1))
    most = min(MOST_POINTS, MOST_NUMBERS // max(unit.shape[1], 1))
    points = thin_out(labels.numpy(), most)
    return Snapshot(
        points=points,
        labels=labels.numpy()[points],
        embeddings=unit.numpy()[points].astype(np.float16),
        similarity=class_similarity(unit.numpy(), labels.numpy(), num_classes),
        queries=locate(queries.numpy(), counts),
        query_labels=labels[queries].numpy(),
        neighbours=locate(nearest.numpy(), counts),
        neighbour_labels=labels[nearest].numpy(),
        recall=recall,
    )


def choose_queries(labels: Tensor, asks: Tensor, most: int = MOST_QUERIES) -> Tensor:
    """Choose one query of each class, the middle one; of many classes evenly chosen ones.

    The choice reads labels alone: no query is shown because it was answered well.

    Args:
        labels: (N,) int64.
        asks: (N,) bool, which nodes are queries.
        most: Queries at most.

    Returns:
        (Q,) int64, indices among the N, in the order of the classes.
    """
    present = labels[asks].unique()
    if len(present) > most:
        present = present[torch.linspace(0, len(present) - 1, most).long()]
    chosen = []
    for label in present:  # at most 24
        members = (asks & (labels == label)).nonzero()[:, 0]
        chosen.append(int(members[len(members) // 2]))
    return torch.tensor(chosen, dtype=torch.int64)


def locate(nodes: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Return each node's image, and its index among the image's nodes.

    Args:
        nodes: (...) int64, indices among the N.
        counts: Nodes of each of the I images.

    Returns:
        (..., 2) int64, (image, place).
    """
    ends = np.cumsum(counts)
    images = np.searchsorted(ends, nodes, side='right')
    return np.stack([images, nodes - (ends - counts)[images]], axis=-1)


def save_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write a snapshot, whole or not at all."""
    with atomic_write(path) as aside, open(aside, 'wb') as file:
        np.savez(file, **snapshot._asdict())


def load_snapshot(path: Path) -> Snapshot:
    """Read what `save_snapshot` wrote; nothing in the file can run."""
    with np.load(path, allow_pickle=False) as saved:
        fields = {name: saved[name] for name in Snapshot._fields}
    return Snapshot(**{**fields, 'recall': float(fields['recall'])})


def _nearest(queries: Tensor, gallery: Tensor) -> Tensor:
    """Indices (Q, up to 5) of the gallery's rows of the highest cosine; ties by index."""
    order = torch.argsort(queries @ gallery.T, dim=1, descending=True, stable=True)
    return order[:, :NEIGHBOURS]
