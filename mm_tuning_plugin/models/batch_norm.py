"""BatchNorm's running statistics: left alone while something is recomputed, or estimated anew.

Shape legend: K channels of one layer, B images of a batch, W ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn


def tracking_norms(network: nn.Module) -> list[nn.Module]:
    """Every layer that keeps running statistics: BatchNorm in all its forms, synchronised or not.

    Found by what they hold, not by their class: mmcv's synchronised one and mmengine's
    replacement of it do not derive from torch's BatchNorm.
    """
    return [
        module
        for module in network.modules()
        if getattr(module, 'running_mean', None) is not None and hasattr(module, 'momentum')
    ]


class HeldMomentum:
    """Inside, layers keep running statistics by another momentum, and their counters count copies.

    0 leaves the statistics as they are, to the bit; 1 records the last batch alone. A context that
    can be entered again, as a second backward pass over one graph does.

    Args:
        norms: The layers.
        momentum: Weight of a new batch.
    """

    def __init__(self, norms: Sequence[nn.Module], momentum: float) -> None:
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
    """Replace the running statistics by their averages over `batches`, all ranks together.

    Each layer normalises by its batch, as in training, and what it would record of a batch (the
    mean, and the variance with the denominator n - 1) is averaged in float64, each batch with the
    weight of its images: the cumulative average of `torch.optim.swa_utils.update_bn`, which
    knows neither ranks nor frozen layers. All else is in evaluation mode: nothing is random.
    Weights, counters, momenta and modes are left as they were.

    Only layers that `network.train()` leaves in training mode take part; frozen ones, those under
    ``norm_eval``, and those that are never called stay. Synchronised layers exchange every batch,
    so ranks must bring equally many batches.

    Args:
        network: The backbone.
        batches: (B, C, H, W) each, normalised, on the network's device; B may differ. At least
            one on every rank.

    Returns:
        The number of layers whose statistics were replaced; `batches` is not read where it is 0.
    """
    modes = {module: module.training for module in network.modules()}
    network.train()  # mmseg's backbones freeze here, and return nothing
    norms = [norm for norm in tracking_norms(network) if norm.training]
    try:
        if norms:
            network.eval()
            for norm in norms:
                norm.training = True
            records = _record(network, norms, batches)
            all_reduce(records)  # one exchange; does nothing where there is one rank
            lengths = [1 + 2 * len(norm.running_mean) for norm in norms]
            norms = [n for n, row in zip(norms, records.split(lengths)) if _assign(n, row)]
    finally:
        for module, training in modes.items():
            module.training = training
    return len(norms)


def _record(network: nn.Module, norms: Sequence[nn.Module], batches: Iterable[Tensor]) -> Tensor:
    """Sums over the calls of each layer, weighted by their images, of (1, mean, variance).

    Returns:
        The rows (1 + 2 K,) of all layers behind one another, float64, on the CPU.
    """
    rows = {norm: torch.zeros(1 + 2 * len(norm.running_mean)).double() for norm in norms}

    def add(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        recorded = [statistic.cpu().double() for statistic in (norm.running_mean, norm.running_var)]
        rows[norm] += len(inputs[0]) * torch.cat([torch.ones(1).double(), *recorded])

    kept = [(norm.running_mean, norm.running_var) for norm in norms]
    handles = [norm.register_forward_hook(add) for norm in norms]
    try:
        with HeldMomentum(norms, 1.0):
            for norm in norms:  # what is not finite would outlast the weight 0 of the old
                norm.running_mean = torch.zeros_like(norm.running_mean)
                norm.running_var = torch.ones_like(norm.running_var)
            for batch in batches:
                network(batch)
    finally:
        for norm, handle, statistics in zip(norms, handles, kept):
            handle.remove()
            norm.running_mean, norm.running_var = statistics
    return torch.cat(list(rows.values()))


def _assign(norm: nn.Module, row: Tensor) -> bool:
    """Give a layer its averages; one that was never called keeps what it has."""
    if row[0] == 0:
        return False
    mean, variance = (row[1:] / row[0]).chunk(2)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    return True
