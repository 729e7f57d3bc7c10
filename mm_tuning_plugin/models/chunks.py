"""Embed a batch in chunks of images; the backward pass computes each chunk again.

So a step holds the activations of one chunk only, regardless of the batch size, and a second set of
parameter gradients, in which autograd adds up those of the chunks.
Shape legend: M images, N nodes, K chunks, E channels of the embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.models.batch_norm import momentum_override, tracking_norms

SINGLE_VALUE = 'more than 1 value per channel'  # in torch's message
Embed = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def embed_in_chunks(
    embed: Embed, images: Tensor, points: Tensor, chunk_size: int, network: nn.Module
) -> tuple[Tensor, Tensor]:
    """Embed a batch chunk by chunk; its gradient is that of the whole batch.

    Layers that mix images (BatchNorm in training) see one chunk. Their running statistics are
    updated once per chunk; the recomputation does not update them. It draws the same random numbers
    and runs under the same autocast.

    Args:
        embed: From images and points to embeddings (N, E) and a scalar to be summed.
        images: (M, C, H, W).
        points: (N, 3) int64, (image, y, x), in any order.
        chunk_size: Most images of a chunk, from 1. Sizes of chunks differ by at most one image:
            a small last chunk would have poor statistics.
        network: All modules that `embed` uses; the recomputation does not update their statistics.

    Returns:
        What `embed` returns for the whole batch, in the order of `points`. If the batch fits in one
        chunk, nothing is recomputed.

    Raises:
        UserError: A chunk is too small for BatchNorm to train on.
    """
    parts = -(-len(images) // chunk_size)
    if parts <= 1:
        return embed(images, points)
    chunks, order = split_nodes(images, points, parts)

    norms = tracking_norms(network)

    def contexts() -> tuple[nullcontext[None], momentum_override]:
        # Setting track_running_stats=False would save fewer tensors than the first pass did,
        # which checkpoint refuses.
        return nullcontext(), momentum_override(norms, 0.0)

    done = []
    for chunk in chunks:
        try:
            # The tensors must be arguments: checkpoint keeps the random state of their devices.
            done.append(checkpoint(embed, *chunk, use_reentrant=False, context_fn=contexts))
        except ValueError as error:
            if SINGLE_VALUE not in str(error):
                raise
            raise _too_small(chunk[0], chunk_size) from error
    embeddings, extras = zip(*done)
    return torch.cat(embeddings)[order.argsort()], torch.stack(extras).sum()


def _too_small(images: Tensor, chunk_size: int) -> UserError:
    """The error for a chunk whose maps are too small; only the backbone knows its stride."""
    count, size = len(images), ' x '.join(map(str, images.shape[-2:]))
    return UserError(
        'mix_and_match.chunk_size',
        f'{chunk_size} found, and a chunk of {count} image{"s" if count > 1 else ""} of {size} '
        'leaves BatchNorm a single value a channel',
        'raise it',
    )


def split_nodes(
    images: Tensor, points: Tensor, parts: int
) -> tuple[Iterable[tuple[Tensor, Tensor]], Tensor]:
    """Split images evenly, and assign each point to the chunk of its image.

    Args:
        images: (M, C, H, W).
        points: (N, 3) int64, (image, y, x).
        parts: K, from 1 to M.

    Returns:
        K pairs of images and points, whose first coordinate is an index into the chunk's images (a
        chunk may have no point), and the order (N,) in which the chunks list the points.
    """
    chunks = images.tensor_split(parts)
    sizes = torch.tensor([len(chunk) for chunk in chunks])
    ends = sizes.cumsum(0).to(points.device)  # (K,)
    chunk_of = torch.bucketize(points[:, 0].contiguous(), ends, right=True)  # (N,)
    order = chunk_of.argsort(stable=True)
    counts = torch.bincount(chunk_of, minlength=parts).tolist()
    starts = (ends - sizes.to(ends.device))[chunk_of]
    local = torch.cat([points[:, :1] - starts[:, None], points[:, 1:]], dim=1)
    return zip(chunks, local[order].split(counts)), order
