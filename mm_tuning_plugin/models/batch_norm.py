"""BatchNorm's running statistics: keep them during a recomputation, or estimate them again.

Shape legend: K channels of one layer, B images of a batch, W ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mm_tuning_plugin.models.module_modes import keep_modes

Norm = Any  # a module with running statistics


def tracking_norms(network: nn.Module) -> list[Norm]:
    """All layers with running statistics: every form of BatchNorm, synchronised or not.

    They are found by their attributes, not by their class: mmcv's SyncBatchNorm and mmengine's
    replacement of it do not derive from torch's BatchNorm.
    """
    return [
        module
        for module in network.modules()
        if getattr(module, 'running_mean', None) is not None and hasattr(module, 'momentum')
    ]


class momentum_override:
    """Context in which layers update their running statistics with another momentum.

    With 0 the statistics do not change by a bit, with 1 they are those of the last batch. The
    layers' counters of batches do not change. The context can be entered several times: a second
    backward pass over the same graph does so.

    Args:
        norms: The layers.
        momentum: Weight of a new batch, in [0, 1].

    Examples:
        >>> norm = nn.BatchNorm1d(1)
        >>> with momentum_override([norm], 0.0):
        ...     output = norm(torch.tensor([[2.0], [4.0]]))
        >>> norm.running_mean
        tensor([0.])
    """

    def __init__(self, norms: Sequence[Norm], momentum: float) -> None:
        self.norms = norms
        self.momentum = momentum
        self.kept: list[tuple[float | None, Tensor | None]] = []

    def __enter__(self) -> None:
        self.kept = [(n.momentum, getattr(n, 'num_batches_tracked', None)) for n in self.norms]
        for norm, (_, counter) in zip(self.norms, self.kept):
            norm.momentum = self.momentum
            norm.num_batches_tracked = None if counter is None else counter.clone()

    def __exit__(self, *raised: object) -> None:
        for norm, (momentum, counter) in zip(self.norms, self.kept):
            norm.momentum, norm.num_batches_tracked = momentum, counter


@torch.no_grad()
def estimate_statistics(network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace the running statistics by their averages over `batches` of all ranks.

    Each layer normalises by its batch, as in training. Its batch statistics (the mean, and the
    variance with the denominator n - 1) are averaged in float64, weighted by the number of images.
    This is the cumulative average of `torch.optim.swa_utils.update_bn`, which does not support
    ranks and frozen layers. All other layers are in evaluation mode, so nothing is random. Weights,
    counters, momenta and modes do not change.

    Only layers that `network.train()` puts into training mode are updated: frozen layers, layers
    under ``norm_eval`` and layers that are never called keep their statistics. Synchronised layers
    communicate in every batch, so all ranks need the same number of batches.

    Args:
        network: The backbone.
        batches: (B, C, H, W) each, normalised, on the network's device; B may differ. At least
            one on every rank.

    Returns:
        The number of layers whose statistics were replaced; if it is 0, `batches` was not read.
    """
    with keep_modes(network):
        network.train()  # mmseg's backbones freeze layers here, and return None
        norms = [norm for norm in tracking_norms(network) if norm.training]
        if norms:
            network.eval()
            for norm in norms:
                norm.training = True
            records = _record(network, norms, batches)
            all_reduce(records)  # no-op with one rank
            lengths = [1 + 2 * len(norm.running_mean) for norm in norms]
            norms = [n for n, row in zip(norms, records.split(lengths)) if _assign(n, row)]
    return len(norms)


def _record(network: nn.Module, norms: Sequence[Norm], batches: Iterable[Tensor]) -> Tensor:
    """Sum (1, mean, variance) over the calls of each layer, weighted by the number of images.

    Returns:
        The rows (1 + 2 K,) of all layers, concatenated, float64, on the CPU.
    """
    rows = {norm: torch.zeros(1 + 2 * len(norm.running_mean)).double() for norm in norms}

    def add(norm: Norm, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        recorded = [statistic.cpu().double() for statistic in (norm.running_mean, norm.running_var)]
        rows[norm] += len(inputs[0]) * torch.cat([torch.ones(1).double(), *recorded])

    kept = [(norm.running_mean, norm.running_var) for norm in norms]
    handles = [norm.register_forward_hook(add) for norm in norms]
    try:
        with momentum_override(norms, 1.0):
            for norm in norms:  # 0 * nan is nan: start from finite values
                norm.running_mean = torch.zeros_like(norm.running_mean)
                norm.running_var = torch.ones_like(norm.running_var)
            for batch in batches:
                network(batch)
    finally:
        for norm, handle, statistics in zip(norms, handles, kept):
            handle.remove()
            norm.running_mean, norm.running_var = statistics
    return torch.cat(list(rows.values()))


def _assign(norm: Norm, row: Tensor) -> bool:
    """Set the averages of a layer; return False if it was never called."""
    if row[0] == 0:
        return False
    mean, variance = (row[1:] / row[0]).chunk(2)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    return True
