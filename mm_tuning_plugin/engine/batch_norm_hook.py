"""The hook that estimates BatchNorm's statistics anew before the tuned backbone is written."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from mmengine.dataset import pseudo_collate
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from torch import Tensor

from mm_tuning_plugin.datasets import SeededInfiniteSampler
from mm_tuning_plugin.datasets.wrappers import random_state
from mm_tuning_plugin.engine.hooks import unwrap
from mm_tuning_plugin.engine.messages import warn
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
        seed: Seed of the sequence.
    """

    priority = 'BELOW_NORMAL'  # before SaveBackboneHook writes

    def __init__(self, num_crops: int, batch_size: int, dataset: dict, seed: int = 0) -> None:
        self.num_crops = num_crops
        self.batch_size = batch_size
        self.dataset = dataset
        self.seed = seed

    def after_train(self, runner) -> None:
        """Replace the statistics; warn if there are none to replace."""
        model = unwrap(runner.model)
        with random_state(0):
            replaced = estimate_statistics(model.backbone, self._batches(model.data_preprocessor))
        if not replaced:
            warn(
                f'bn_crops: {self.num_crops} found, expected 0 for a backbone without a BatchNorm '
                'that trains; nothing is estimated'
            )
            return
        runner.logger.info(
            f'statistics of {replaced} BatchNorm layers estimated on {self.num_crops} crops'
        )

    def _batches(self, preprocess) -> Iterator[Tensor]:
        """The normalised crops (B, C, H, W) of this rank."""
        dataset = DATASETS.build(self.dataset)
        share = self.num_crops // get_world_size()
        indices = islice(SeededInfiniteSampler(dataset, self.seed), share)
        while samples := [dataset[index] for index in islice(indices, self.batch_size)]:
            yield preprocess(pseudo_collate(samples))['nodes'].images
