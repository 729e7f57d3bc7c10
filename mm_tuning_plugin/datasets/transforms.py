"""The last transforms of stage one: draw nodes, pack them; and a grey image for the first.

Those that draw stand behind the label check of `label_transforms`, whose results they read:
``img`` (H, W, C) or, if grey, (H, W), uint8; ``gt_seg_map`` (H, W).
Shape legend: P nodes of one image, M images.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mm_tuning_plugin.config_types import PlainConfig
from mm_tuning_plugin.datasets.label_values import map_labels, usable_label_table
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.functional import sample_patches, sample_points
from mm_tuning_plugin.registry import TRANSFORMS
from mm_tuning_plugin.structures import Sample


@TRANSFORMS.register_module()
class GreyImage(BaseTransform):
    """Make an image grey: the plain mean of its channels, as the paper's colorization starts read.

    Not what OpenCV and ``LoadImageFromFile(color_type='grayscale')`` call grey, which weigh the
    channels by brightness. It stands right behind the loading. With ``mean=[114.444]`` and
    ``std=[255]`` of the data preprocessor a backbone of one channel gets x / 255 - 0.4488.
    """

    def transform(self, results: Sample) -> Sample:
        """``img`` (H, W, C) to (H, W) float32."""
        image = results['img']
        if image.ndim != 3:
            raise UserError(
                'GreyImage',
                f'an image of shape {image.shape} found',
                'expected (H, W, C): check whether it is loaded grey already',
            )
        results['img'] = image.mean(axis=2, dtype=np.float32)
        return results


@TRANSFORMS.register_module()
class SamplePatches(BaseTransform):
    """Draw labelled patches of an image and cut them out.

    Args:
        num_patches: Patches an image.
        size_range: Smallest and largest side: pixels (ints) or fractions of the shorter side.
        patch_size: Side to which every patch is resized, pixels.
        background_index: The background class, or None.
        background_ratio: Share of background patches, if there is a background class.
        max_overlap: De-duplication: largest covered share of a foreground patch.
        balance: 'pixel' or 'class'.
        ignore_values: Values that padding transforms of the user's may have brought in.
        fill: Value outside the image, per channel of the file's order.
    """

    def __init__(
        self,
        num_patches: int,
        size_range: Sequence[float],
        patch_size: int,
        background_index: int | None = None,
        background_ratio: float = 0.1,
        max_overlap: float = 0.6,
        balance: str = 'pixel',
        num_classes: int = 255,
        ignore_values: Sequence[int] = (),
        fill: Sequence[float] = (0, 0, 0),
    ) -> None:
        self.num_patches = num_patches
        self.patch_size = patch_size
        self.labels = usable_label_table(num_classes, ignore_values), tuple(ignore_values)
        self.fill = tuple(float(value) for value in fill)
        self.options: PlainConfig = {
            'size_range': tuple(size_range),
            'background_index': background_index,
            'background_ratio': background_ratio,
            'max_overlap': max_overlap,
            'balance': balance,
        }

    def transform(self, results: Sample) -> Sample:
        """Add ``node_images`` (P, S, S, C), ``node_points`` (P, 3), ``node_labels`` (P,)."""
        boxes, labels = sample_patches(
            _seg_map(results, *self.labels),
            self.num_patches,
            generator=_generator(),
            **self.options,
        )
        count, side = len(labels), self.patch_size
        centre = torch.full((count,), side // 2)
        results['node_images'] = cut_patches(_image(results), boxes.numpy(), side, self.fill)
        results['node_points'] = torch.stack([torch.arange(count), centre, centre], dim=1)
        results['node_labels'] = labels
        results['node_boxes'] = boxes
        return results


@TRANSFORMS.register_module()
class SamplePoints(BaseTransform):
    """Draw labelled pixels of an image; the image itself is what the backbone sees.

    Args:
        points_per_class: Most points of one class.
        max_points: Most points altogether.
        border_share: Share of points near another label; see `sample_points`.
        num_classes: Number of classes.
        ignore_values: Values that padding transforms of the user's may have brought in.
    """

    def __init__(
        self,
        points_per_class: int,
        max_points: int | None = None,
        border_share: float = 0.0,
        num_classes: int = 255,
        ignore_values: Sequence[int] = (),
    ) -> None:
        self.points_per_class = points_per_class
        self.border_share = border_share
        self.max_points = max_points
        self.labels = usable_label_table(num_classes, ignore_values), tuple(ignore_values)

    def transform(self, results: Sample) -> Sample:
        """Add ``node_images`` (1, H, W, C), ``node_points`` (P, 3), ``node_labels`` (P,)."""
        points, labels = sample_points(
            _seg_map(results, *self.labels),
            self.points_per_class,
            max_points=self.max_points,
            border_share=self.border_share,
            generator=_generator(),
        )
        results['node_images'] = _image(results)[None]
        results['node_points'] = torch.nn.functional.pad(points, (1, 0))  # image 0 of this sample
        results['node_labels'] = labels
        return results


@TRANSFORMS.register_module()
class PackNodeInputs(BaseTransform):
    """Pack the nodes of one image for the tuner.

    Args:
        keep_source: Also keep the image, the label map and the boxes that nodes were drawn from,
            for pictures and figures.
    """

    def __init__(self, keep_source: bool = False) -> None:
        self.keep_source = keep_source

    def transform(self, results: Sample) -> Sample:
        """Return ``inputs`` (M, C, H, W) uint8, ``points`` (P, 3), ``labels`` (P,), ``meta``."""
        images = np.ascontiguousarray(results['node_images'].transpose(0, 3, 1, 2))
        packed = {
            'inputs': torch.from_numpy(images),
            'points': results['node_points'],
            'labels': results['node_labels'],
            'meta': {'img_path': str(results.get('img_path', ''))},
        }
        if self.keep_source:
            packed['source'] = {
                'img': results['img'],
                'seg_map': results['gt_seg_map'],
                'boxes': results.get('node_boxes'),
            }
        return packed


def cut_patches(
    image: np.ndarray, boxes: np.ndarray, side: int, fill: Sequence[float]
) -> np.ndarray:
    """Cut squares out of an image and resize them; the data-loading workers' fast path.

    The loop has one turn a patch, and each turn is two calls into OpenCV on uint8: measured
    several times faster than one batched float call, because nothing is widened to float32.
    `functional.crop_and_resize` computes the same on tensors.

    Args:
        image: (H, W, C) uint8.
        boxes: (P, 4) int64 (y0, x0, y1, x1), half-open; may reach outside the image.
        side: Side of the result, pixels.
        fill: C values for pixels outside the image.

    Returns:
        (P, side, side, C) uint8.
    """
    height, width, channels = image.shape
    patches = np.empty((len(boxes), side, side, channels), dtype=image.dtype)
    for patch, (y0, x0, y1, x1) in zip(patches, boxes.tolist()):
        inside = image[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        border = max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0)
        if any(border):
            inside = cv2.copyMakeBorder(inside, *border, cv2.BORDER_CONSTANT, value=fill)
        cv2.resize(inside, (side, side), dst=patch, interpolation=cv2.INTER_LINEAR)
    return patches


def _image(results: Sample) -> np.ndarray:
    """Return the image as (H, W, C), also if it was loaded as grey."""
    image: np.ndarray = results['img']
    return image[..., None] if image.ndim == 2 else image


def _seg_map(results: Sample, table: np.ndarray, ignore_values: Sequence[int]) -> torch.Tensor:
    path = str(results.get('seg_map_path', 'label map'))
    return torch.from_numpy(map_labels(results['gt_seg_map'], table, path, ignore_values))


def _generator() -> torch.Generator:
    """A generator that follows NumPy's state, as mmseg's own random transforms do."""
    return torch.Generator().manual_seed(int(np.random.randint(2**31)))
