"""Which files a data set reads, from which storage, and whether they are there.

mmengine reads a file through a storage backend: that of the loading transform's ``backend_args``,
or of the path's prefix ('s3://'), or the local disk. Each file is checked where its loader would
read it. Only loading a sample shows whether a file is needed, because a user's loader may open
other files than the data set names.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.dataset import BaseDataset
from mmengine.fileio import BaseStorageBackend, FileClient, LocalBackend, get, get_file_backend

from mm_tuning_plugin.config_types import ConfigMap
from mm_tuning_plugin.datasets.wrappers import unreadable
from mm_tuning_plugin.engine.config.derive_pipelines import loads_image, loads_labels
from mm_tuning_plugin.engine.preflight.split_file import split_hint
from mm_tuning_plugin.errors import UserError

IMAGE, LABELS = KEYS = ('img_path', 'seg_map_path')
STORAGE = 'storage'
"""Key of an item: from where else than the local disk its label map is read."""
SECONDS = 10.0  # for asking storage about the files of a data set


class Reader(NamedTuple):
    """How a step reads files.

    Attributes:
        backend_args: As mmengine's functions take them.
        client_args: ``file_client_args``, which are the older way; nothing is asked of a client.
    """

    backend_args: ConfigMap | None = None
    client_args: ConfigMap | None = None

    @property
    def text(self) -> str:
        """The arguments, equal for equal ones."""
        return json.dumps(self.client_args or self.backend_args or {}, sort_keys=True, default=str)

    def backend(self, path: str) -> BaseStorageBackend:
        """Return the backend that reads a path; None if it cannot be built.

        Loading then reports why.
        """
        if self.client_args is not None:
            return LocalBackend() if self.client_args.get('backend') == 'disk' else None
        try:
            return get_file_backend(
                _prefix(path) + 'x',
                backend_args=None if self.backend_args is None else dict(self.backend_args),
                enable_singleton=True,
            )
        except Exception:  # a package that is missing, an unknown name, a server that is not there
            return None

    def read(self, path: str) -> bytes:
        """The content of a file."""
        if self.client_args is not None:
            return FileClient.infer_client(dict(self.client_args), path).get(path)
        arguments = None if self.backend_args is None else dict(self.backend_args)
        return get(path, backend_args=arguments)

    def storage(self, path: str) -> str | None:
        """Return what identifies this storage; None: the local disk."""
        return None if type(self.backend(path)) is LocalBackend else self.text


class Look:
    """Looks for files, on the local disk all of them, elsewhere within a limit of time.

    Args:
        seconds: For asking storage backends, altogether.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.left = seconds
        self._asked: dict[tuple[str, str], Any] = {}

    def __call__(self, path: object, reader: Reader) -> bool | None:
        """Whether there is such a file; None if unknown, or not known in time.

        Args:
            path: Of the file. Other values are not checked.
            reader: Of the step that reads it.
        """
        if not isinstance(path, (str, os.PathLike)):
            return None
        path = os.fspath(path)
        key = _prefix(path), reader.text
        if key not in self._asked:
            self._asked[key] = _question(reader.backend(path))
        question = self._asked[key]
        if question is os.path.isfile:
            return question(path)
        if question is None or self.left <= 0:
            return None
        begun = time.monotonic()
        try:
            return bool(question(path))
        except Exception:  # mmengine's own backends raise what their interface lacks
            self._asked[key] = None
            return None
        finally:
            self.left -= time.monotonic() - begun


def _prefix(path: str) -> str:
    return path[: path.index('://') + 3] if '://' in path else ''


def _question(backend: BaseStorageBackend) -> object:
    if type(backend) is LocalBackend:
        return os.path.isfile
    return getattr(backend, 'isfile', None) or getattr(backend, 'exists', None)


def find_leaf(dataset: BaseDataset, index: int) -> tuple[BaseDataset, int]:
    """The data set below any wrappers that an index leads to, and its index there."""
    while hasattr(dataset, '_get_ori_dataset_idx'):  # mmengine's wrappers
        found = dataset._get_ori_dataset_idx(index)
        if isinstance(found, tuple):
            dataset, index = dataset.datasets[found[0]], found[1]
        else:
            dataset, index = dataset.dataset, found
    return dataset, int(index)


def find_readers(dataset: BaseDataset) -> dict[str, Reader]:
    """Return how a data set without wrapper reads images and label maps, from its pipeline.

    A step that is known to read the one or the other comes first, then any other that has
    ``backend_args``. If no step has any, paths alone decide where a file is.
    """
    steps = list(_steps(getattr(dataset, 'pipeline', None)))
    read = [_key_of(step) for step in steps]
    readers = {}
    for key in KEYS:
        order = [step for wanted in (key, None) for step, k in zip(steps, read) if k == wanted]
        arguments = (
            Reader(getattr(step, 'backend_args', None), getattr(step, 'file_client_args', None))
            for step in order
            if hasattr(step, 'backend_args')
        )
        readers[key] = next(arguments, Reader())
    return readers


