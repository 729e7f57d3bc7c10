"""Decoded images and label maps kept in memory, so that a small set is decoded once.

`Cached` replaces the loading steps of a pipeline. ``engine/config/derive_pipelines.py``
does not list its type as moving or colouring pixels, so tuning keeps it as it keeps loading.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform, Compose
from mmengine.config import Config
from torch.utils.data import get_worker_info

from mm_tuning_plugin.config_types import base_type, class_of, full_type
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.registry import TRANSFORMS
from mm_tuning_plugin.structures import Sample

TYPE = 'mm_tuning_plugin.Cached'
# They draw nothing, and read nothing of a sample but what `READ` names.
CACHEABLE = ('LoadImageFromFile', 'LoadAnnotations', 'MapLabels', 'CheckLabels')
PACKAGES = ('mmcv', 'mmseg', 'mm_tuning_plugin')  # whose steps of these names are meant
READ = ('img_path', 'seg_map_path', 'label_map', 'reduce_zero_label')
MAX_BYTES = 2 * 1024**3


@TRANSFORMS.register_module()
class Cached(BaseTransform):
    """Keep what the first steps of a pipeline load, and hand out copies of it.

    A full cache takes nothing more and forgets nothing: where every image is as likely to come
    next as any other, or all come in turn, a cache of the last ones would hit less often.

    Args:
        transforms: Configs of the steps: deterministic ones that read only what `READ` names.
        max_bytes: Most bytes kept, by all workers of a loader together: each has a cache of its
            own, filled by what it loads itself, which lasts as long as the worker does.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]], max_bytes: int = MAX_BYTES) -> None:
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 0:
            raise UserError('Cached.max_bytes', f'{max_bytes!r} found', 'expected bytes, 0 or more')
        self.steps = Compose([TRANSFORMS.build(dict(step)) for step in transforms])
        self.max_bytes = max_bytes
        self.bytes = 0
        self._kept: dict[Hashable, dict[str, Any]] = {}

    def transform(self, results: Sample) -> Sample | None:
        """Load a sample, or copy it if the same files were loaded before.

        Args:
            results: Of a data set, nothing loaded yet.

        Returns:
            The sample with ``img`` (H, W, C) and all that the steps add; None if they return None.
        """
        key = tuple(_hashable(results.get(name)) for name in READ)
        kept = self._kept.get(key)
        if kept is not None:
            results.update(copy.deepcopy(kept))
            return results
        given = copy.deepcopy(results)  # paths and short lists: the steps change some in place
        loaded: Sample | None = self.steps(results)
        if loaded is not None:
            self._keep(key, {k: v for k, v in loaded.items() if _differs(v, given, k)})
        return loaded

    def _keep(self, key: Hashable, loaded: dict[str, Any]) -> None:
        size = sum(value.nbytes for value in loaded.values() if isinstance(value, np.ndarray))
        worker = get_worker_info()
        if self.bytes + size <= self.max_bytes // (worker.num_workers if worker else 1):
            self._kept[key] = copy.deepcopy(loaded)
            self.bytes += size

    def __getstate__(self) -> dict[str, Any]:
        """Without the cache: a spawned worker and a copy start with an empty one."""
        return {**self.__dict__, '_kept': {}, 'bytes': 0}

    def __repr__(self) -> str:
        return f'{type(self).__name__}(steps={self.steps}, max_bytes={self.max_bytes})'


def cache_loading(cfg: Config, max_bytes: int = MAX_BYTES) -> Config:
    """Copy a config with the leading loading steps of its training pipelines cached.

    Training stays the same to the last bit. Repeated by the validation alone, and once a run
    mostly, validation images are not cached.

    Args:
        cfg: Of fine-tuning or of tuning, or of a proxy task.
        max_bytes: See `Cached`; for each data set under the loader's wrappers.

    Returns:
        The copy; it equals `cfg` where no pipeline begins with a step that can be cached.
    """
    copied = copy.deepcopy(cfg)
    loader = copied.get('train_dataloader')
    if isinstance(loader, Mapping) and isinstance(loader.get('dataset'), Mapping):
        _cache_dataset(loader['dataset'], max_bytes, cfg.get('default_scope') or 'mmseg')
    return copied


def without_cache(config: Any) -> Any:
    """Copy nested configs; the steps of every `Cached` replace it."""
    if isinstance(config, Mapping):
        return {key: without_cache(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        flat: list[Any] = []
        for item in config:
            cached = isinstance(item, Mapping) and full_type(item) == TYPE
            flat += without_cache(item['transforms']) if cached else [without_cache(item)]
        return tuple(flat) if isinstance(config, tuple) else flat
    return config


def _cache_dataset(dataset: Any, max_bytes: int, scope: str) -> None:
    """Put the cache into a data set's config, in place, inside any wrappers."""
    inner = dataset.get('datasets') or dataset.get('dataset')
    if inner:  # the steps of a wrapper come after those of what it wraps
        for part in inner if isinstance(inner, (list, tuple)) else [inner]:
            _cache_dataset(part, max_bytes, scope)
        return
    steps = list(dataset.get('pipeline') or ())
    count = next((i for i, s in enumerate(steps) if not _cacheable(s, scope)), len(steps))
    if count:
        cached = dict(type=TYPE, transforms=steps[:count], max_bytes=max_bytes)
        dataset['pipeline'] = [cached, *steps[count:]]


def _cacheable(step: Mapping[str, Any], scope: str) -> bool:
    """Whether a step is one of `CACHEABLE`, and not a user's own of the same name."""
    if base_type(step) not in CACHEABLE:
        return False
    return getattr(class_of(step, TRANSFORMS, scope), '__module__', '').split('.')[0] in PACKAGES


def _hashable(value: Any) -> Hashable:
    return tuple(sorted(value.items())) if isinstance(value, Mapping) else value


def _differs(value: Any, given: Mapping[str, Any], key: str) -> bool:
    """Whether a step added or changed an entry; an array counts as changed."""
    return key not in given or isinstance(value, np.ndarray) or bool(value != given[key])
