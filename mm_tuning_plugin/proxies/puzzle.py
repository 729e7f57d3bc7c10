"""Jigsaw puzzles: the orders to classify, and how tiles are cut.

Shape legend: B images, H, W pixels, T = G * G tiles in row-major order, S pixels a tile's side,
C = 3 channels, P orders.

Source: Noroozi, Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw
Puzzles", ECCV 2016: section 3 (orders, gaps, a mean and deviation for each tile), and its
revision of 2017 (grey images, channels that are moved against each other).
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Generator, Tensor

from mm_tuning_plugin.errors import UserError

MIN_DEVIATION = 1.0
"""Of a tile, in grey levels: a tile of one colour has only the noise of its encoding."""


def permutation_set(count: int, pieces: int, seed: int = 0) -> Tensor:
    """Orders that differ in as many places as possible, chosen greedily.

    The first is drawn; each further one is at the greatest least Hamming distance from those that
    were chosen, drawn among the best. The seeded stream of `numpy.random.RandomState` is the same
    in all releases, so a checkpoint needs no copy of the set.

    Args:
        count: P, at least 2.
        pieces: T, 2 to 9.
        seed: Of the draws.

    Returns:
        (P, T) int64: entry t is the tile at place t. No row occurs twice.

    Raises:
        UserError: If there are fewer orders than `count`, or fewer than two are asked for.
        ValueError: If ``pieces`` is out of range.
    """
    if not 2 <= pieces <= 9:
        raise ValueError(f'pieces: expected 2 to 9, got {pieces}')
    if not 2 <= count <= math.factorial(pieces):
        raise UserError(
            'num_permutations',
            f'{count} found',
            f'expected 2 to {math.factorial(pieces)}, the orders of {pieces} tiles',
        )
    numbers = itertools.chain.from_iterable(itertools.permutations(range(pieces)))
    orders = np.fromiter(numbers, np.uint8).reshape(-1, pieces).T.copy()  # (T, T!)
    random = np.random.RandomState(seed)
    chosen = [random.randint(orders.shape[1])]
    distance = np.full(orders.shape[1], pieces, np.uint8)  # the least, to those chosen
    while len(chosen) < count:
        np.minimum(distance, _hamming(orders, chosen[-1]), out=distance)
        best = np.flatnonzero(distance == distance.max())
        chosen.append(best[random.randint(len(best))])
    return torch.from_numpy(orders[:, chosen].T.astype(np.int64))


def _hamming(orders: np.ndarray, index: int) -> np.ndarray:
    """Places in which each of the orders (T, N) differs from one of them, (N,) uint8."""
    return (orders != orders[:, index, None]).sum(axis=0, dtype=np.uint8)


def draw_corners(
    sizes: Tensor, grid: int, tile_size: int, channel_shift: int, generator: Generator | None = None
) -> Tensor:
    """Places a tile at random in every cell of a grid, each channel with a small offset.

    The gaps between tiles keep edges from being continued across them; channels that are moved
    hide the lens's chromatic aberration, which reveals the place of a tile in the image.

    Args:
        sizes: (B, 2) int64, height and width of each image, at least `grid * tile_size`.
        grid: G, cells a side; cells of one image are of equal size.
        tile_size: S.
        channel_shift: Largest shift of a channel along either axis; it does not leave the cell.
        generator: Of the CPU.

    Returns:
        (B, T, C, 2) int64, row and column of the upper left pixel.
    """
    cell = torch.div(sizes, grid, rounding_mode='floor')  # (B, 2)
    room = (cell - tile_size)[:, None, None]  # (B, 1, 1, 2), the last place in a cell
    shape = (len(sizes), grid * grid)
    place = (torch.rand(*shape, 1, 2, generator=generator) * (room + 1)).long()
    shift = torch.randint(
        -channel_shift, channel_shift + 1, (*shape, 3, 2), generator=generator
    )  # fmt: skip
    inside = torch.minimum((place + shift).clamp(min=0), room)  # (B, T, C, 2)
    axis = torch.arange(grid)
    first = torch.cartesian_prod(axis, axis) * cell[:, None]  # (B, T, 2)
    return first[:, :, None] + inside


def cut_tiles(images: Tensor, corners: Tensor, tile_size: int) -> Tensor:
    """Cuts squares out of images, each channel at its own place.

    Args:
        images: (B, C, H, W).
        corners: (B, T, C, 2) int64 from `draw_corners`, on the device of the images.
        tile_size: S.

    Returns:
        (B, T, C, S, S).
    """
    along = torch.arange(tile_size, device=images.device)
    rows = corners[..., 0, None, None] + along[:, None]  # (B, T, C, S, 1)
    columns = corners[..., 1, None, None] + along  # (B, T, C, 1, S)
    image = torch.arange(images.shape[0], device=images.device).view(-1, 1, 1, 1, 1)
    channel = torch.arange(images.shape[1], device=images.device).view(1, 1, -1, 1, 1)
    return images[image, channel, rows, columns]


def normalise_tiles(tiles: Tensor) -> Tensor:
    """Gives each channel of each tile the mean 0 and the deviation 1.

    Brightness and tint then no longer reveal neighbours.

    Args:
        tiles: (B, T, C, S, S) in [0, 255].

    Returns:
        The same shape; the deviation is below 1 where it was below `MIN_DEVIATION`.
    """
    deviation, mean = torch.std_mean(tiles, dim=(-2, -1), keepdim=True, unbiased=False)
    return (tiles - mean) / deviation.clamp(min=MIN_DEVIATION)
