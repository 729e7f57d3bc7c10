"""H1: what a training step of the hypercolumn head adds to the memory in use at its peak.

The levels are those of a VGG-16 of half width: the image, every convolution, fc6 and fc7. They are
drawn, as the memory of the backbone that makes them, which grows with the image, is not the head's.
Sparse, `POINTS` pixels of an image are read; dense, all of them, by the same head. *Frozen* levels
take no gradient. *Trained* ones do, and the gradient of a level is as large as the level,
wherever it was read; what is held of all levels (their `grad`) stands before the step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from own_process import added_peak, in_own_process
from timing import ROUNDS, Comparison, summary

from mm_tuning_plugin.registry import MODELS

# (channels, stride): the image, conv1_1 to conv5_3, fc6, fc7
LEVELS = (
    (3, 1), *[(32, 1)] * 2, *[(64, 2)] * 2, *[(128, 4)] * 3, *[(256, 8)] * 3, *[(256, 16)] * 3,
    *[(2048, 32)] * 2,
)  # fmt: skip
HIDDEN, CLASSES, POINTS, SIDES, DENSE_SIDES = 512, 21, 256, (64, 128, 256), (64, 128)
DENSE_ROUNDS = 3  # a step of 16,384 pixels takes many seconds
AREA_TARGET, DENSE_TARGET = 1.2, 20.0


def build(points: int, device: torch.device) -> torch.nn.Module:
    """Returns a head; the same weights at each call."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mm_tuning_plugin'):
        head = MODELS.build(
            {
                'type': 'HypercolumnHead',
                'in_channels': [channels for channels, _ in LEVELS],
                'in_index': list(range(len(LEVELS))),
                'channels': HIDDEN,
                'num_classes': CLASSES,
                'points': points,
                'loss_decode': {'type': 'mmseg.CrossEntropyLoss', 'avg_non_ignore': True},
            }
        )
    return head.to(device).train()


def batch(
    side: int, trained: bool, device: torch.device
) -> tuple[list[torch.Tensor], list[SegDataSample]]:
    """Returns the levels of one image and its label map."""
    generator = torch.Generator().manual_seed(side)
    levels = [
        torch.rand(1, channels, -(-side // stride), -(-side // stride), generator=generator)
        for channels, stride in LEVELS
    ]
    levels = [level.to(device).requires_grad_(trained) for level in levels]
    seg_map = torch.randint(CLASSES, (1, side, side), generator=generator).to(device)
    return levels, [SegDataSample(gt_sem_seg=PixelData(data=seg_map))]


def step(head: torch.nn.Module, levels: list[torch.Tensor], samples: list[SegDataSample]) -> None:
    """Takes one step, forward and backward, into gradients that stay."""
    head.zero_grad(set_to_none=False)
    head.loss(levels, samples, {})['loss_ce'].backward()


def check(device: torch.device) -> None:
    """Asserts that all pixels as points give the loss of resized and concatenated levels."""
    side = 32
    head, (levels, samples) = build(side * side, device), batch(side, False, device)
    loss = head.loss(levels, samples, {})['loss_ce']
    resized = [F.interpolate(x, (side, side), mode='bilinear') for x in levels]
    hidden = F.conv2d(torch.cat(resized, 1), head.hidden.weight[:, :, None, None], head.hidden.bias)
    scores = head.conv_seg(hidden.relu())
    torch.testing.assert_close(loss, F.cross_entropy(scores, samples[0].gt_sem_seg.data))


def peaks(points: int, side: int, trained: bool, rounds: int, device: torch.device) -> list[float]:
    """Returns what each of several steps adds to the memory in use at its peak, in MiB."""
    head, (levels, samples) = build(points, device), batch(side, trained, device)
    step(head, levels, samples)  # loads whatever is loaded at first use, and makes the gradients
    added = [added_peak(lambda: step(head, levels, samples), device) for _ in range(rounds)]
    return [value / 2**20 for value in added]


def measure(points: int, side: int, device: torch.device, trained: bool = False) -> dict:
    """Returns a summary of `peaks` of a process of its own."""
    rounds = DENSE_ROUNDS if points > 4 * POINTS else ROUNDS
    arguments = f'{points}, {side}, {trained}, {rounds}, torch.device({device.type!r})'
    return summary(in_own_process('bench_hypercolumn', f'bench_hypercolumn.peaks({arguments})'))


def run(wanted: set[str], device: torch.device) -> list[Comparison]:
    """Runs H1: growth with the image and with the points, and the ratio to the dense step."""
    if 'H1' not in wanted:
        return []
    check(device)
    sparse = {side: measure(POINTS, side, device) for side in SIDES}
    trained = {side: measure(POINTS, side, device, trained=True) for side in SIDES}
    dense = {side: measure(side * side, side, device) for side in DENSE_SIDES}
    more = {count: measure(count, SIDES[0], device) for count in (2 * POINTS, 4 * POINTS)}
    first, last, both = SIDES[0], SIDES[-1], DENSE_SIDES[-1]
    figures = {'ours': sparse[last]}
    figures |= {f'frozen, {side} x {side}': sparse[side] for side in SIDES[:-1]}
    figures |= {f'trained, {side} x {side}': trained[side] for side in SIDES}
    name = f'hypercolumn head, {sum(channels for channels, _ in LEVELS):,} channels'
    growth = sparse[last]['median'] / sparse[first]['median']
    dense_figures = {f'dense, {side} x {side}': dense[side] for side in DENSE_SIDES}
    points_figures = {f'{count} points': more[count] for count in more}
    points_figures[f'{POINTS} points'] = sparse[first]
    points_figures['ours'] = points_figures.pop(f'{4 * POINTS} points')
    times = points_figures['ours']['median'] / sparse[first]['median']
    return [
        Comparison(
            'H1', f'{name}: peak of a step, {POINTS} points of {last} x {last} pixels', 'MiB',
            figures, {f'over {first} x {first} pixels': growth}, AREA_TARGET, lower_is_better=True,
        ),
        Comparison(
            'H1', f'{name}: peak of a step, {POINTS} points of {both} x {both} pixels', 'MiB',
            {'ours': sparse[both], **dense_figures},
            {'dense': dense[both]['median'] / sparse[both]['median']}, DENSE_TARGET,
        ),
        Comparison(
            'H1', f'{name}: peak of a step, {4 * POINTS} points of {first} x {first} pixels', 'MiB',
            points_figures, {f'over {POINTS} points': times}, None,
        ),
    ]  # fmt: skip
