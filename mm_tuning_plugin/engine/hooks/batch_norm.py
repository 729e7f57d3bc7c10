"""The hook that estimates BatchNorm's statistics again before the tuned backbone is written.

And its config: the crops are those of fine-tuning, whatever tuning itself is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mm_tuning_plugin.datasets import SeededInfiniteSampler
from mm_tuning_plugin.datasets.wrappers import random_state
from mm_tuning_plugin.engine.common.messages import warn
from mm_tuning_plugin.engine.common.models import unwrap
from mm_tuning_plugin.models.batch_norm import estimate_statistics
from mm_tuning_plugin.registry import DATASETS, HOOKS


@HOOKS.register_module()
class EstimateBatchNormHook(Hook):
    """Estimate the backbone's BatchNorm statistics on whole training crops, at the end of tuning.

    The crops are those at positions 0, 1, ... of the seeded sequence, each rank taking its
    share; none of the run's own random states moves. See `estimate_statistics`.

    Args:
        num_crops: How many, over all ranks; a multiple of their number.
        batch_size: Most crops of a batch, on each rank.
        dataset: Config of the data set that draws the crops.
        size: (H, W) that smaller crops are padded to, pixels: below and right, with 0, the mean, as
            mmseg's preprocessor pads them for fine-tuning. None: to the largest of their batch.
        seed: Seed of the sequence.
    """

    priority = 'BELOW_NORMAL'  # before SaveBackboneHook writes

    def __init__(
        self,
        num_crops: int,
        batch_size: int,
        dataset: dict,
        size: Sequence[int] | None = None,
        seed: int = 0,
    ) -> None:
        self.num_crops = num_crops
        self.batch_size = batch_size
        self.dataset = dataset
        self.size = size
        self.seed = seed

    def after_train(self, runner: Runner) -> None:
        """Replace the statistics; warn if there are none to replace."""
        model = unwrap(runner.model)
        with random_state(0):
            replaced = estimate_statistics(model.backbone, self._batches(runner, model))
        if not replaced:
            warn(
                f'bn_crops: {self.num_crops} found, expected 0 for a backbone without a BatchNorm '
                'that trains; nothing is estimated'
            )
            return
        runner.logger.info(
            f'statistics of {replaced} BatchNorm layers estimated on {self.num_crops} crops'
        )

    def _batches(self, runner, model) -> Iterator[Tensor]:
        """The normalised crops (B, C, H, W) of this rank; a signal ends the run between two."""
        stop_if_kept = getattr(runner, 'stop_if_kept', lambda: None)  # not of a plain Runner
        dataset = DATASETS.build(self.dataset)
        share = self.num_crops // get_world_size()
        indices = islice(SeededInfiniteSampler(dataset, self.seed), share)
        while samples := [dataset[index] for index in islice(indices, self.batch_size)]:
            stop_if_kept()
            images = model.data_preprocessor(pseudo_collate(samples))['nodes'].images
            below, right = (
                max(0, side - given) for side, given in zip(self.size or (0, 0), images.shape[-2:])
            )
            yield F.pad(images, (0, right, 0, below))
