"""What stage one will draw from the data: the nodes of its first images, and figures of them.

The samples are those that a run with the same seed begins with, through the same derived config.

Shape legend: M images, P nodes of one image, N nodes of all, K classes.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor

from mm_tuning_plugin.config_types import full_type
from mm_tuning_plugin.datasets.label_values import IGNORE, usable_label_table
from mm_tuning_plugin.datasets.samplers import SeededInfiniteSampler
from mm_tuning_plugin.engine.config.dataset_tree import leaf_datasets
from mm_tuning_plugin.engine.config.derive import derive_tuning_config
from mm_tuning_plugin.engine.config.user_config import UserConfig
from mm_tuning_plugin.functional.box_shares import box_purity, share_covered, share_outside
from mm_tuning_plugin.functional.runs import find_runs
from mm_tuning_plugin.nodes.base import node_kind
from mm_tuning_plugin.visualization import cut_nodes, dataset_palette

WINDOW_SHOWN = 64  # side to which the window around a point is resized, pixels


class ImageNodes(NamedTuple):
    """One image as the sampler sees it, and its nodes.

    Attributes:
        path: Of the image's file.
        picture: (H, W, 3) uint8 RGB, after the transforms that stage one keeps; None: not kept.
        nodes: (P, 4) boxes (y0, x0, y1, x1) of patches, or (P, 2) points (y, x); NaN where a
            sampler of the user's does not say where on the image they lie.
        labels: (P,) the class of each.
        patches: (P, S, S, 3) uint8 RGB: what the backbone sees of each patch, or the window around
            each point.
        pixels: (K + 1,) pixels of each class, last the ignored.
        purity: (P,) of each patch's pixels in the image, or of those in a window around each point,
            the share that has its label; NaN where `nodes` is.
        covered: (P,) share of each patch that the others of the image cover; 0 for points.
        outside: (P,) share of each patch that lies outside the image; 0 for points.
    """

    path: str
    picture: np.ndarray | None
    nodes: np.ndarray
    labels: np.ndarray
    patches: np.ndarray
    pixels: np.ndarray
    purity: np.ndarray
    covered: np.ndarray
    outside: np.ndarray


class Survey(NamedTuple):
    """The first images of a run.

    Attributes:
        facts: Read from the config.
        images: M of them. An image that the run uses twice is listed twice.
        dataset_size: Images of the whole data set.
        palette: (K, 3) uint8 RGB: the data set's own, if it has one for all classes.
    """

    facts: UserConfig
    images: list[ImageNodes]
    dataset_size: int
    palette: np.ndarray

    @property
    def pixels(self) -> np.ndarray:
        """(K + 1,) pixels of each class over all images, last the ignored."""
        return sum((image.pixels for image in self.images), np.zeros(1, dtype=np.int64))

    @property
    def labels(self) -> np.ndarray:
        """(N,) classes of all nodes."""
        return self.joined('labels')

    @property
    def counts(self) -> np.ndarray:
        """(K,) nodes of each class."""
        return np.bincount(self.labels, minlength=self.facts.num_classes)

    @property
    def sides(self) -> np.ndarray:
        """(N,) sides of the patches on their images, pixels; 0 for points."""
        nodes = self.joined('nodes')
        return nodes[:, 2] - nodes[:, 0] if nodes.shape[1] == 4 else np.zeros_like(nodes[:, 0])

    @property
    def spread(self) -> np.ndarray:
        """(N,) an order of the nodes: of each class first one node of every image, then another."""
        ranks = [find_ranks(image.labels) for image in self.images]
        return np.concatenate(ranks).argsort(kind='stable')

    def joined(self, name: str) -> np.ndarray:
        """(N, ...) one of the arrays of `ImageNodes` over all images."""
        return np.concatenate([getattr(image, name) for image in self.images])


def find_ranks(labels: np.ndarray) -> np.ndarray:
    """Count the equal values before each entry: [4, 2, 4] -> [0, 0, 1]; (P,)."""
    order = labels.argsort(kind='stable')
    ranks = np.empty_like(order)
    ranks[order] = find_runs(labels[order]).ranks
    return ranks


def first_indices(tuning: Config, dataset_size: int, count: int) -> list[Any]:
    """The indices, with their seeds, of the samples that stage one begins with.

    Args:
        tuning: Its config, with a seed.
        dataset_size: Images of the data set.
        count: How many.
    """
    options = dict(tuning['train_dataloader']['sampler'])
    options.pop('type')
    return list(itertools.islice(SeededInfiniteSampler(range(dataset_size), **options), count))


def survey(cfg: Config, facts: UserConfig, count: int, window: int, pictures: int = 0) -> Survey:
    """Draw the nodes of the first images of a run.

    Args:
        cfg: The user's config, with a seed.
        facts: Read from it.
        count: M, how many images.
        window: Side of the square around a point in which its purity is measured, pixels.
        pictures: Of how many of the images the pixels are kept.

    Raises:
        UserError: The config cannot be tuned, or an image, its labels or a transform are at fault.
    """
    tuning = derive_tuning_config(cfg)
    dataset_cfg = copy.deepcopy(tuning['train_dataloader']['dataset'])
    for leaf in leaf_datasets(dataset_cfg):
        for step in leaf['pipeline']:
            if full_type(step) == 'mm_tuning_plugin.PackNodeInputs':
                step['keep_source'] = True
    table = usable_label_table(facts.num_classes, facts.ignore_values)
    with DefaultScope.overwrite_default_scope(tuning['default_scope']):
        dataset = DATASETS.build(dataset_cfg)
        images = []
        for place, index in enumerate(first_indices(tuning, len(dataset), count)):
            seen = _look_at(dataset[index], table, facts, window)
            images.append(seen if place < pictures else seen._replace(picture=None))
    palette = dataset_palette(dataset.metainfo, facts.num_classes)
    return Survey(facts, images, len(dataset), palette)


def _look_at(
    sample: Mapping[str, Any], table: np.ndarray, facts: UserConfig, window: int
) -> ImageNodes:
    """Figures of one sample."""
    source, labels = sample['source'], sample['labels']
    # transforms after the check may have padded it with ignored values
    seg_map = torch.from_numpy(table.take(source['seg_map']).astype(np.int64))
    given = as_picture(sample['inputs'].permute(0, 2, 3, 1).numpy())  # (M, H, W, 3)
    points, boxes = sample['points'], source['boxes']
    dense = node_kind(facts.options.nodes).whole_images
    if not dense:
        patches, nodes = given, boxes
    else:
        patches = _windows(given, points.numpy(), window)
        # a point on a part of the image, or on one of several, has no place in the label map
        nodes = points[:, 1:] if given.shape[:3] == (1, *seg_map.shape) else None
    purity = covered = outside = torch.full(labels.shape, torch.nan)
    if nodes is None:
        nodes = torch.full((len(labels), 2 if dense else 4), torch.nan)
    elif nodes.shape[1] == 4:
        purity = box_purity(seg_map, nodes, labels)
        covered, outside = share_covered(nodes), share_outside(nodes, *seg_map.shape)
    else:
        corner = nodes - window // 2
        purity = box_purity(seg_map, torch.cat((corner, corner + window), dim=1), labels)
        covered = outside = torch.zeros_like(purity)
    return ImageNodes(
        sample['meta']['img_path'],
        as_picture(source['img']),
        nodes.numpy(),
        labels.numpy(),
        patches,
        _count_pixels(seg_map, facts.num_classes),
        purity.numpy(),
        covered.numpy(),
        outside.numpy(),
    )


def _windows(images: np.ndarray, points: np.ndarray, window: int) -> np.ndarray:
    """Cut resized squares (P, S, S, 3) around points (P, 3) from images (M, H, W, 3)."""
    shown = np.zeros((len(points), WINDOW_SHOWN, WINDOW_SHOWN, 3), dtype=np.uint8)
    for place, image in enumerate(images):
        own = points[:, 0] == place
        shown[own] = cut_nodes(image, points[own, 1:], WINDOW_SHOWN, window=window)
    return shown


def _count_pixels(seg_map: Tensor, num_classes: int) -> np.ndarray:
    counts = torch.bincount(seg_map.reshape(-1), minlength=IGNORE + 1)
    counts[num_classes] = counts[IGNORE]  # other values were refused before
    return counts[: num_classes + 1].numpy()


def as_picture(image: np.ndarray) -> np.ndarray:
    """What mmseg reads as an image, for looking at: (..., C) BGR or grey to (..., 3) uint8 RGB.

    Of more than three channels the first three are shown; floating-point values are cut to 0..255.
    """
    if image.ndim == 2:
        image = image[..., None]
    image = image if image.dtype == np.uint8 else np.clip(image, 0, 255).astype(np.uint8)
    channels = [0, 0, 0] if image.shape[-1] < 3 else [2, 1, 0]
    return np.ascontiguousarray(image[..., channels])
