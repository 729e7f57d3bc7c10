"""Image and label map brought to one size, as the user's validation does.

Shape legend: (H, W) of the image's file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.transforms import BaseTransform, Compose

from mm_tuning_plugin.registry import TRANSFORMS
from mm_tuning_plugin.structures import Sample


@TRANSFORMS.register_module()
class FitToLabels(BaseTransform):
    """Do after the loading of labels what a pipeline does to the image before it.

    A label map of the file's size moves with the image. One of another size was made for the image
    as the steps leave it: they move the image alone.

    Args:
        transforms: Configs of the steps between the loading of the image and of the labels.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]]) -> None:
        self.steps = Compose([TRANSFORMS.build(dict(step)) for step in transforms])

    def transform(self, results: Sample) -> Sample | None:
        """Move ``img`` (H, W, C), and ``gt_seg_map`` if it is (H, W); None if a step returns None.

        `CheckLabels`, which follows, reports sizes that still differ.
        """
        seg_map = results['gt_seg_map']
        if results['img'].shape[:2] == seg_map.shape[:2]:
            moved: Sample | None = self.steps(results)
            return moved
        alone = {key: value for key, value in results.items() if key != 'gt_seg_map'}
        moved = self.steps({**alone, 'seg_fields': []})
        labels = {'gt_seg_map': seg_map, 'seg_fields': results.get('seg_fields', [])}
        return None if moved is None else {**moved, **labels}
