"""S1, S2: label maps to boxes. Always on the CPU: it is work of the data-loading workers."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from reference import sampling as reference
from timing import Comparison, interleave, speedups
from torch import Tensor

from mm_tuning_plugin.functional import sample_patches
from mm_tuning_plugin.functional.patches import spread_out

SIZE_RANGE = (64, 256)


def voc_like(height: int, width: int, rng: np.random.Generator) -> Tensor:
    """A few ellipses of objects with a rim of ignore, on background 0."""
    y, x = np.mgrid[:height, :width]
    seg_map = np.zeros((height, width), dtype=np.int64)
    for _ in range(rng.integers(1, 5)):
        cy, cx = rng.integers(height), rng.integers(width)
        ry, rx = rng.integers(height // 10, height // 3), rng.integers(width // 10, width // 3)
        distance = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2
        seg_map[distance < 1.1] = 255
        seg_map[distance < 1] = rng.integers(1, 21)
    return torch.from_numpy(seg_map)


def dense(height: int, width: int, rng: np.random.Generator) -> Tensor:
    """Nineteen classes in cells around random seeds, no background, a little ignore."""
    y, x = np.mgrid[:height:8, :width:8]
    seeds = rng.integers(0, (height, width), (40, 2))
    nearest = ((y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2).argmin(-1)
    seg_map = rng.integers(0, 19, 40)[nearest].repeat(8, 0).repeat(8, 1)
    seg_map[-height // 20 :] = 255
    return torch.from_numpy(seg_map)


KINDS = {'VOC-like': (voc_like, 0, 10.0), 'dense': (dense, None, 30.0)}


def ours(maps: list[Tensor], count: int, background: int | None, generator: torch.Generator):
    """Draws boxes on all maps."""
    return [
        sample_patches(m, count, SIZE_RANGE, background_index=background, generator=generator)
        for m in maps
    ]


def plain(maps: list[np.ndarray], count: int, background: int | None, rng: np.random.Generator):
    """Draws boxes on all maps, the released way."""
    return [
        reference.sample_patches(m, count, SIZE_RANGE, rng, background_index=background)
        for m in maps
    ]


def check(maps: list[Tensor], count: int, background: int | None) -> None:
    """Asserts labels, counts and sides of ours, and equal choices on the same candidates."""
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    theirs = plain([m.numpy() for m in maps], count, background, rng)
    patches = ours(maps, count, background, generator)
    for seg_map, (boxes, labels), (_, plain_labels) in zip(maps, patches, theirs):
        centres = (boxes[:, :2] + boxes[:, 2:]) // 2
        assert torch.equal(seg_map[centres[:, 0], centres[:, 1]], labels)
        assert len(labels) == count == len(plain_labels)
        assert (labels == 0).sum() == plain_labels.count(0) or background is None
        pixels = rng.integers(0, seg_map.shape, (400, 2)).T
        candidates, _ = reference.draw_boxes(pixels, 5 * count, SIZE_RANGE, rng)
        kept = spread_out(np.array(candidates), count, 0.6)
        assert kept == reference.spread_out(candidates, count, 0.6)


def run(wanted: set[str], device: torch.device) -> list[Comparison]:
    """Runs S1 and S2 on both kinds of map; the device is of no concern."""
    results = []
    for kind, (make, background, target) in KINDS.items():
        rng = np.random.default_rng(1)
        small = [make(512, 512, rng) for _ in range(16)]
        large = [make(1024, 2048, rng) for _ in range(4)]
        check(small, 9, background)
        check(large, 36, background)
        generator = torch.Generator().manual_seed(2)
        arrays = [m.numpy() for m in small]
        figures = interleave(
            {
                'ours': partial(ours, small, 9, background, generator),
                'reference': partial(plain, arrays, 9, background, rng),
                'ours, 4 x 1024 x 2048': partial(ours, large, 36, background, generator),
            },
            rounds=15,
        )
        grown = figures.pop('ours, 4 x 1024 x 2048')
        case = f'16 x 512 x 512, 9 boxes each, {kind}'
        results.append(Comparison('S1', case, 'ms', figures, speedups(figures), target))
        both = {'ours': grown, '16 x 512 x 512': figures['ours']}
        ratio = {'over S1': grown['median'] / figures['ours']['median']}
        case = f'4 x 1024 x 2048, 36 boxes each, {kind}'
        results.append(Comparison('S2', case, 'ms', both, ratio, 2.0, True))
    return [result for result in results if result.id in wanted]
