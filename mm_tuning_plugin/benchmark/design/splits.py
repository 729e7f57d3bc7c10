"""The images that a job reads: folds, nested subsets of the labels, and their manifests.

A manifest is a text file of names without suffix, one a line, which mmseg's data sets read as
their ``ann_file``. Its own name has a digest of what it holds.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS

from mm_tuning_plugin.atomic_write import write_text
from mm_tuning_plugin.engine.config.dataset_tree import leaf_datasets
from mm_tuning_plugin.engine.preflight.data_files import KEYS, Reader
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.evaluation.image_iou import short_names


class Part(NamedTuple):
    """Some images of a data set.

    Attributes:
        dataset: The config of a data set that reads exactly these.
        images: How many.
        digest: Hash of their names and of the sizes of their files, in order. Of files elsewhere
            than on the local disk the whole names count, and the arguments of the storage.
    """

    dataset: dict[str, Any]
    images: int
    digest: str


class Leaf(NamedTuple):
    """What a data set without wrapper reads, in order.

    Attributes:
        names: As a manifest names them; None: it reads no manifest.
        files: By image, its short name and the sizes of image and label map; their whole names,
            if they are not on the local disk.
    """

    names: list[str] | None
    files: list[str]


class Library:
    """Lists data sets and takes parts of them.

    Args:
        folder: Where manifests are written.
        scope: The ``default_scope`` of the configs.
    """

    def __init__(self, folder: Path, scope: str = 'mmseg') -> None:
        self.folder, self.scope = folder, scope
        self._leaves: dict[str, Leaf] = {}
        self._sizes: dict[str, int] = {}

    def whole(self, dataset: Mapping[str, Any]) -> Part:
        """All images of a data set."""
        files = [file for leaf in leaf_datasets(dataset) for file in self._list(leaf).files]
        return Part(copy.deepcopy(dict(dataset)), len(files), _digest(files))

    def named(self, dataset: Mapping[str, Any], names: Sequence[str]) -> Part:
        """The images of these names, in this order.

        Raises:
            UserError: The data set joins several, or does not read the manifest.
        """
        leaves = list(leaf_datasets(dataset))
        if len(leaves) != 1:
            raise UserError(
                'folds',
                f'names found for a data set joined of {len(leaves)}',
                'expected a single data set',
            )
        return self.whole(self._restricted(dataset, iter([list(names)])))

    def subset(self, dataset: Mapping[str, Any], fraction: float, seed: int) -> Part:
        """Draw a share of the images by a seed; smaller shares are subsets of larger ones.

        Args:
            dataset: The config of a data set, with any wrappers.
            fraction: Share, above 0 and up to 1; at least one image is drawn.
            seed: Of the draw.

        Raises:
            UserError: The data set does not read manifests.
        """
        if fraction == 1:
            return self.whole(dataset)
        leaves = [self._names(leaf) for leaf in leaf_datasets(dataset)]
        pairs = [(i, name) for i, names in enumerate(leaves) for name in names]
        order = random.Random(seed).sample(pairs, len(pairs))
        kept = set(order[: max(1, round(fraction * len(pairs)))])
        chosen = [[name for name in names if (i, name) in kept] for i, names in enumerate(leaves)]
        return self.whole(self._restricted(dataset, iter(chosen)))

    def _restricted(self, dataset: Mapping[str, Any], chosen: Iterator[list[str]]) -> Any:
        """Copy nested data sets, each leaf restricted to its names; None if it has none left."""
        copied = copy.deepcopy(dict(dataset))
        if copied.get('datasets') is not None:
            parts = [self._restricted(part, chosen) for part in copied['datasets']]
            copied['datasets'] = [part for part in parts if part is not None]
            return copied if copied['datasets'] else None
        if isinstance(copied.get('dataset'), Mapping):
            copied['dataset'] = self._restricted(copied['dataset'], chosen)
            return copied if copied['dataset'] is not None else None
        names = next(chosen)
        if not names:
            return None
        if Reader(copied.get('backend_args')).storage('names.txt') is None:
            copied['ann_file'] = str(self._write(names))
            copied.pop('indices', None)
        else:  # mmseg would read a manifest from there too
            copied['indices'] = self._places(copied, names)
        if self._names(copied) != names:
            raise UserError(
                'dataset',
                f'{copied["type"]} reads other images than its ann_file '
                f'{copied.get("ann_file")} names',
                'expected a data set that reads names from it',
            )
        return copied

    def _places(self, leaf: Mapping[str, Any], names: Sequence[str]) -> list[int]:
        """Return the positions of the names in a data set's list."""
        places = {name: i for i, name in enumerate(self._names({**leaf, 'indices': None}))}
        unknown = [name for name in names if name not in places]
        if unknown:
            raise UserError(
                'dataset',
                f'{unknown[0]!r} found',
                f'expected the name of one of the {len(places)} images of {leaf["type"]}',
            )
        return [places[name] for name in names]

    def _write(self, names: Sequence[str]) -> Path:
        text = '\n'.join(names) + '\n'
        path = self.folder / f'{len(names)}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.txt'
        if not path.is_file():
            write_text(path, text)
        return path

    def _names(self, leaf: Mapping[str, Any]) -> list[str]:
        names = self._list(leaf).names
        if names is None:
            raise UserError(
                'dataset',
                f'{leaf["type"]} found',
                'expected one of mmseg that reads names of images from ann_file, or fraction 1 '
                'without folds',
            )
        return names

    def _list(self, leaf: Mapping[str, Any]) -> Leaf:
        key = json.dumps(dict(leaf, pipeline=[]), sort_keys=True, default=str)
        if key not in self._leaves:
            self._leaves[key] = self._read(leaf)
        return self._leaves[key]

    def _read(self, leaf: Mapping[str, Any]) -> Leaf:
        try:
            with DefaultScope.overwrite_default_scope(self.scope):
                built = DATASETS.build({**copy.deepcopy(dict(leaf)), 'pipeline': []})
            items = [built.get_data_info(i) for i in range(len(built))]
        except Exception as error:  # data sets of the user's can raise anything
            reason = f'{type(error).__name__}: {error}'.splitlines()[0]
            raise UserError(
                'dataset',
                f'{leaf.get("type")} in {leaf.get("data_root")!r} cannot be listed ({reason})',
                'expected images',
            ) from error
        paths = [str(item.get('img_path')) for item in items]
        if not paths:
            raise UserError(
                'dataset',
                f'no image found by {leaf.get("type")} in {leaf.get("data_root")!r}',
                'expected at least one',
            )
        names = _manifest_names(built, paths)
        reader = Reader(getattr(built, 'backend_args', None))
        files = [
            '|'.join([name, *(self._file(item.get(key), reader) for key in KEYS)])
            for name, item in zip(names or short_names(paths), items)
        ]
        return Leaf(names, files)

    def _file(self, path: Any, reader: Reader) -> str:
        """Bytes of a file, -1: none; of one in other storage, its name and that of the storage."""
        if not isinstance(path, str):
            return '-1'
        storage = reader.storage(path)
        if storage is not None:
            return f'{path} {storage}'
        if path not in self._sizes:
            self._sizes[path] = os.path.getsize(path) if os.path.isfile(path) else -1
        return str(self._sizes[path])


