"""The first batch of fine-tuning, through the user's own pipelines and preprocessor."""

from __future__ import annotations

import contextlib
import copy
import gc
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.registry import DATA_SAMPLERS, FUNCTIONS, MODELS, TRANSFORMS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mm_tuning_plugin.config_types import ConfigMap, base_type
from mm_tuning_plugin.datasets.wrappers import load_sample
from mm_tuning_plugin.engine.config.entry_types import steps_of
from mm_tuning_plugin.engine.preflight.fine_tuning.registered import (
    CORRECT,
    build,
    check_arguments,
    find,
    mistake,
    one_line,
)
from mm_tuning_plugin.errors import UserError

LOADERS = ('train_dataloader', 'val_dataloader')


def check_loaders(cfg: ConfigMap) -> None:
    """Samplers, collating and transforms of the loaders, without their data.

    Raises:
        UserError: A type or an argument does not exist, or a transform cannot be built.
    """
    for name in LOADERS:
        loader = cfg.get(name)
        if not isinstance(loader, Mapping):
            continue
        own = {'dataset': 1, 'seed': 1}, {'sampler': 1, 'batch_size': 1}
        for part, supplied in zip(('sampler', 'batch_sampler'), own):
            config = loader.get(part)
            if isinstance(config, Mapping):
                place = f'{name}.{part}'
                check_arguments(place, find(place, DATA_SAMPLERS, config), config, supplied)
        for part in ('collate_fn', 'worker_init_fn'):
            if isinstance(loader.get(part), Mapping):
                find(f'{name}.{part}', FUNCTIONS, loader[part])
        for place, step in _transforms(f'{name}.dataset', loader.get('dataset')):
            build(place, TRANSFORMS, step)


def _transforms(place: str, dataset: object) -> Iterator[tuple[str, ConfigMap]]:
    """All transforms of a nest of data sets, with their places."""
    if not isinstance(dataset, Mapping):
        return
    for i, step in enumerate(steps_of(dataset)):
        yield f'{place}.pipeline.{i}', step
    for i, part in enumerate(dataset.get('datasets') or ()):
        yield from _transforms(f'{place}.datasets.{i}', part)
    yield from _transforms(f'{place}.dataset', dataset.get('dataset'))


def build_loader(cfg: ConfigMap, name: str) -> DataLoader:
    """A loader as a Runner builds it; its workers are not started.

    Args:
        cfg: The config.
        name: Of the loader in it.

    Raises:
        UserError: It cannot be built.
    """
    if not isinstance(cfg.get(name), Mapping):
        return cfg.get(name)
    try:
        with _little_garbage():
            return Runner.build_dataloader(cfg[name], seed=0)
    except UserError:
        raise
    except Exception as error:  # data sets of the user's can raise anything
        raise mistake(name, 'it', error) from error


@contextlib.contextmanager
def _little_garbage() -> Iterator[None]:
    """Keep what is there by now out of the garbage that each data set collects as it is built."""
    frozen = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()


def first_batch(loader: DataLoader, name: str, size: int) -> Any:
    """Make a batch of a data set's first image, repeated; None for data without an index.

    It is one image, because the sampler's choice of others is not known here.

    Args:
        loader: The loader.
        name: Of it in the config.
        size: Of the batch.

    Raises:
        UserError: The image cannot be loaded, or makes no batch.
    """
    if not hasattr(loader.dataset, '__len__') or not hasattr(loader.dataset, '__getitem__'):
        return None
    try:
        sample = load_sample(loader.dataset, 0)
    except UserError as error:
        raise UserError(
            f'{name}.dataset.pipeline', f'{error.where}: {error.problem}', error.remedy
        ) from error
    try:
        return loader.collate_fn([copy.deepcopy(sample) for _ in range(size)])
    except Exception as error:  # functions of the user's can raise anything
        raise mistake(name, 'a batch', error) from error


def preprocess(model: ConfigMap, batch: Any, training: bool) -> Any:
    """What the segmentor's preprocessor makes of a batch.

    Args:
        model: Config of the segmentor.
        batch: As a loader gives it, or None.
        training: Whether it is for training.

    Raises:
        UserError: It cannot take these images.
    """
    config = model.get('data_preprocessor') or dict(type='mmengine.BaseDataPreprocessor')
    if batch is None or isinstance(config, nn.Module):
        return None
    preprocessor = build('model.data_preprocessor', MODELS, config)
    try:
        return preprocessor(batch, training)
    except Exception as error:  # preprocessors of the user's can raise anything
        raise _unfit(config, batch, error) from error


def _unfit(config: ConfigMap, batch: Any, error: Exception) -> UserError:
    """Which values of the mean are too many, if these are."""
    images = batch.get('inputs') if isinstance(batch, Mapping) else None
    first = images[0] if isinstance(images, (list, tuple, Tensor)) and len(images) else None
    for key in ('mean', 'std'):
        count = len(config.get(key) or ())
        if isinstance(first, Tensor) and count not in (0, 1, first.shape[0]):
            return UserError(
                f'model.data_preprocessor.{key}',
                f'{count} values found',
                f'expected {first.shape[0]}, as many as the images have channels, or 1',
            )
    return UserError(
        'model.data_preprocessor',
        f'{base_type(config)} cannot take the images: {one_line(error)}',
        CORRECT,
    )
