"""A linear layer over hypercolumns: all levels of a backbone, read at one pixel and concatenated.

Shape legend: M images, N points or cells, L levels of C_l channels on (h_l, w_l) cells, D = sum of
C_l, K outputs, (H, W) image size, (h, w) a grid of cells over the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.functional.reading import read_at_points


class HypercolumnLinear(nn.Linear):
    """Weights (K, D) over the concatenated levels, at points or over a whole grid.

    Args:
        in_channels: C_l of each level.
        out_channels: K.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__(sum(in_channels), out_channels)
        self.in_channels = tuple(in_channels)

    def forward(
        self, levels: Sequence[Tensor], points: Tensor, image_size: tuple[int, int]
    ) -> Tensor:
        """Read the levels at points. Memory grows with the number of points only.

        Args:
            levels: (M, C_l, h_l, w_l) each.
            points: (N, 3) int64, (image, y, x) in pixels.
            image_size: (H, W).

        Returns:
            (N, K).
        """
        read = [read_at_points(level, points, image_size) for level in levels]
        return super().forward(torch.cat(read, dim=1))

    def over_grid(
        self, levels: Sequence[Tensor], size: tuple[int, int], tile: int
    ) -> Iterator[Tensor]:
        """Read the levels at the centres of all cells of a grid, some cells at a time.

        Reading and the layer are both linear and may change places: a level that is coarse enough
        is projected to K channels once, and read then, for a fraction of the multiplications. It
        is coarse enough if its projection is no larger than the largest level; those of one size
        are added up. So beside the levels there is at most one such map for each of their sizes,
        and a tile; the hypercolumns of all cells (M * h * w * D values) are never held.

        Args:
            levels: (M, C_l, h_l, w_l) each.
            size: (h, w); cells of equal size that cover the image.
            tile: Cells at a time.

        Yields:
            (at most `tile`, K), image by image and row by row.
        """
        coarse, fine = self._project(levels, size)
        count = len(levels[0]) * size[0] * size[1]
        for start in range(0, count, tile):
            cells = torch.arange(start, min(start + tile, count), device=self.weight.device)
            image, cell = cells // (size[0] * size[1]), cells % (size[0] * size[1])
            points = torch.stack([image, cell // size[1], cell % size[1]], dim=1)
            total = self.bias.expand(len(points), -1)
            for level, weight in fine:
                total = total + F.linear(read_at_points(level, points, size), weight)
            for projected in coarse:
                total = total + read_at_points(projected, points, size)
            yield total

    def _project(
        self, levels: Sequence[Tensor], size: tuple[int, int]
    ) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
        """Maps (M, K, h_l, w_l) of the coarse levels; the others, with their weights (K, C_l)."""
        largest = max(level[0].numel() for level in levels)
        coarse: dict[tuple[int, ...], Tensor] = {}
        fine = []
        for level, weight in zip(levels, self.weight.split(self.in_channels, dim=1)):
            shape = tuple(level.shape[2:])
            cells = shape[0] * shape[1]
            if cells >= size[0] * size[1] or cells * self.out_features > largest:
                fine.append((level, weight))
                continue
            projected = F.conv2d(level, weight[:, :, None, None])
            coarse[shape] = coarse[shape] + projected if shape in coarse else projected
        return list(coarse.values()), fine


def select_levels(
    outputs: Sequence[Tensor], in_index: Sequence[int], in_channels: Sequence[int]
) -> list[Tensor]:
    """The levels that a head reads of a backbone's outputs.

    Raises:
        UserError: An output does not exist, or has another number of channels.
    """
    levels = []
    for index, channels in zip(in_index, in_channels):
        if not -len(outputs) <= index < len(outputs):
            raise UserError(
                'in_index',
                f'{index} found',
                f'expected one of the {len(outputs)} outputs that the backbone gives (its '
                'out_indices)',
            )
        level = outputs[index]
        if level.shape[1] != channels:
            raise UserError(
                'in_channels',
                f'{channels} found for output {index} of the backbone',
                f'expected the {level.shape[1]} that it has',
            )
        levels.append(level)
    return levels


def check_levels(in_channels: Sequence[int], in_index: Sequence[int]) -> None:
    """Refuses lists that do not pair up.

    Raises:
        UserError: On lists of unequal length, or empty ones, or no lists.
    """
    both = all(isinstance(value, Sequence) for value in (in_channels, in_index))
    if not both or not in_index or len(in_index) != len(in_channels):
        raise UserError(
            'in_index, in_channels',
            f'{in_index} and {in_channels} found',
            'expected two lists of one length, a number of channels for each output that is read',
        )


def finest_grid(levels: Sequence[Tensor], stride: int) -> tuple[int, int]:
    """(h, w) of the finest level, each over `stride` and rounded up."""
    height, width = max((tuple(level.shape[2:]) for level in levels), key=lambda s: s[0] * s[1])
    return -(-height // stride), -(-width // stride)


def as_maps(tiles: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Rows (n, Q) of all cells, in the order of `over_grid` -> (M, Q, h, w)."""
    rows = torch.cat(list(tiles))
    return rows.view(-1, *size, rows.shape[1]).permute(0, 3, 1, 2)
