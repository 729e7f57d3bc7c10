"""One set of nodes over all ranks, with gradients."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
import torch.nn.functional as F
from torch import Tensor


def gather_nodes(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenate the nodes of all ranks, in rank order; every rank gets the same result.

    The gather's backward sums over ranks. Each rank computes the loss of all nodes, and DDP
    averages gradients over ranks, so the gradient is that of one process holding all nodes.
    Ranks may hold different numbers of nodes, or none.

    Args:
        embeddings: (N_r, E).
        labels: (N_r,) int64.

    Returns:
        (sum N_r, E) and (sum N_r,); the input itself where nothing is distributed.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return embeddings, labels
    count = torch.tensor([len(labels)], device=labels.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    sizes = [int(c) for c in counts]
    # Ranks must exchange equal shapes: pad with rows that are cut off again.
    padding = max(sizes) - len(labels)
    all_labels = [labels.new_empty(max(sizes)) for _ in sizes]
    dist.all_gather(all_labels, F.pad(labels, (0, padding)))
    all_embeddings = dist_nn.all_gather(F.pad(embeddings, (0, 0, 0, padding)))
    return (
        torch.cat([rows[:n] for rows, n in zip(all_embeddings, sizes)]),
        torch.cat([rows[:n] for rows, n in zip(all_labels, sizes)]),
    )
