"""One set of nodes over all ranks, with gradients."""

from __future__ import annotations

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
        counts: How many nodes each rank brought, W of them; 0 where a rank had none.
    """

    embeddings: Tensor
    labels: Tensor
    counts: tuple[int, ...]


def gather_nodes(embeddings: Tensor, labels: Tensor) -> GatheredNodes:
    """Concatenate the nodes of all ranks, in rank order; every rank gets the same result.

    The gather's backward sums over ranks. Each rank computes the loss of all nodes, and DDP
    averages gradients over ranks, so the gradient is that of one process holding all nodes.
    Ranks may hold different numbers of nodes, or none.

    Args:
        embeddings: (N_r, E).
        labels: (N_r,) int64.

    Returns:
        The nodes of all ranks; the input itself where nothing is distributed.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return GatheredNodes(embeddings, labels, (len(labels),))
    count = torch.tensor([len(labels)], device=labels.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    sizes = tuple(torch.cat(counts).tolist())
    # Ranks must exchange equal shapes: pad with rows that are cut off again.
    padding = max(sizes) - len(labels)
    all_labels = [labels.new_empty(max(sizes)) for _ in sizes]
    dist.all_gather(all_labels, F.pad(labels, (0, padding)))
    all_embeddings = _AllGather.apply(F.pad(embeddings, (0, 0, 0, padding)))
    return GatheredNodes(
        torch.cat([rows[:n] for rows, n in zip(all_embeddings, sizes)]),
        torch.cat([rows[:n] for rows, n in zip(all_labels, sizes)]),
        sizes,
    )


class _AllGather(torch.autograd.Function):
    """Gather with gradient; torch's own is deprecated, and what replaces it is not in torch 2.1."""

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


def touching_zero(embeddings: Tensor, loss: nn.Module) -> Tensor:
    """A loss of 0 that hangs on embeddings and on every parameter of a loss, as DDP demands."""
    return sum((each.sum() for each in loss.parameters()), embeddings.sum()) * 0.0
