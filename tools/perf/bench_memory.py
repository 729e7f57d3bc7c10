"""M2: what a step adds to the memory in use at its peak, over the number of patches.

What is measured is the peak above what stands before the step: weights, their gradients of an
earlier step, and the patches themselves, which must exist and grow with their number. So it holds
the activations, the embeddings (N x 128 floats, 0.13 MiB at N = 256) and the loss. Plain, all
patches pass the backbone at once; chunked, `CHUNK` at a time, recomputed in the backward pass.
The smallest batch has two chunks already: from the second one on, autograd adds up the gradients of
all parameters aside until the last chunk's are there, once, however many chunks follow.
"""

from __future__ import annotations

import torch
from mmengine.registry import DefaultScope
from own_process import added_peak, in_own_process
from timing import ROUNDS, Comparison, summary

from mm_tuning_plugin.models import MixAndMatchTuner
from mm_tuning_plugin.registry import MODELS
from mm_tuning_plugin.structures import NodeBatch

COUNTS, CHUNK, SIDE, CLASSES = (32, 64, 128, 256), 16, 64, 21
BACKBONE = {'type': 'mmseg.ResNet', 'depth': 18, 'stem_channels': 32, 'base_channels': 32}
TARGET = 1.2
KINDS = {'plain': None, 'chunked': CHUNK}


def build(
    chunk_size: int | None, device: torch.device, norm_eval: bool = False
) -> MixAndMatchTuner:
    """Returns a tuner of patches; the same weights at each call."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mm_tuning_plugin'):
        tuner = MODELS.build(
            {
                'type': 'MixAndMatchTuner',
                'backbone': {**BACKBONE, 'norm_eval': norm_eval},
                'embedding': {'type': 'PooledEmbedding', 'projection_channels': 128},
                'criterion': {'type': 'GraphTripletLoss'},
                'in_index': [-1],
                'chunk_size': chunk_size,
            }
        )
    return tuner.to(device).train()


def batch(count: int, device: torch.device) -> NodeBatch:
    """Returns `count` patches, normalised, with labels."""
    generator = torch.Generator().manual_seed(count)
    centre = torch.full((count,), SIDE // 2)
    return NodeBatch(
        torch.randn(count, 3, SIDE, SIDE, generator=generator).to(device),
        torch.stack([torch.arange(count), centre, centre], dim=1).to(device),
        torch.randint(0, CLASSES, (count,), generator=generator).to(device),
    )


def step(tuner: MixAndMatchTuner, nodes: NodeBatch) -> None:
    """Takes one step, forward and backward, into gradients that stay."""
    tuner.zero_grad(set_to_none=False)
    tuner(nodes=nodes, counts=[], mode='loss')['loss'].backward()


def check(device: torch.device) -> None:
    """Asserts that chunks give the gradients of the whole batch where no layer sees the batch."""
    nodes = batch(COUNTS[0], device)
    nodes = nodes._replace(images=nodes.images.double())
    whole, chunked = (build(size, device, norm_eval=True).double() for size in (None, CHUNK))
    for tuner in (whole, chunked):
        step(tuner, nodes)
    for ours, theirs in zip(chunked.parameters(), whole.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def peaks(kind: str, count: int, device: torch.device) -> list[float]:
    """Returns what each of several steps adds to the memory in use at its peak, in MiB."""
    tuner = build(None if kind == 'plain' else 1, device)
    # Loads whatever is loaded at first use (recomputing is, too), and makes the gradients.
    step(tuner, batch(2, device))
    tuner.chunk_size = KINDS[kind]
    nodes = batch(count, device)
    added = [added_peak(lambda: step(tuner, nodes), device) for _ in range(ROUNDS + 1)]
    return [value / 2**20 for value in added[1:]]


def measure(kind: str, count: int, device: torch.device) -> list[float]:
    """Returns `peaks` of a process of its own."""
    call = f'bench_memory.peaks({kind!r}, {count}, torch.device({device.type!r}))'
    return in_own_process('bench_memory', call)


def run(wanted: set[str], device: torch.device) -> list[Comparison]:
    """Runs M2: the growth of the peak, which has a target, and what one more patch costs."""
    if 'M2' not in wanted:
        return []
    check(device)
    samples = {(kind, n): measure(kind, n, device) for kind in KINDS for n in COUNTS}
    figures = {f'{kind}, {count}': summary(values) for (kind, count), values in samples.items()}
    first, last = COUNTS[0], COUNTS[-1]
    growth = figures[f'chunked, {last}']['median'] / figures[f'chunked, {first}']['median']
    slopes = {
        kind: summary(
            [(b - a) / (last - first) for a, b in zip(samples[kind, first], samples[kind, last])]
        )
        for kind in KINDS
    }
    slopes['ours'] = slopes.pop('chunked')
    figures['ours'] = figures.pop(f'chunked, {last}')
    name = f'ResNet-18 of half width, patches of {SIDE}'
    return [
        Comparison(
            'M2', f'{name}: peak of a step, {last} patches in chunks of {CHUNK}', 'MiB', figures,
            {f'chunked, {last} over {first} patches': growth}, TARGET, lower_is_better=True,
        ),
        Comparison(
            'M2', f'{name}: peak of a step, one more patch in chunks of {CHUNK}', 'MiB', slopes,
            {'of plain': slopes['ours']['median'] / slopes['plain']['median']}, None,
        ),
    ]  # fmt: skip
