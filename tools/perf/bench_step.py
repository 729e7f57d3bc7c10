"""T1: the share of a tuning step outside the backbone's forward and backward.

One step is everything from a decoded image and its label map to the updated weights: drawing and
cutting nodes (which in training is hidden in loading workers, but is counted here), normalising,
backbone, embedding, match and loss, their backward passes, and the optimizer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from mmengine.registry import DefaultScope
from timing import ROUNDS, Comparison, summary
from torch import Tensor, nn

from mm_tuning_plugin.datasets import PackNodeInputs, SamplePatches, SamplePoints
from mm_tuning_plugin.models import MixAndMatchTuner
from mm_tuning_plugin.registry import MODELS

CLASSES = 21
RESNET18 = {'type': 'mmseg.ResNet', 'depth': 18, 'strides': (1, 2, 2, 2), 'dilations': (1,) * 4}


@MODELS.register_module(force=True)
class AlexNetLike(nn.Module):
    """The widths and strides of AlexNet, with BatchNorm: the cheapest backbone of the method."""

    def __init__(self) -> None:
        super().__init__()
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)

        def unit(before: int, after: int, size: int, groups: int, stride: int = 1) -> list:
            conv = nn.Conv2d(before, after, size, stride, size // 2, groups=groups)
            return [conv, nn.BatchNorm2d(after, affine=False), nn.ReLU(inplace=True)]

        self.layers = nn.Sequential(
            *unit(3, 96, 11, 1, 4), pool, *unit(96, 256, 5, 2), pool, *unit(256, 384, 3, 1),
            *unit(384, 384, 3, 2), *unit(384, 256, 3, 2), pool,
        )  # fmt: skip

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Return the last map."""
        return (self.layers(images),)


class Case(NamedTuple):
    """One setting: the backbone, what is drawn, and the target in percent."""

    name: str
    backbone: dict
    images: int
    nodes: int
    dense: bool
    target: float | None


CASES = (
    Case('ResNet-18, 144 patches of 128', RESNET18, 16, 9, False, 1.5),
    Case('AlexNet-like, 400 patches of 128', {'type': 'AlexNetLike'}, 40, 10, False, 4.0),
    Case('ResNet-18, 1,024 points on 8 crops of 256', RESNET18, 8, 128, True, None),
)


