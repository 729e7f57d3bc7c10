"""What the overview picture shows: drawn streets, their patches, and a toy network tuned on them.

Shape legend: H = W = ``SIDE`` pixels; N patches of S x S pixels; D numbers of an embedding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw

from mm_tuning_plugin.functional import (
    crop_and_resize,
    graph_triplets,
    sample_patches,
    triplet_margin_loss,
)

CLASSES = ('sky', 'road', 'house', 'tree', 'car')
SIDE = 256
_PAINTS = {
    'sky': ((150, 195, 235), (205, 215, 225), (250, 200, 160), (95, 120, 170)),
    'road': ((105, 105, 110), (150, 140, 130), (75, 78, 88), (170, 165, 165)),
    'house': ((200, 120, 90), (225, 205, 165), (150, 160, 180), (235, 235, 225)),
    'tree': ((70, 130, 60), (120, 150, 50), (190, 120, 50), (45, 95, 75)),
    'car': ((190, 40, 50), (40, 80, 160), (230, 190, 60), (235, 235, 240)),
}
_STEPS, _LEARNT, _SHOWN = 200, 64, 10  # iterations; images learnt from; images shown


class Patches(NamedTuple):
    """Patches of several images.

    Attributes:
        pixels: (N, S, S, 3) uint8 RGB.
        labels: (N,) int64.
        boxes: Of each image, (P, 4) int64, (y0, x0, y1, x1) in pixels.
        counts: P of each image.
    """

    pixels: np.ndarray
    labels: np.ndarray
    boxes: list[np.ndarray]
    counts: list[int]


def draw_street(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a street with houses, trees and cars; hues are drawn anew, so that shapes must tell.

    Args:
        seed: Of the drawing, which depends on nothing else.

    Returns:
        (H, W, 3) uint8 RGB, and (H, W) int64 labels.
    """
    draws = np.random.default_rng(seed)
    image, labels = Image.new('RGB', (SIDE, SIDE)), Image.new('L', (SIDE, SIDE))
    pens = ImageDraw.Draw(image), ImageDraw.Draw(labels)
    horizon = int(draws.integers(138, 164))
    paints = {name: tuple(some[draws.integers(len(some))]) for name, some in _PAINTS.items()}
    _both(pens, 'rectangle', (0, 0, SIDE, horizon), paints['sky'], 'sky')
    _both(pens, 'rectangle', (0, horizon, SIDE, SIDE), paints['road'], 'road')
    middle = (horizon + SIDE) // 2 + 4
    for x in range(int(draws.integers(-30, 0)), SIDE, 48):
        pens[0].rectangle((x, middle, x + 24, middle + 4), fill=(245, 245, 235))
    for place in draws.permutation(4)[:3]:
        left = 8 + int(place) * 62
        if draws.random() < 0.55:
            _house(pens, draws, left, horizon)
        else:
            _tree(pens, draws, left, horizon)
    for place in draws.permutation(2)[: draws.integers(1, 3)]:
        _car(pens, draws, 14 + int(place) * 128 + int(draws.integers(30)), horizon + 36)
    return np.asarray(image), np.asarray(labels).astype(np.int64)


def _both(pens: tuple, shape: str, where: tuple, paint: tuple, name: str) -> None:
    """Draw a shape into the image, and its class into the label map."""
    for pen, fill in zip(pens, (paint, CLASSES.index(name))):
        getattr(pen, shape)(where, fill=fill)


def _paint(draws: np.random.Generator, name: str) -> tuple:
    return tuple(_PAINTS[name][draws.integers(len(_PAINTS[name]))])


