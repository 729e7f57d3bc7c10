"""Thin wrappers around the user's own data sets."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from mm_tuning_plugin.config_types import PlainConfig
from mm_tuning_plugin.datasets.samplers import SeededIndex
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.registry import DATASETS
from mm_tuning_plugin.structures import Sample


@contextmanager
def random_state(*seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch (CPU) inside the block; restore their states after it.

    The main process loads the data itself when there are no workers, so its own random states
    must not move with the data's.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    python_seed, numpy_seed, torch_seed = np.random.SeedSequence(seed).generate_state(3)
    random.seed(int(python_seed))
    np.random.seed(int(numpy_seed))
    # The default generator alone: torch.manual_seed would reseed the GPUs too.
    torch.default_generator.manual_seed(int(torch_seed))
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def load_sample(dataset: Any, index: int) -> Sample:
    """Read one sample; whatever goes wrong on the way names the sample's image.

    Raises:
        UserError: Anything failed: an unreadable file, or a transform of the user's.
    """
    try:
        sample: Sample = dataset[index]
    except UserError:
        raise
    except Exception as error:  # the user's own transforms can raise anything
        raise unreadable(dataset, index, error) from error
    return sample


def unreadable(dataset: Any, index: int, error: Exception) -> UserError:
    """The one line for a sample that cannot be read."""
    path = _image_path(dataset, int(index))
    reason = f'{type(error).__name__}: {error}'.splitlines()[0]
    return UserError(
        path,
        f'the image or its label map cannot be read ({reason})',
        'correct the file or the transform that fails',
    )


def _image_path(dataset: Any, index: int) -> str:
    try:
        return str(dataset.get_data_info(index)['img_path'])
    except Exception:  # it serves a message about another failure, which it must not hide
        return f'sample {index}'


@DATASETS.register_module()
class SeededDataset:
    """The user's data set, each sample drawn from the seed that its index carries.

    Args:
        dataset: Config of the data set.
    """

    def __init__(self, dataset: PlainConfig) -> None:
        self.dataset = DATASETS.build(dataset)

    @property
    def metainfo(self) -> Sample:
        """Meta information of the wrapped data set."""
        metainfo: Sample = self.dataset.metainfo
        return metainfo

    def full_init(self) -> None:
        """Initialise the wrapped data set."""
        self.dataset.full_init()

    def get_data_info(self, index: int) -> Sample:
        """Return the wrapped data set's information on one of its images."""
        info: Sample = self.dataset.get_data_info(index)
        return info

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        if not isinstance(index, SeededIndex):
            return load_sample(self.dataset, index)
        with random_state(*index.seed):
            return load_sample(self.dataset, index)


@DATASETS.register_module()
class RetrievalDataset:
    """Gallery images of the training set, then query images of the validation set.

    Of each set at most `max_images` are taken, evenly spaced, and every image is always drawn
    from the same seed, so that recall is measured on the same nodes before and after tuning.

    Args:
        gallery: Config of the data set whose nodes are searched.
        queries: Config of the data set whose nodes are looked up.
        max_images: Most images taken of each.
    """

    def __init__(self, gallery: PlainConfig, queries: PlainConfig, max_images: int) -> None:
        self.parts = [DATASETS.build(gallery), DATASETS.build(queries)]
        self.items = [
            (role, part, int(index))
            for role, part in zip(('gallery', 'query'), self.parts)
            for index in np.linspace(0, len(part) - 1, min(max_images, len(part)), dtype=int)
        ]

    @property
    def metainfo(self) -> Sample:
        """Meta information of the gallery's data set."""
        metainfo: Sample = self.parts[0].metainfo
        return metainfo

    def full_init(self) -> None:
        """Do nothing: both data sets are initialised when they are built."""

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        role, part, inner = self.items[index]
        with random_state(inner, role == 'query'):
            sample = load_sample(part, inner)
        sample['meta']['role'] = role
        return sample
