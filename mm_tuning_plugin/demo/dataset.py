"""A data set that the package draws itself, so that everything can be tried without a download.

Ordinary files in the layout that mmseg's own ``BaseSegDataset`` reads::

    ROOT/dataset.json
    ROOT/img/{unlabelled,train,val}/00000.jpg
    ROOT/ann/{train,val}/00000.png

Every scene depends on (seed, split, number, size) alone: a larger data set begins with the scenes
of a smaller one, and ``val`` is the same whatever the other splits hold.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np

from mm_tuning_plugin.demo.scenes import CLASSES, IGNORE_INDEX, MIN_SIZE, PALETTE, draw_scene
from mm_tuning_plugin.errors import UserError

__all__ = [
    'CLASSES',
    'IGNORE_INDEX',
    'METAINFO',
    'PALETTE',
    'draw_scene',
    'scene_seed',
    'write_demo_dataset',
]

METAINFO = {'classes': CLASSES, 'palette': PALETTE}
SPLITS = ('unlabelled', 'train', 'val')
FORMAT = 1
"""Raised whenever the same parameters would draw other pixels."""
DESCRIPTION = 'dataset.json'
JPEG_QUALITY = 95


def scene_seed(seed: int, split: str, number: int) -> int:
    """The seed of one scene.

    Args:
        seed: Seed of the data set, non-negative.
        split: One of ``SPLITS``.
        number: Number of the scene in its split, from 0.

    Returns:
        A seed for ``draw_scene``, in [0, 2**64).
    """
    entropy = np.random.SeedSequence((seed, SPLITS.index(split), number))
    return int(entropy.generate_state(1, np.uint64)[0])


def write_demo_dataset(
    root: str | os.PathLike[str],
    *,
    seed: int = 0,
    image_size: int = 128,
    num_unlabelled: int = 320,
    num_train: int = 48,
    num_val: int = 60,
) -> Path:
    """Writes the demo data set, or finds it written already.

    The files are written to a neighbouring folder, which is renamed at the end.

    Args:
        root: Folder of the data set; must not exist, be empty, or hold the same data set.
        seed: Non-negative; another seed draws another data set.
        image_size: Side of the square images in pixels, at least 32.
        num_unlabelled: Scenes without a label map, for the self-supervised stage.
        num_train: Labelled scenes to learn from.
        num_val: Labelled scenes to judge by.

    Returns:
        ``root`` as a ``Path``.

    Raises:
        UserError: If an argument is out of range, or ``root`` holds anything else.
    """
    counts = {'unlabelled': num_unlabelled, 'train': num_train, 'val': num_val}
    _check(seed, image_size, counts)
    root = Path(root)
    wanted = {
        'format': FORMAT,
        'seed': seed,
        'image_size': image_size,
        'counts': counts,
        'classes': list(CLASSES),
    }
    if _is_finished(root, wanted):
        return root
    partial = root.absolute().parent / f'.{root.name}.partial-{os.getpid()}'
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for split, count in counts.items():
            _write_split(partial, split, count, seed, image_size)
        (partial / DESCRIPTION).write_text(json.dumps(wanted, indent=2) + '\n', encoding='utf-8')
        try:
            os.replace(partial, root)
        except OSError:  # another process was faster, or something else exists there now
            if not _is_finished(root, wanted):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root


def _check(seed: int, image_size: int, counts: dict[str, int]) -> None:
    """Raises ``UserError`` on an argument that is out of range."""
    if seed < 0:
        raise UserError('seed', f'{seed} found', 'expected a non-negative integer')
    if image_size < MIN_SIZE:
        raise UserError('image_size', f'{image_size} found', f'expected at least {MIN_SIZE} pixels')
    for split, count in counts.items():
        if count < 0:
            raise UserError(f'num_{split}', f'{count} found', 'expected a non-negative integer')


def _is_finished(root: Path, wanted: dict) -> bool:
    """Whether ``root`` holds the data set that is wanted, whole.

    Raises:
        UserError: If it holds anything else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / DESCRIPTION).read_text(encoding='utf-8'))
        differing = [name for name in wanted if found.get(name) != wanted[name]]
    except (OSError, ValueError, AttributeError):
        raise UserError(
            str(root),
            f'something without a readable {DESCRIPTION} found',
            'expected a demo data set, an empty folder or nothing',
        ) from None
    if differing:
        found_text = ', '.join(f'{name}={found.get(name)}' for name in differing)
        wanted_text = ', '.join(f'{name}={wanted[name]}' for name in differing)
        raise UserError(
            str(root),
            f'a demo data set with {found_text} found, where one with {wanted_text} is expected',
            'name another folder or remove this one',
        )
    for split, count in wanted['counts'].items():
        for folder in _folders(split):
            held = len(list((root / folder).glob('*.*')))
            if held != count:
                raise UserError(
                    str(root / folder),
                    f'{held} files found, where {DESCRIPTION} says {count}',
                    'remove the data set to have it drawn again',
                )
    return True


def _folders(split: str) -> list[str]:
    """Folders of a split, relative to the root."""
    return [f'img/{split}'] if split == 'unlabelled' else [f'img/{split}', f'ann/{split}']


def _write_split(root: Path, split: str, count: int, seed: int, image_size: int) -> None:
    """Draws ``count`` scenes into the folders of a split."""
    for folder in _folders(split):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        image, seg_map = draw_scene(scene_seed(seed, split, number), image_size)
        quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        _write(root / 'img' / split / f'{number:05d}.jpg', image, quality)
        if split != 'unlabelled':
            _write(root / 'ann' / split / f'{number:05d}.png', seg_map, [])


def _write(path: Path, array: np.ndarray, options: list[int]) -> None:
    """Writes an image file; a full disk is an ``OSError``, not a silent ``False``."""
    done, data = cv2.imencode(path.suffix, array, options)
    if not done:
        raise OSError(f'{path}: could not be encoded')
    path.write_bytes(data.tobytes())