def _steps(pipeline: object) -> Iterator[object]:
    """The steps of a pipeline, and of a cache in it."""
    for step in getattr(pipeline, 'transforms', ()):
        if hasattr(step, 'steps'):
            yield from _steps(step.steps)
        else:
            yield step


def _key_of(step: object) -> str | None:
    config = dict(type=type(step))
    if isinstance(step, LoadAnnotations) or loads_labels(config):
        return LABELS
    return IMAGE if isinstance(step, LoadImageFromFile) or loads_image(config) else None


def list_items(dataset: BaseDataset) -> list[dict]:
    """Return a data set's information on each image, with `STORAGE` if it is not the local disk."""
    readers: dict[int, dict[str, Reader]] = {}
    items = []
    for index in range(len(dataset)):
        leaf, _ = find_leaf(dataset, index)
        if id(leaf) not in readers:
            readers[id(leaf)] = find_readers(leaf)
        say = getattr(dataset, 'get_data_info', None)
        item = dict(say(index)) if say is not None else {}
        key = LABELS if item.get(LABELS) else IMAGE
        if isinstance(item.get(key), str):
            storage = readers[id(leaf)][key].storage(item[key])
            item.update({} if storage is None else {STORAGE: storage})
        items.append(item)
    return items


def check_files(dataset: BaseDataset, items: Sequence[ConfigMap], samples: int) -> None:
    """Look for the files of a built data set.

    Where one is not found, its sample is loaded, to see whether it is needed. Where many are not
    found, so many samples are loaded, evenly spaced, that the first is among them.

    Args:
        dataset: It, with a pipeline that loads images and labels.
        items: Of `list_items`.
        samples: Most samples that are loaded for images, and for label maps.

    Raises:
        UserError: A file that is needed is missing, or no label map is named where one is needed.
    """
    absent = find_absent(dataset, items)
    for index, key in sorted(_some_of_each(absent, samples)):
        try:
            dataset[index]
        except UserError:
            raise
        except Exception as error:  # the user's own transforms can raise anything
            if items[index].get(key) is None and not isinstance(error, KeyError):
                raise unreadable(dataset, index, error) from error
            leaf, _ = find_leaf(dataset, index)
            raise _missing(leaf, items[index], key, error) from error


def find_absent(
    dataset: BaseDataset, items: Sequence[ConfigMap], look: Look | None = None
) -> list[tuple[int, str]]:
    """Which files are not found, or label maps not named: index of the sample, and key."""
    look = Look() if look is None else look
    readers: dict[int, dict[str, Reader]] = {}
    done, absent = set(), []
    for index, item in enumerate(items):
        leaf, inner = find_leaf(dataset, index)
        if (id(leaf), inner) in done:  # it is repeated
            continue
        done.add((id(leaf), inner))
        if id(leaf) not in readers:
            readers[id(leaf)] = find_readers(leaf)
        for key in KEYS:
            unnamed = key == LABELS and key not in item
            if unnamed or look(item.get(key), readers[id(leaf)][key]) is False:
                absent.append((index, key))
    return absent


def _some_of_each(absent: Sequence[tuple[int, str]], most: int) -> Iterable[tuple[int, str]]:
    for key in KEYS:
        found = [pair for pair in absent if pair[1] == key]
        for place in np.linspace(0, len(found) - 1, min(most, len(found)), dtype=int):
            yield found[place]


def missing_root(root: str) -> UserError:
    """The one line for a folder of data that is not there."""
    return UserError('data_root', f'{root!r} found', 'expected an existing folder')


def _missing(leaf: BaseDataset, item: ConfigMap, key: str, error: Exception) -> UserError:
    path = item.get(key)
    if path is None:
        return UserError(
            str(item.get(IMAGE)),
            'no label map named for this image',
            'expected one for every image, from seg_map_path in data_prefix',
        )
    expected = isinstance(error, (OSError, KeyError))
    reason = '' if expected else f' ({type(error).__name__}: {error})'.splitlines()[0]
    text, root = str(path), getattr(leaf, 'data_root', None)
    below = isinstance(root, str) and root and text.startswith(root) and not os.path.isdir(root)
    if below and find_readers(leaf)[key].storage(text) is None:
        return missing_root(root)
    shown = text if text.isprintable() else repr(text)
    found, remedy = split_hint(leaf, key, text)
    return UserError(
        shown,
        f'no such file for {key}{reason}' + (f', {found}' if found else ''),
        remedy or 'expected an existing file',
    )
