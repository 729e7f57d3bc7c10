"""Embedding heads: from feature maps to one embedding per node.

Shape legend: M images, N nodes, D channels of the embedding before projection, E after.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mm_tuning_plugin.functional.embeddings import as_precise
from mm_tuning_plugin.functional.reading import read_at_points
from mm_tuning_plugin.registry import MODELS


class _EmbeddingHead(BaseModule):
    """Project and L2-normalise the descriptors that `describe` reads from the feature maps.

    Args:
        channels: D.
        projection_channels: E, the width of a projection that is dropped after tuning; None or 0:
            no projection, the descriptor is the embedding.
        hidden_channels: Width of the hidden layer of the projection; 0: the projection is linear.
        normalise: Whether embeddings have length 1; class scores do not.
    """

    def __init__(
        self,
        channels: int,
        projection_channels: int | None,
        hidden_channels: int,
        normalise: bool,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.out_channels = projection_channels or channels
        self.projection: nn.Module = nn.Identity()
        if projection_channels and not hidden_channels:
            self.projection = nn.Linear(channels, projection_channels)
        elif projection_channels:
            self.projection = nn.Sequential(
                nn.Linear(channels, hidden_channels),
                nn.ReLU(inplace=True),
                nn.Linear(hidden_channels, projection_channels),
            )

    def forward(
        self, features: Sequence[Tensor], points: Tensor, image_size: tuple[int, int]
    ) -> Tensor:
        """Embed the nodes.

        Args:
            features: Levels (M, C_l, h_l, w_l).
            points: (N, 3) int64, (image, y, x) in pixels.
            image_size: (H, W) of the images, pixels.

        Returns:
            (N, E), with rows of length 1 if `normalise`; float32, or float64 for float64 features.
        """
        embeddings = self.projection(self.describe(features, points, image_size))
        return F.normalize(embeddings) if self.normalise else embeddings

    def describe(
        self, features: Sequence[Tensor], points: Tensor, image_size: tuple[int, int]
    ) -> Tensor:
        """Read descriptors (N, D), at least float32, from the backbone's maps alone."""
        raise NotImplementedError


@MODELS.register_module()
class PooledEmbedding(_EmbeddingHead):
    """One embedding per image: pool each level to a small grid and flatten it.

    The paper flattens the last map without pooling (4 x 4 for patches of 128 at stride 32). With a
    grid of 4 the result is the same, and its length does not depend on the stride.

    Args:
        in_channels: Channels of each level.
        grid_size: Side of the grid, cells.
        projection_channels: See `_EmbeddingHead`.
        hidden_channels: See `_EmbeddingHead`.
        normalise: See `_EmbeddingHead`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        grid_size: int = 4,
        projection_channels: int | None = None,
        hidden_channels: int = 512,
        normalise: bool = True,
    ) -> None:
        super().__init__(
            sum(in_channels) * grid_size**2, projection_channels, hidden_channels, normalise
        )
        self.grid_size = grid_size

    def describe(
        self, features: Sequence[Tensor], points: Tensor, image_size: tuple[int, int]
    ) -> Tensor:
        """Pool each level to the grid; each node gets the row of its image."""
        grids = [self._pool(as_precise(level)).flatten(1) for level in features]
        return torch.cat(grids, dim=1).index_select(0, points[:, 0])

    def _pool(self, level: Tensor) -> Tensor:
        if level.shape[-2:] == (self.grid_size, self.grid_size):
            return level  # pooling gives the same, but costs much more
        return F.adaptive_avg_pool2d(level, self.grid_size)


@MODELS.register_module()
class PointEmbedding(_EmbeddingHead):
    """One embedding per point: each level is read bilinearly (`functional.reading`).

    Args:
        in_channels: Channels of each level.
        projection_channels: See `_EmbeddingHead`.
        hidden_channels: See `_EmbeddingHead`.
        normalise: See `_EmbeddingHead`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        projection_channels: int | None = 128,
        hidden_channels: int = 512,
        normalise: bool = True,
    ) -> None:
        super().__init__(sum(in_channels), projection_channels, hidden_channels, normalise)

    def describe(
        self, features: Sequence[Tensor], points: Tensor, image_size: tuple[int, int]
    ) -> Tensor:
        """Read each level at the points."""
        return torch.cat(
            [as_precise(read_at_points(level, points, image_size)) for level in features], dim=1
        )