def _house(pens: tuple, draws: np.random.Generator, left: int, ground: int) -> None:
    wide, high, paint = 56, int(draws.integers(52, 76)), _paint(draws, 'house')
    dark = tuple(value * 6 // 10 for value in paint)
    _both(pens, 'rectangle', (left, ground - high, left + wide, ground), paint, 'house')
    roof = ((left - 4, ground - high), (left + wide // 2, ground - high - 30))
    _both(pens, 'polygon', (*roof, (left + wide + 4, ground - high)), dark, 'house')
    for x in (left + 8, left + 34):
        for y in range(ground - high + 10, ground - 24, 24):
            pens[0].rectangle((x, y, x + 13, y + 14), fill=(60, 70, 90), outline=(250, 250, 250))


def _tree(pens: tuple, draws: np.random.Generator, left: int, ground: int) -> None:
    middle, top, paint = left + 28, ground - int(draws.integers(78, 96)), _paint(draws, 'tree')
    _both(pens, 'rectangle', (middle - 5, ground - 40, middle + 5, ground), (95, 70, 50), 'tree')
    _both(pens, 'ellipse', (middle - 29, top, middle + 29, ground - 22), paint, 'tree')
    light = tuple(min(255, value + 28) for value in paint)
    for x, y in draws.uniform(-1, 1, (16, 2)) * (17, 18):
        y, x = (top + ground - 22) / 2 + y, middle + x
        pens[0].ellipse((x - 4, y - 4, x + 4, y + 4), fill=light)


def _car(pens: tuple, draws: np.random.Generator, left: int, ground: int) -> None:
    paint = _paint(draws, 'car')
    cabin = ((left + 16, ground - 22), (left + 26, ground - 42), (left + 58, ground - 42))
    _both(pens, 'polygon', (*cabin, (left + 72, ground - 22)), paint, 'car')
    _both(pens, 'rectangle', (left, ground - 23, left + 88, ground), paint, 'car')
    window = ((left + 24, ground - 24), (left + 30, ground - 37), (left + 55, ground - 37))
    pens[0].polygon((*window, (left + 63, ground - 24)), fill=(50, 65, 85))
    for x in (left + 12, left + 58):
        _both(pens, 'ellipse', (x, ground - 9, x + 19, ground + 10), (30, 30, 34), 'car')
        pens[0].ellipse((x + 6, ground - 3, x + 13, ground + 4), fill=(190, 190, 190))


def cut_patches(
    streets: list[tuple[np.ndarray, np.ndarray]], per_image: int, size: int, seed: int
) -> Patches:
    """Draw patches of some streets by the package's own rule, each class as often as others.

    Args:
        streets: Images and label maps.
        per_image: Patches of an image at most.
        size: S, pixels.
        seed: Of the draws.

    Returns:
        The patches, image by image.
    """
    draws = torch.Generator().manual_seed(seed)
    pixels, labels, boxes = [], [], []
    for image, label_map in streets:
        found = sample_patches(
            torch.from_numpy(label_map), per_image, (44, 64), balance='class', max_overlap=0.2,
            generator=draws,
        )  # fmt: skip
        planes = torch.from_numpy(image.copy()).permute(2, 0, 1).float()
        cut = crop_and_resize(planes, found.boxes, size, fill=200.0)
        pixels.append(cut.permute(0, 2, 3, 1).round().clamp(0, 255).byte().numpy())
        labels.append(found.labels.numpy())
        boxes.append(found.boxes.numpy())
    joined = np.concatenate(pixels), np.concatenate(labels)
    return Patches(*joined, boxes, [len(some) for some in boxes])


def tune_toy() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tune a toy network by graph triplets on some streets, and embed patches of others.

    Returns:
        (N, D) embeddings before tuning, those after it, and (N,) classes. torch's own random state
        is left alone.
    """
    streets = [draw_street(1000 + number) for number in range(_LEARNT + _SHOWN)]
    learnt, shown = (
        cut_patches(some, 9, 24, seed=5) for some in (streets[:_LEARNT], streets[_LEARNT:])
    )
    inputs, unseen = (
        torch.from_numpy(some.pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        for some in (learnt, shown)
    )
    labels = torch.from_numpy(learnt.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Conv2d(3, 24, 5, stride=2), torch.nn.ReLU(),
            torch.nn.Conv2d(24, 48, 3, stride=2), torch.nn.ReLU(),
            torch.nn.Flatten(), torch.nn.Linear(48 * 4 * 4, 16),
        )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    draws = torch.Generator().manual_seed(0)

    def embed(some: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(network(some))

    with torch.no_grad():
        before = embed(unseen).numpy()
    for _ in range(_STEPS):
        triplets = graph_triplets(labels, generator=draws)
        optimizer.zero_grad()
        triplet_margin_loss(embed(inputs), triplets).backward()
        optimizer.step()
    with torch.no_grad():
        after = embed(unseen).numpy()
    return before, after, shown.labels
