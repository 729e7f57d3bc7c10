"""The position in the training data, so that a resumed run draws what an uninterrupted one would.

Stage two keeps the sampler, workers and seeds of plain mmengine, so that it equals plain mmseg to
the last bit. Its augmentations are therefore drawn from the random states of the loading workers,
which mmengine does not restore. Here each batch carries its worker's state after the batch. A
checkpoint holds the last state of each worker, and a resumed run starts its workers with them.
Images that were already used are skipped as indices, so they are not read again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, get_worker_info

from mm_tuning_plugin.config_types import PlainConfig
from mm_tuning_plugin.engine.common.messages import warn
from mm_tuning_plugin.engine.resume.rng_states import capture, restore

KEY = 'mm_tuning_plugin.worker'  # of a batch: (index of the worker, its random states)


class CarryWorkerState:
    """A collate function whose batches carry the random states of the worker that made them.

    Attributes:
        after_first: By worker, states to set once its first batch is made; each worker has a copy.
    """

    def __init__(self, collate: Callable) -> None:
        self.collate = collate
        self.after_first: dict[int, Tensor] = {}

    def __call__(self, samples: list) -> Any:
        """Collate; a batch that is no dict carries nothing."""
        batch = self.collate(samples)
        worker = get_worker_info()
        if worker is not None and isinstance(batch, dict):
            if worker.id in self.after_first:
                restore(self.after_first.pop(worker.id))
            batch[KEY] = (worker.id, capture().numpy().tobytes())
        return batch


class StartWorker:
    """A worker's initialisation that ends by setting the random states it is to continue from."""

    def __init__(self, init: Callable | None, states: dict[int, Tensor]) -> None:
        self.init = init
        self.states = states

    def __call__(self, index: int) -> None:
        """Initialise worker `index`."""
        if self.init is not None:
            self.init(index)
        if index in self.states:
            restore(self.states[index])


class From:
    """A sampler that leaves out the first `count` indices of its first pass."""

    def __init__(self, sampler: Sampler, count: int) -> None:
        self.sampler = sampler
        self.count = count

    def __iter__(self) -> Iterator[int]:
        count, self.count = self.count, 0
        return itertools.islice(iter(self.sampler), count, None)

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        if name == 'sampler':  # asked for before it is set, while copying
            raise AttributeError(name)
        return getattr(self.sampler, name)


class DataPosition:
    """Follows the batches of a training DataLoader, and puts a new one where another one stood.

    Args:
        loader: Not yet iterated.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader
        self.passes = 0  # over a sampler that ends
        self.batches = 0  # taken in this pass
        self.workers: dict[int, Tensor] = {}
        if loader.num_workers:
            loader.collate_fn = CarryWorkerState(loader.collate_fn)

    @property
    def known(self) -> bool:
        """Whether the order of the data can be followed: not that of any batch sampler."""
        return {'sampler', 'batch_size'} <= set(dir(self.loader.batch_sampler))

    def take(self, batch: object, passes: int) -> None:
        """Count a batch that was delivered, and free it of what it carries for us.

        Args:
            batch: It, in place.
            passes: Whole passes over the sampler before the one that it belongs to.
        """
        if passes != self.passes:
            self.passes, self.batches = passes, 0
            if not self.loader.persistent_workers:
                self.workers.clear()
        self.batches += 1
        if isinstance(batch, dict) and KEY in batch:
            index, states = batch.pop(KEY)
            self.workers[index] = torch.frombuffer(bytearray(states), dtype=torch.uint8)

    def skipped(self, batches: int) -> None:
        """Count batches that mmengine itself skips."""
        endless = type(self.loader.sampler).__name__.endswith('InfiniteSampler')
        length = batches + 1 if endless else len(self.loader)
        self.passes, self.batches = divmod(batches, length)

    def state_dict(self) -> PlainConfig:
        """What `start_from` takes: built-ins and tensors only."""
        return dict(
            passes=self.passes,
            batches=self.batches,
            num_workers=self.loader.num_workers,
            workers=dict(self.workers),
        )

    def start_from(self, state: PlainConfig) -> Iterator:
        """Begin an iteration of the loader where another one stood.

        Returns:
            The iterator; with workers, they are running.
        """
        loader, self.passes, self.batches = self.loader, state['passes'], state['batches']
        if state['num_workers'] == loader.num_workers:
            self.workers = {index: states.cpu() for index, states in state['workers'].items()}
        else:
            warn(
                f'num_workers: {loader.num_workers} found, expected {state["num_workers"]}, as '
                'before the interruption: augmentations differ from those of an uninterrupted run'
            )
        if loader.num_workers and self.batches and not self.workers:
            warn(
                'no random states of the loading workers found, expected them in every batch (a '
                'dict): augmentations differ from those of an uninterrupted run'
            )
        sampler = loader.batch_sampler.sampler
        if hasattr(sampler, '_indices_of_rank'):
            # mmengine's InfiniteSampler is one endless generator, which prefetching may have begun.
            sampler.indices = sampler._indices_of_rank()
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(self.passes)
        return self._start_workers()

    def _start_workers(self) -> Iterator:
        """Start iterating so that each worker continues with its own states.

        Batches go to the workers in turn, beginning with worker 0. So we begin at the last batch
        that was worker 0's turn; the batches from there that were taken, less than one a worker,
        are read again and dropped, and their workers' states are set after them.
        """
        loader, count = self.loader, self.loader.num_workers
        again = self.batches % count if count else 0
        sampler, size = loader.batch_sampler.sampler, loader.batch_sampler.batch_size
        loader.batch_sampler.sampler = From(sampler, (self.batches - again) * size)
        loader._iterator = None  # persistent workers of an iteration that began at the beginning
        if not count:
            return iter(loader)
        init, collate = loader.worker_init_fn, loader.collate_fn
        loader.worker_init_fn = StartWorker(
            init, {i: states for i, states in self.workers.items() if i >= again}
        )
        collate.after_first = {i: states for i, states in self.workers.items() if i < again}
        iterator = iter(loader)
        # workers of later passes start as usual
        loader.worker_init_fn, collate.after_first = init, {}
        for _ in range(again):
            next(iterator)
        return iterator