def read_folds(path: Path) -> list[dict[str, list[str]]]:
    """Read a JSON list of ``{"train": [names], "val": [names]}``.

    Raises:
        UserError: It is missing, or not a list of names.
    """
    try:
        folds = json.loads(path.read_text(encoding='utf-8'))
        splits = [
            {split: [str(name) for name in fold[split]] for split in ('train', 'val')}
            for fold in folds
        ]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f'{path}',
            f'cannot be read ({type(error).__name__}: {error})',
            'expected a JSON list of folds with "train" and "val"',
        ) from error
    for index, fold in enumerate(splits):
        if not fold['train'] or not fold['val']:
            raise UserError(
                f'{path}', f'fold {index} is empty', 'expected names in "train" and "val"'
            )
    return splits


def _manifest_names(dataset: Any, paths: Sequence[str]) -> list[str] | None:
    """Names as mmseg's data sets read them from an ``ann_file``; None where they would not."""
    suffix, prefix = getattr(dataset, 'img_suffix', None), getattr(dataset, 'data_prefix', None)
    root = prefix.get('img_path') if isinstance(prefix, Mapping) else None
    if not isinstance(suffix, str) or not isinstance(root, str):
        return None
    if not all(path.endswith(suffix) for path in paths):
        return None
    return [os.path.relpath(path[: len(path) - len(suffix)], root) for path in paths]


def _digest(files: Sequence[str]) -> str:
    return hashlib.sha256('\n'.join(files).encode()).hexdigest()[:16]
