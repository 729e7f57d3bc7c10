"""L1, L2: graph, normalisation and loss, forward and backward."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from timing import Comparison, interleave, speedups, summary
from torch import Tensor

from mm_tuning_plugin.functional import graph_triplets, triplet_margin_loss

DIMENSIONS, CLASSES, MARGIN = 2048, 21, 2.1
TARGETS = {144: 2.0, 4096: 3.0}
MEMORY_TARGET = 6.0

Step = Callable[[], None]


def batch(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns post-ReLU embeddings that ask for a gradient, and labels."""
    generator = torch.Generator().manual_seed(count)
    embeddings = torch.randn(count, DIMENSIONS, generator=generator).relu()
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    return embeddings.to(device).requires_grad_(), labels.to(device)


def contenders(embeddings: Tensor, labels: Tensor) -> dict[str, Step]:
    """Returns forward and backward steps by name."""
    squared = distances.LpDistance(normalize_embeddings=True, p=2, power=2)
    one = losses.TripletMarginLoss(margin=MARGIN, distance=squared, triplets_per_anchor=1)
    hard = losses.TripletMarginLoss(margin=MARGIN, distance=squared)
    miner = miners.BatchHardMiner(distance=squared)
    contrastive = losses.SupConLoss(temperature=0.1)

    def step(value: Callable[[], Tensor]) -> Step:
        def call() -> None:
            embeddings.grad = None
            value().backward()

        return call

    return {
        'ours': step(lambda: triplet_margin_loss(embeddings, graph_triplets(labels), MARGIN)),
        'PML, one triplet per anchor': step(lambda: one(embeddings, labels)),
        'PML, BatchHardMiner': step(lambda: hard(embeddings, labels, miner(embeddings, labels))),
        'PML, SupConLoss': step(lambda: contrastive(embeddings, labels)),
    }


def check(embeddings: Tensor, labels: Tensor) -> None:
    """Asserts equal values and gradients on the same triplets."""
    triplets = graph_triplets(labels)
    theirs = losses.TripletMarginLoss(
        margin=MARGIN,
        distance=distances.LpDistance(normalize_embeddings=True, p=2, power=2),
        reducer=reducers.MeanReducer(),
    )
    expected = theirs(embeddings, labels, tuple(triplets)) / 2
    (gradient,) = torch.autograd.grad(expected, embeddings)
    value = triplet_margin_loss(embeddings, triplets, MARGIN)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    (ours,) = torch.autograd.grad(value, embeddings)
    torch.testing.assert_close(ours, gradient, rtol=1e-3, atol=1e-3 * gradient.abs().max().item())


def peak_bytes(name: str, count: int, device: torch.device) -> int:
    """Returns what one step adds to the memory in use at its peak, the gradient included.

    On the CPU the high-water mark of the resident memory, which Linux lets a process reset.
    """
    embeddings, labels = batch(count, device)
    small = contenders(*batch(144, device))[name]
    small()  # loads whatever is loaded at first use
    call = contenders(embeddings, labels)[name]
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    Path('/proc/self/clear_refs').write_text('5')
    before = resident('VmRSS')
    call()
    return resident('VmHWM') - before


def resident(field: str) -> int:
    """Returns a memory figure of this process, in bytes."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f'{field} is not in /proc/self/status: memory is measured on Linux only')


def memory(device: torch.device, rounds: int = 7) -> Comparison:
    """Runs L2, each measurement in a process of its own."""
    count = 4096
    names = ['ours', 'PML, one triplet per anchor']
    samples: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            code = (
                f'import sys; sys.path[:0] = {sys.path!r}; import torch, bench_loss; '
                f'torch.set_num_threads({torch.get_num_threads()}); '
                f'print(bench_loss.peak_bytes({name!r}, {count}, torch.device({device.type!r})))'
            )
            done = subprocess.run(
                [sys.executable, '-c', code], capture_output=True, text=True, check=True
            )
            samples[name].append(int(done.stdout) / 2**20)
    figures = {name: summary(values) for name, values in samples.items()}
    own = figures['ours']['median'] * 2**20 / (count * DIMENSIONS * 4)
    case = f'N = {count}, D = {DIMENSIONS}, extra peak over N x D x 4 bytes'
    return Comparison('L2', case, 'MiB', figures, {'of N x D': own}, MEMORY_TARGET, True)


def run(wanted: set[str], device: torch.device) -> list[Comparison]:
    """Runs L1 at two sizes and L2."""
    results = []
    for count, target in TARGETS.items() if 'L1' in wanted else ():
        embeddings, labels = batch(count, device)
        check(embeddings, labels)
        figures = interleave(contenders(embeddings, labels))
        case = f'N = {count}, D = {DIMENSIONS}, {CLASSES} classes, forward + backward'
        results.append(Comparison('L1', case, 'ms', figures, speedups(figures), target))
    if 'L2' in wanted:
        results.append(memory(device))
    return results
