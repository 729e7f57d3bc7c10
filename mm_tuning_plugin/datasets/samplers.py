"""The order of the data of stage one: a function of the seed alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sized
from typing import Any

import torch
from mmengine.dist import get_dist_info, sync_random_seed

from mm_tuning_plugin.registry import DATA_SAMPLERS


class SeededIndex(int):
    """A data-set index with the seed of all random draws for it.

    It travels through the DataLoader to the worker like any int, so that what a worker draws
    depends on (seed, position), never on which worker draws it or on what it drew before.
    """

    seed: tuple[int, int]

    def __new__(cls, index: int, seed: tuple[int, int]) -> SeededIndex:
        """Make the index `index` with `seed` = (seed of the run, position in its sequence)."""
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __reduce__(self) -> tuple[type[SeededIndex], tuple[int, tuple[int, int]]]:
        return SeededIndex, (int(self), self.seed)


@DATA_SAMPLERS.register_module()
class SeededInfiniteSampler:
    """Shuffled epochs without end; W ranks take turns, `batch_size` positions each.

    So a batch of W ranks with B samples each is, in rank order, the batch of one rank with W * B:
    both give the same nodes in the same order.

    Position p is in epoch p // n of n images. Each epoch is a permutation seeded by
    (seed, epoch). Skipping is free, so a resumed run continues at its position.

    Args:
        dataset: The data set; only its length is read.
        seed: Seed. None: drawn, and the same on all ranks.
        batch_size: Samples of one rank in a batch.
    """

    def __init__(self, dataset: Sized, seed: int | None = None, batch_size: int = 1) -> None:
        self.rank, self.world_size = get_dist_info()
        self.batch_size = batch_size
        self.size = len(dataset)
        self.seed = int(sync_random_seed() if seed is None else seed)
        self.skipped = 0

    def skip(self, num_samples: int) -> None:
        """Start the next iteration `num_samples` of this rank's samples later."""
        self.skipped += num_samples

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: epochs follow from the position."""

    def __iter__(self) -> Iterator[SeededIndex]:
        epoch, order = -1, []
        for sample in itertools.count(self.skipped):
            batch, slot = divmod(sample, self.batch_size)
            position = (batch * self.world_size + self.rank) * self.batch_size + slot
            if position // self.size != epoch:
                epoch = position // self.size
                generator = torch.Generator().manual_seed(self.seed + 1_000_003 * epoch)
                order = torch.randperm(self.size, generator=generator).tolist()
            yield SeededIndex(order[position % self.size], (self.seed, position))

    def __len__(self) -> int:
        return self.size


@DATA_SAMPLERS.register_module()
class FirstSampler:
    """The first images of a data set in their order, the same on every rank: for trials.

    Args:
        dataset: The data set; only its length is read.
        count: How many images, at most.
        options: Of the sampler that it replaces; ignored.
    """

    def __init__(self, dataset: Sized, count: int, **options: Any) -> None:
        self.count = min(count, len(dataset))

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))

    def __len__(self) -> int:
        return self.count
