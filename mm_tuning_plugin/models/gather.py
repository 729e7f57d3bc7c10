"""Gather the nodes of all ranks into one set, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class GatheredNodes(NamedTuple):
    """The nodes of all ranks, in rank order; the same on every rank.

    Attributes:
        embeddings: (N, E), N = sum of `counts`.
        labels: (N,) int64.
        counts: (W,) number of nodes of each rank.
    """

    embeddings: Tensor
    labels: Tensor
    counts: tuple[int, ...]


def gather_nodes(embeddings: Tensor, labels: Tensor) -> GatheredNodes:
    """Concatenate the nodes of all ranks, in rank order; every rank gets the same result.

    The gather's backward sums over ranks. Each rank computes the loss of all nodes, and DDP
    averages gradients over ranks, so the gradient is that of one process holding all nodes.
    Ranks may have different numbers of nodes, or none.

    Args:
        embeddings: (N_r, E).
        labels: (N_r,) int64.

    Returns:
        The nodes of all ranks; the input itself if there is one process.
    """
    labels, counts = gather_labels(labels)
    return GatheredNodes(gather_embeddings(embeddings, counts), labels, counts)


def gather_labels(labels: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Return the labels (N,) of all ranks, in rank order, and how many each rank has."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return labels, (len(labels),)
    count = torch.tensor([len(labels)], device=labels.device)
    every = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(every, count)
    counts = tuple(torch.cat(every).tolist())
    # Ranks must exchange equal shapes: pad with rows that are cut off again.
    padded = [labels.new_empty(max(counts)) for _ in counts]
    dist.all_gather(padded, F.pad(labels, (0, max(counts) - len(labels))))
    return torch.cat([rows[:n] for rows, n in zip(padded, counts)]), counts


def gather_embeddings(embeddings: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the embeddings (N, E) of all ranks, with gradients.

    Args:
        embeddings: (N_r, E) of this rank.
        counts: From `gather_labels`.
    """
    if len(counts) == 1:
        return embeddings
    padded: Tensor = _AllGather.apply(F.pad(embeddings, (0, 0, 0, max(counts) - len(embeddings))))
    return torch.cat([rows[:n] for rows, n in zip(padded, counts)])


class _AllGather(torch.autograd.Function):
    """Gather with gradient; torch's own is deprecated, and its replacement is not in torch 2.1."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # (K, E), K the same on every rank
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.stack(gathered)  # (W, K, E)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad[dist.get_rank()]


def connected_zero(embeddings: Tensor, loss: nn.Module) -> Tensor:
    """A zero connected to the embeddings and all parameters of a loss, as DDP demands."""
    return sum((each.sum() for each in loss.parameters()), embeddings.sum()) * 0.0
