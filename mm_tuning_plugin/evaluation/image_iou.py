"""mmseg's IoUMetric, which also writes down what it counted on each image.

Shape legend: I validation images, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmseg.evaluation import IoUMetric

from mm_tuning_plugin.atomic_write import atomic_write
from mm_tuning_plugin.registry import METRICS


@METRICS.register_module()
class ImageIoUMetric(IoUMetric):
    """The same metrics, and a file of the areas they were computed from.

    The file is an ``.npz`` of ``names`` (I,), in the order of the data set, without the folder that
    they share and without suffix; ``classes`` (C,) names; ``intersect``, ``union`` and ``label``
    (I, C) int64 pixels. Each validation overwrites it.

    Args:
        areas_file: The file.
        **options: See mmseg's IoUMetric.
    """

    def __init__(self, areas_file: str, **options: Any) -> None:
        super().__init__(**options)
        self.areas_file = Path(areas_file)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count areas as mmseg does, and append the image's path to its four areas."""
        before = len(self.results)
        super().process(data_batch, data_samples)
        counted = self.results[before:]  # none where nothing but formats is asked for
        paths = [str(sample['img_path']) for sample in data_samples]
        self.results[before:] = [(*areas, path) for areas, path in zip(counted, paths)]

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Write the areas; then as mmseg does."""
        if results:
            areas = [np.stack([np.asarray(row[k]) for row in results]) for k in (0, 1, 3)]
            intersect, union, label = (np.rint(area).astype(np.int64) for area in areas)
            with atomic_write(self.areas_file) as aside, open(aside, 'wb') as file:
                np.savez_compressed(
                    file,
                    names=np.array(short_names([row[4] for row in results])),
                    classes=np.array(self.dataset_meta['classes']),
                    intersect=intersect,
                    union=union,
                    label=label,
                )
        return super().compute_metrics([row[:4] for row in results])


def short_names(paths: Sequence[str]) -> list[str]:
    """The paths of files below the folder that they share, without suffix.

    Files of several storages ('s3://...' and the local disk) share none: whole paths are kept.
    """
    try:
        common = os.path.commonpath([os.path.dirname(path) for path in paths]) or os.curdir
    except ValueError:  # absolute and relative paths
        return [os.path.splitext(path)[0] for path in paths]
    return [os.path.splitext(os.path.relpath(path, common))[0] for path in paths]