def label_map(generator: np.random.Generator, side: int) -> np.ndarray:
    """A map of blobs of all classes, as a street scene has them."""
    coarse = generator.integers(0, CLASSES, (side // 32, side // 32), dtype=np.uint8)
    return np.kron(coarse, np.ones((32, 32), np.uint8))


def build(case: Case, device: torch.device) -> tuple[MixAndMatchTuner, Callable, list[dict]]:
    """The tuner, the transforms of a worker, and decoded images for them."""
    with DefaultScope.overwrite_default_scope('mm_tuning_plugin'):
        head = 'PointEmbedding' if case.dense else 'PooledEmbedding'
        loss = 'SupervisedContrastiveLoss' if case.dense else 'GraphTripletLoss'
        tuner = MixAndMatchTuner(
            backbone=dict(case.backbone),
            embedding={'type': head, 'projection_channels': 128 if case.dense else None},
            criterion={'type': loss},
            in_index=[-1],
            data_preprocessor={
                'type': 'NodeDataPreprocessor', 'mean': [123.7, 116.3, 103.5],
                'std': [58.4, 57.1, 57.4], 'swap_channels': True,
            },
        )  # fmt: skip
    sample = (
        SamplePoints(8, case.nodes) if case.dense else SamplePatches(case.nodes, (64, 256), 128)
    )
    pack = PackNodeInputs()
    generator = np.random.default_rng(0)
    side = 256 if case.dense else 512
    images = [
        {
            'img': generator.integers(0, 255, (side, side, 3), dtype=np.uint8),
            'gt_seg_map': label_map(generator, side),
        }
        for _ in range(case.images)
    ]
    return tuner.to(device).train(), lambda image: pack(sample(dict(image))), images


class Stopwatch:
    """Times named stages one after the other, on the clock of `timing.seconds`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spent: dict[str, float] = {}
        self.last = self.now()

    def now(self) -> float:
        """Processor time on a CPU; on a GPU the clock, once the device is idle."""
        if self.device.type != 'cuda':
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def lap(self, stage: str) -> None:
        """Book the time since the last lap to `stage`."""
        now = self.now()
        self.spent[stage] = self.spent.get(stage, 0.0) + now - self.last
        self.last = now


def update(
    tuner: MixAndMatchTuner,
    batch: dict,
    optimizer: torch.optim.Optimizer,
    watch: Stopwatch,
    half: bool = False,
) -> None:
    """Take one training step on a collated batch, stage by stage; `half`: bfloat16 autocast."""
    nodes = tuner.data_preprocessor(batch, True)['nodes']
    watch.lap('normalise and mix')
    with torch.autocast(nodes.images.device.type, torch.bfloat16, enabled=half):
        outputs = tuner._outputs(nodes.images)
    watch.lap('backbone')
    # Cut the graph at the backbone's outputs: its backward is then timed by itself.
    leaves = [output.detach().requires_grad_() for output in outputs]
    size = tuple(nodes.images.shape[-2:])
    levels = [level.float() for level in tuner._select(leaves)]
    loss = tuner.criterion(tuner.embedding(levels, nodes.points, size), nodes.labels)['loss']
    if tuner.touches_unread:
        loss = loss + sum(leaf.float().sum() for leaf in leaves) * 0.0
    optimizer.zero_grad()
    loss.backward()
    watch.lap('embed, match, loss')
    reached = [i for i, leaf in enumerate(leaves) if leaf.grad is not None]
    torch.autograd.backward([outputs[i] for i in reached], [leaves[i].grad for i in reached])
    watch.lap('backbone')
    optimizer.step()
    watch.lap('optimizer')


def step(
    tuner: MixAndMatchTuner,
    transform: Callable,
    images: list[dict],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> dict[str, float]:
    """Take one training step from decoded images on; return seconds by stage."""
    watch = Stopwatch(device)
    samples = [transform(image) for image in images]
    watch.lap('draw and cut')
    update(tuner, collate(samples), optimizer, watch)
    return watch.spent


def collate(samples: list[dict]) -> dict[str, list]:
    """Make a batch of samples, as mmengine's `pseudo_collate` does."""
    return {key: [sample[key] for sample in samples] for key in samples[0]}


def check(tuner: MixAndMatchTuner, batch: dict, device: torch.device) -> None:
    """Assert that the staged step gives the gradients of the tuner's own."""
    data = tuner.data_preprocessor(batch, True)
    tuner(**data, mode='loss')['loss'].backward()
    whole = [parameter.grad for parameter in tuner.parameters()]
    generator = torch.Generator().manual_seed(tuner.seed)  # that of step 0
    criterion = tuner.criterion.forward
    tuner.criterion.forward = lambda z, labels: criterion(z, labels, generator)
    optimizer = torch.optim.SGD(tuner.parameters(), lr=0.0)
    update(tuner, batch, optimizer, Stopwatch(device))
    tuner.criterion.forward = criterion
    for parameter, gradient in zip(tuner.parameters(), whole):
        largest = max(1e-2, gradient.abs().max().item())
        assert (parameter.grad - gradient).abs().max() <= 1e-3 * largest, 'the stages differ'


def as_comparison(
    name: str, case: str, rounds: list[dict[str, float]], target: float | None
) -> Comparison:
    """Summarise rounds of seconds by stage: the percent of a step outside the backbone."""
    figures = {stage: summary([1e3 * one[stage] for one in rounds]) for stage in rounds[0]}
    whole = [sum(one.values()) for one in rounds]
    figures['ours'] = summary([1e3 * value for value in whole])
    outside = [100 * (1 - one['backbone'] / all_) for one, all_ in zip(rounds, whole)]
    ratios = {'percent outside the backbone': summary(outside)['median']}
    return Comparison(name, case, 'ms', figures, ratios, target, lower_is_better=True)


def run(wanted: set[str], device: torch.device) -> list[Comparison]:
    """Run T1."""
    results = []
    for case in CASES if 'T1' in wanted else ():
        tuner, transform, images = build(case, device)
        check(tuner, collate([transform(image) for image in images[:2]]), device)
        optimizer = torch.optim.SGD(tuner.parameters(), lr=1e-3, momentum=0.9)
        np.random.seed(1)
        rounds = [step(tuner, transform, images, optimizer, device) for _ in range(ROUNDS + 1)]
        results.append(as_comparison('T1', case.name, rounds[1:], case.target))  # the first warms
    return results
