"""Images and nodes for pictures: of the mixed batch, and of node retrieval.

Shape legend: P nodes of one image; M images of one sample; S x S pixels of a shown patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from mm_tuning_plugin import visualization
from mm_tuning_plugin.config_types import ConfigMap, full_type
from mm_tuning_plugin.datasets import SeededInfiniteSampler
from mm_tuning_plugin.engine.config.derive_pipelines import with_pipeline

TILE = 72  # side of a displayed patch, pixels
MOST_IMAGES = 8  # of a batch that are shown with their nodes


def with_sources(dataset: ConfigMap) -> dict:
    """Copy a training data set of stage one such that its samples keep image and boxes.

    Args:
        dataset: Config of a `SeededDataset`.

    Returns:
        Its copy: the same samples, with ``source`` added.
    """

    def keep(steps: Sequence[ConfigMap]) -> list[dict]:
        return [dict(step, keep_source=True) if _packs(step) else dict(step) for step in steps]

    return with_pipeline(dataset, keep)


def _packs(step: ConfigMap) -> bool:
    return full_type(step) == 'mm_tuning_plugin.PackNodeInputs'


def batch_sheet(
    runner: Runner, batch: ConfigMap, dense: bool, names: list[str], palette: np.ndarray
) -> np.ndarray:
    """Show the main rank's part of the batch that comes next.

    Args:
        runner: Of stage one, about to take the step.
        batch: What the loader gave.
        dense: Whether nodes are points of whole images.
        names: K names.
        palette: (K, 3) uint8 RGB.

    Raises:
        ValueError: Patches whose images, read once more, are others than those of the batch.
    """
    labels = [part.numpy() for part in batch['labels']]
    patches, window = None, 1
    if dense:
        images, nodes, labels = _by_image(batch['inputs'], batch['points'], labels)
        window = window_of(images[0])
    else:
        patches = [as_rgb(part) for part in batch['inputs']]
        sources = _sources(runner, labels)
        if sources is None:
            joined = np.concatenate(patches), np.concatenate(labels)
            return visualization.patch_mosaic(*joined, names, palette)
        images, nodes = sources
    return visualization.node_sheet(
        images,
        nodes,
        labels,
        palette,
        names,
        patches=patches,
        window=window,
        max_images=MOST_IMAGES,
    )


def _by_image(
    inputs: Sequence[torch.Tensor], points: Sequence[torch.Tensor], labels: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """The images of a batch, their points (P, 2) and labels (P,): a sample may have several."""
    images, nodes, named = [], [], []
    for part, where, what in zip(inputs, points, labels):
        for place, image in enumerate(part):
            own = (where[:, 0] == place).numpy()
            images.append(as_rgb(image))
            nodes.append(where[own, 1:].numpy())
            named.append(what[own])
    return images, nodes, named


def _sources(
    runner: Runner, labels: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """The images that the next batch's patches were cut out of, and their boxes.

    None where a sampler of the user's does not tell the boxes. A batch carries its patches alone.
    Every sample follows from the seed of its position, so the same ones are read once more here.
    """
    loader = runner.train_dataloader
    dataset = DATASETS.build(with_sources(runner.cfg['train_dataloader']['dataset']))
    size = loader.batch_size
    sampler = SeededInfiniteSampler(dataset, loader.sampler.seed, size)
    sampler.skip(runner.iter * size)
    samples = [dataset[index] for index in islice(sampler, len(labels))]
    same = (np.array_equal(a['labels'].numpy(), b) for a, b in zip(samples, labels))
    if not all(same):
        raise ValueError('the images of the batch, read once more, have other nodes')
    boxes = [sample['source']['boxes'] for sample in samples]
    if any(own is None for own in boxes):
        return None
    images = [image_as_rgb(sample['source']['img']) for sample in samples]
    return images, [own.numpy() for own in boxes]


def node_tiles(dataset: BaseDataset, nodes: np.ndarray, dense: bool) -> np.ndarray:
    """Cut nodes of node retrieval out of their images; each image is read once.

    Args:
        dataset: A `RetrievalDataset`, which draws the same nodes at every reading.
        nodes: (L, 2) integers, (image, place): which of the image's nodes.
        dense: Whether nodes are points of whole images.

    Returns:
        (L, S, S, 3) uint8 RGB.
    """
    tiles = np.zeros((len(nodes), TILE, TILE, 3), dtype=np.uint8)
    for image in np.unique(nodes[:, 0]):
        chosen = np.flatnonzero(nodes[:, 0] == image)
        sample, places = dataset[int(image)], nodes[chosen, 1]
        if dense:
            points = sample['points'][places].numpy()
            for which in np.unique(points[:, 0]):
                picture, own = as_rgb(sample['inputs'][which]), points[:, 0] == which
                tiles[chosen[own]] = visualization.cut_nodes(
                    picture, points[own, 1:], TILE, window=window_of(picture)
                )
        else:
            tiles[chosen] = [
                visualization.resize(as_rgb(patch), TILE, TILE, 'area')
                for patch in sample['inputs'][places]
            ]
    return tiles


def window_of(picture: np.ndarray) -> int:
    """Side of the square around a point of a picture (H, W, 3), in pixels: a quarter of it, odd."""
    return max(17, min(picture.shape[:2]) // 4) | 1


def as_rgb(images: torch.Tensor) -> np.ndarray:
    """What the data set loaded, as it can be shown.

    Args:
        images: (..., C, H, W), BGR as mmcv reads it, in 0..255. One channel is grey; of two, or of
            more than three, the first ones are shown.

    Returns:
        (..., H, W, 3) uint8 RGB.
    """
    return image_as_rgb(images.movedim(-3, -1).numpy())


def image_as_rgb(image: np.ndarray) -> np.ndarray:
    """(..., H, W, C) or a grey (H, W) of any type as (..., H, W, 3) uint8 RGB."""
    if image.ndim == 2:
        image = image[..., None]
    picked = [2, 1, 0] if image.shape[-1] >= 3 else [0, 0, 0]
    return np.ascontiguousarray(np.clip(image[..., picked], 0, 255).astype(np.uint8))
