"""Arithmetic on unit embeddings that losses and metrics share.

Shape legend: N embeddings of D dimensions, K classes present, E pairs.

A row shorter than `TINY` counts as the zero vector and gets no gradient: division by the clamped
norm would multiply its gradient by 1e12.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TINY = 1e-12
# Numbers per temporary of the pair products: 512 KiB, which fit in the cache of a CPU; on a GPU
# 128 MiB, because every chunk needs three kernel launches.
_CHUNK, _CHUNK_ON_GPU = 1 << 17, 1 << 25


def full_precision(like: Tensor) -> torch.autocast:
    """A context without autocast on the device of a tensor."""
    return torch.autocast(like.device.type, enabled=False)


def as_precise(embeddings: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 unchanged."""
    if embeddings.dtype in (torch.float32, torch.float64):
        return embeddings
    return embeddings.float()


def inverse_lengths(squares: Tensor) -> Tensor:
    """1 / length from the squared lengths of rows (N,), 0 for zero rows."""
    return squares.clamp_min(TINY**2).rsqrt() * (squares > TINY**2)


def unit_rows(embeddings: Tensor) -> Tensor:
    """The rows (N, D) at unit length; zero rows stay zero."""
    return embeddings * inverse_lengths(embeddings.square().sum(1))[:, None]


class ClassSums(NamedTuple):
    """Sums over classes of N unit embeddings."""

    sums: Tensor  # (K, D) sum of the unit embeddings of each class
    squares: Tensor  # (K,) sum of their squared lengths: the number of rows that are not zero
    counts: Tensor  # (K,) nodes of each class, in the embeddings' dtype
    member_of: Tensor  # (N,) int64, index of the class of each node, in 0..K-1


def class_sums(unit: Tensor, labels: Tensor) -> ClassSums:
    """Sum unit embeddings (N, D) by class (N,)."""
    classes, index, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    sums = unit.new_zeros(len(classes), unit.shape[1]).index_add(0, index, unit)
    lengths = torch.linalg.vecdot(unit.detach(), unit.detach()).round()  # 1, or 0: no gradient
    squares = unit.new_zeros(len(classes)).index_add(0, index, lengths)
    return ClassSums(sums, squares, counts.to(unit.dtype), index)


def pair_products(embeddings: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Scalar products of E pairs of rows, without an (E, D) temporary.

    Args:
        embeddings: (N, D) float.
        left: (E,) int64, index of the first row of each pair.
        right: (E,) int64, index of the second row.

    Returns:
        (E,), once differentiable with respect to the embeddings.
    """
    products: Tensor = _PairProducts.apply(embeddings, left, right)  # type: ignore[no-untyped-call]
    return products


class _PairProducts(torch.autograd.Function):
    """Forward by chunks of pairs; the gradient is one sparse (N, N) times dense product."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(embeddings, left, right)
        numbers = _CHUNK_ON_GPU if embeddings.is_cuda else _CHUNK
        rows = max(1, numbers // max(1, embeddings.shape[1]))
        parts = [
            torch.linalg.vecdot(embeddings.index_select(0, i), embeddings.index_select(0, j))
            for i, j in zip(torch.split(left, rows), torch.split(right, rows))
        ]
        return torch.cat(parts)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        embeddings, left, right = ctx.saved_tensors
        size = (len(embeddings), len(embeddings))
        pairs = torch.stack((torch.cat((left, right)), torch.cat((right, left))))
        with full_precision(embeddings):
            weights = torch.sparse_coo_tensor(pairs, grad.repeat(2), size, check_invariants=False)
            return torch.sparse.mm(weights, embeddings), None, None
