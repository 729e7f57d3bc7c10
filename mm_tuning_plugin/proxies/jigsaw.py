"""Jigsaw, a self-supervised proxy: predict in which of P orders the tiles of an image are.

Shape legend: B images, H, W pixels, T = G * G tiles, S pixels a tile's side, P orders.

An ordinary mmengine model, like colorization: the weights are under ``backbone.`` in its
checkpoints. Source and arithmetic: `puzzle`. Deviations: the trunk's last level is averaged over
its cells where the paper keeps its fc6, and tiles keep the scale of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn

from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.proxies.chroma import rgb_to_grey, stack_padded
from mm_tuning_plugin.proxies.classification import (
    PooledProxy,
    check_mode,
    check_positive,
    classification_losses,
)
from mm_tuning_plugin.proxies.puzzle import (
    cut_tiles,
    draw_corners,
    normalise_tiles,
    permutation_set,
)
from mm_tuning_plugin.registry import MODELS


@MODELS.register_module()
class JigsawDataPreprocessor(BaseDataPreprocessor):
    """Cuts images into tiles and lays them in one of the orders.

    All is drawn on the CPU from torch's default generator, so a run is repeated by its seed and
    goes on from a checkpoint that holds the random state.

    Args:
        tile_size: S in pixels.
        grid: G, 2 or 3.
        num_permutations: P.
        grey_prob: Share of images that lose their colour.
        channel_shift: Largest shift of a channel against the others, in pixels.
        seed: Of the set of orders.
        non_blocking: Whether copies to the device are asynchronous.

    Raises:
        UserError: If a number is out of range, or the tiles have fewer orders than asked for.
    """

    def __init__(
        self,
        tile_size: int = 64,
        grid: int = 3,
        num_permutations: int = 100,
        grey_prob: float = 0.3,
        channel_shift: int = 2,
        seed: int = 0,
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking)
        check_positive(tile_size=tile_size)
        if grid not in (2, 3):
            raise UserError('grid', f'{grid} found', 'expected 2 or 3')
        if not 0 <= grey_prob <= 1:
            raise UserError('grey_prob', f'{grey_prob} found', 'expected a share in [0, 1]')
        if channel_shift < 0:
            raise UserError('channel_shift', f'{channel_shift} found', 'expected at least 0')
        self.tile_size, self.grid = tile_size, grid
        self.grey_prob, self.channel_shift = grey_prob, channel_shift
        orders = permutation_set(num_permutations, grid * grid, seed)
        self.register_buffer('orders', orders, persistent=False)  # (P, T)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Makes puzzles of a batch.

        Args:
            data: ``inputs``, a list of (3, H, W) images or one (B, 3, H, W) tensor, BGR in
                [0, 255], as mmseg's ``PackSegInputs`` gives them. Anything else is left out.
            training: Makes no difference.

        Returns:
            ``inputs`` (B, T, 3, S, S): tiles in their order, RGB, each normalised; ``order`` (B,)
            int64 in [0, P).

        Raises:
            UserError: If an image has no room for the tiles.
        """
        inputs = list(self.cast_data(data['inputs']))
        images, _ = stack_padded(inputs)
        images = images.flip(1)  # RGB
        sizes = torch.tensor([tuple(image.shape[1:]) for image in inputs])  # (B, 2)
        self._check(sizes)
        corners = draw_corners(sizes, self.grid, self.tile_size, self.channel_shift)
        grey = torch.rand(len(inputs)) < self.grey_prob
        order = torch.randint(len(self.orders), (len(inputs),))
        device = images.device
        corners, grey, order = corners.to(device), grey.to(device), order.to(device)
        images = torch.where(grey[:, None, None, None], rgb_to_grey(images), images)
        # cut each tile from its source place, so nothing has to be moved afterwards
        laid = self.orders[order]  # (B, T)
        corners = corners.gather(1, laid[:, :, None, None].expand_as(corners))
        tiles = cut_tiles(images, corners, self.tile_size)
        return {'inputs': normalise_tiles(tiles), 'order': order}

    def _check(self, sizes: Tensor) -> None:
        least = self.grid * self.tile_size
        small = (sizes < least).any(dim=1)
        if bool(small.any()):
            height, width = sizes[small][0].tolist()
            raise UserError(
                'inputs',
                f'an image of {height} x {width} pixels found',
                f'expected at least {least} either way, because {self.grid} tiles of '
                f'tile_size={self.tile_size} lie side by side',
            )


@MODELS.register_module()
class JigsawModel(PooledProxy):
    """One trunk for all tiles, then a classifier of their order.

    Args:
        backbone: Config of a backbone with three input channels that returns a tuple of levels.
        in_channels: Channels of the level that is read.
        in_index: Its index; the last.
        channels: Width of the embedding of a tile; the classifier has four times as many.
        data_preprocessor: Config. None: ``JigsawDataPreprocessor`` with its defaults.
        init_cfg: As every mmengine model has it.

    Raises:
        UserError: If a number is not positive, or the preprocessor is another.
    """

    def __init__(
        self,
        backbone: dict,
        in_channels: int,
        in_index: int = -1,
        channels: int = 128,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if data_preprocessor is None:
            data_preprocessor = {'type': 'mm_tuning_plugin.JigsawDataPreprocessor'}
        super().__init__(backbone, in_channels, in_index, data_preprocessor, init_cfg)
        check_positive(channels=channels)
        if not isinstance(self.data_preprocessor, JigsawDataPreprocessor):
            raise UserError(
                'data_preprocessor',
                f'{type(self.data_preprocessor).__name__} found',
                'expected JigsawDataPreprocessor',
            )
        num_orders, tiles = self.data_preprocessor.orders.shape
        self.embed = nn.Sequential(  # of (B * T, in_channels): never a single row
            nn.Linear(in_channels, channels, bias=False), nn.BatchNorm1d(channels), nn.ReLU()
        )
        hidden = 4 * channels
        self.classify = nn.Sequential(
            nn.Linear(tiles * channels, hidden), nn.ReLU(), nn.Linear(hidden, num_orders)
        )

    def forward(
        self, inputs: Tensor, order: Tensor | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | Sequence[Tensor]:
        """What ``JigsawDataPreprocessor`` returns goes in.

        Args:
            inputs: (B, T, 3, S, S).
            order: (B,) int64; for the loss only.
            mode: 'tensor', 'predict' or 'loss'.

        Returns:
            Scores (B, P); or for each image the likeliest order (T,); or ``loss_order`` and
            ``acc_order``, per cent.

        Raises:
            ValueError: On another mode, or if the loss is asked for without the order.
        """
        check_mode(mode, order, 'order')
        features = self.embed(self.pooled(inputs.flatten(0, 1)))  # (B * T, channels)
        scores = self.classify(features.reshape(len(inputs), -1))
        if mode == 'tensor':
            return scores
        if mode == 'predict':
            return list(self.data_preprocessor.orders[scores.argmax(dim=1)])
        return classification_losses('order', scores, order)
