"""Images that are too large to be embedded whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from mm_tuning_plugin.datasets.label_values import IGNORE
from mm_tuning_plugin.registry import TRANSFORMS
from mm_tuning_plugin.structures import Sample

MOST_PIXELS = 1024 * 2048  # of an image that is embedded whole: those of Cityscapes are
TRIES = 8


@TRANSFORMS.register_module()
class CutLargeImage(BaseTransform):
    """Keep one window of an image of more than `MOST_PIXELS`, at its own scale.

    Nodes of whole images are embedded with all of their image. What that takes is bounded here,
    and nothing is shrunk to a scale that training never sees. Of `TRIES` windows at random places
    the one with most classes is kept; of several the first. Smaller images stay as they are, and
    no random number is drawn for them.

    It follows `CheckLabels`.

    Args:
        crop_size: (H, W) of the crops that training sees, pixels; images of no more pixels than
            such a crop stay whole too. None: there are none, and the window is as large as
            `MOST_PIXELS` allows, of the shape of its image.
    """

    def __init__(self, crop_size: Sequence[int] | None = None) -> None:
        self.crop_size = None if crop_size is None else (int(crop_size[0]), int(crop_size[1]))

    def transform(self, results: Sample) -> Sample:
        """Cut the same window from ``img`` (H, W, C) or (H, W) and ``gt_seg_map`` (H, W)."""
        shape = results['gt_seg_map'].shape
        size = window_size(shape, self.crop_size)
        if size == shape:
            return results
        tops, lefts = (
            np.random.randint(whole - side + 1, size=TRIES) for whole, side in zip(shape, size)
        )
        windows = [
            (slice(top, top + size[0]), slice(left, left + size[1]))
            for top, left in zip(tops.tolist(), lefts.tolist())
        ]
        classes = [count_classes(results['gt_seg_map'][window]) for window in windows]
        chosen = windows[int(np.argmax(classes))]
        for key in ('img', 'gt_seg_map'):
            results[key] = np.ascontiguousarray(results[key][chosen])
        results['img_shape'] = size
        return results


def window_size(
    shape: tuple[int, int], crop_size: tuple[int, int] | None = None
) -> tuple[int, int]:
    """How large a part of an image of (H, W) pixels is embedded: (h, w).

    Args:
        shape: (H, W).
        crop_size: See `CutLargeImage`.
    """
    height, width = shape
    whole = height * width
    if whole <= max(MOST_PIXELS, crop_size[0] * crop_size[1] if crop_size else 0):
        return height, width
    if crop_size is not None:
        return min(height, crop_size[0]), min(width, crop_size[1])
    share = (MOST_PIXELS / whole) ** 0.5
    return max(1, int(height * share)), max(1, int(width * share))


def count_classes(seg_map: np.ndarray) -> int:
    """Count the classes of a label map (H, W) uint8, without ignored values."""
    return int(np.count_nonzero(np.bincount(seg_map.ravel(), minlength=IGNORE + 1)[:IGNORE]))
