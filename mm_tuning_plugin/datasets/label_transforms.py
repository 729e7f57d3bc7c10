"""The transforms of stage one that map and check labels.

They follow the user's own loading transforms and read their results: ``img`` (H, W, C) or, if grey,
(H, W); ``gt_seg_map`` (H, W), whole numbers of any type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mm_tuning_plugin.datasets.label_files import (
    LabelFiles,
    as_mmseg_loads,
    cut_value,
    default_loader,
)
from mm_tuning_plugin.datasets.label_values import as_integers, map_labels, usable_label_table
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.registry import TRANSFORMS
from mm_tuning_plugin.structures import Sample

_BYTES = set(range(256))


@TRANSFORMS.register_module()
class MapLabels(BaseTransform):
    """Rename label values, for data sets with their own value for ignored pixels.

    Args:
        label_map: From values that label maps have to values 0..255. A value outside 0..255 is
            found in label maps of wider types, which a loader of the user's can give.

    Raises:
        UserError: A new value is outside 0..255.
    """

    def __init__(self, label_map: Mapping[int, int]) -> None:
        wrong = {old: new for old, new in label_map.items() if new not in _BYTES}
        if wrong:
            raise UserError(
                'MapLabels.label_map', f'{wrong} found', 'expected new values of 0 to 255'
            )
        self.label_map = {int(old): int(new) for old, new in label_map.items()}
        self.table = np.arange(256, dtype=np.uint8)
        for old, new in self.label_map.items():
            if old in _BYTES:
                self.table[old] = new

    def transform(self, results: Sample) -> Sample:
        """Map ``gt_seg_map``, all values at once; (H, W) uint8 if the new values fit.

        Raises:
            UserError: A value is no whole number.
        """
        seg_map = results['gt_seg_map']
        if seg_map.dtype != np.uint8:
            seg_map = as_integers(seg_map, label_source(results)).astype(np.int64)
            mapped = seg_map.copy()
            for old, new in self.label_map.items():
                mapped[seg_map == old] = new
            narrow = mapped.astype(np.uint8)
            results['gt_seg_map'] = narrow if np.array_equal(narrow, mapped) else mapped
        else:
            results['gt_seg_map'] = self.table.take(seg_map)
        return results


@TRANSFORMS.register_module()
class CheckLabels(BaseTransform):
    """Refuse a label map that does not fit its image or the classes; map ignored values to 255.

    It stands right behind the last label-mapping transform, before anything moves pixels. Where a
    file has more than 8 bits a value, it is read once more: mmseg's loader keeps 8 of them.

    Args:
        num_classes: Number of classes.
        ignore_values: Values that mean "ignore", besides 255.
        label_loader: What has read the label maps: 'mmseg', its ``LoadAnnotations``; 'either', the
            same, and a transform of the user's behind it, which may have read them anew; 'own', a
            transform of the user's, whose values are used unchanged.
        backend_args: Of mmseg's loader: the storage of the label maps.
        filled: Values below 0 that transforms of the user's fill label maps with.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_values: Sequence[int] = (),
        label_loader: str = 'mmseg',
        backend_args: Mapping[str, Any] | None = None,
        filled: Sequence[int] = (),
    ) -> None:
        self.num_classes = num_classes
        self.ignore_values = tuple(ignore_values)
        self.table = usable_label_table(num_classes, ignore_values)
        self.label_loader = label_loader if default_loader() == 'mmseg' else 'own'
        self.files = LabelFiles(backend_args)
        self.filled = tuple(filled)

    def transform(self, results: Sample) -> Sample:
        """Check and map ``gt_seg_map``.

        Raises:
            UserError: No label map, or one that has several channels, another size than the image,
                unknown values, or others than its file.
        """
        path = label_source(results)
        if results.get('gt_seg_map') is None:
            raise UserError(
                path,
                'no label map loaded',
                'expected gt_seg_map of a transform such as LoadAnnotations',
            )
        seg_map = results['gt_seg_map']
        if seg_map.ndim == 3 and len(seg_map) == 1:  # as PackSegInputs takes it
            seg_map = seg_map[0]
        if seg_map.ndim != 2:
            raise UserError(
                path,
                f'label map with {seg_map.shape[-1]} channels found, where one of class indices is '
                'expected',
                self._note(path, seg_map) or 'check whether it is a coloured picture of the labels',
            )
        if seg_map.shape != results['img'].shape[:2]:
            raise UserError(
                path,
                f'label map of {_size(seg_map)} found',
                f'expected {_size(results["img"])}, the size of its image{_moved_alone(results)}',
            )
        if seg_map.dtype == np.uint8:  # what mmseg's loader gives
            self._refuse_changed(seg_map, results, path)
        try:
            mapped = map_labels(seg_map, self.table, path, self.ignore_values)
        except UserError as error:
            note = self._note(path, seg_map)
            if not note:
                raise
            raise UserError(error.where, error.problem, note) from error
        results['gt_seg_map'] = mapped.astype(np.uint8)
        return results

    def _refuse_changed(self, seg_map: np.ndarray, results: Mapping[str, Any], path: str) -> None:
        if self.filled:
            raise UserError(
                path,
                f'a label map of 8 bits found, and a transform that fills it with '
                f'{self.filled[0]}, which becomes 0 in it',
                'expected 255 there, in ignore_index and in seg_pad_val',
            )
        raw = None if self.label_loader == 'own' else self.files.read_deep(path)
        cut = None if raw is None else cut_value(raw)
        if raw is None or cut is None:
            return
        anew = self.label_loader == 'either'
        if anew and not np.array_equal(as_mmseg_loads(raw, results), seg_map):
            return
        raise UserError(
            path,
            f"label value {cut[0]:g} found in the file, of which mmseg's LoadAnnotations keeps 8 "
            f'bits and makes {cut[1]}',
            'expected values 0 to 255, or a transform of your own that loads them',
        )

    def _note(self, path: str, seg_map: np.ndarray) -> str:
        """Return the remedy for a refused label map if it is certain; '' otherwise."""
        if self.files.is_jpeg(path):
            return (
                'write PNG, or another format without loss, from the source anew: the file is a '
                'JPEG, which keeps labels only nearly'
            )
        if self.num_classes == 1 and (seg_map == 1).any():
            return (
                'set loss_decode.use_sigmoid=True: one output holds labels 0 and 1 with a sigmoid '
                'alone'
            )
        return ''


def label_source(results: Mapping[str, Any]) -> str:
    """What to call the label map of a sample in an error: its path, or its image's."""
    return str(results.get('seg_map_path', results.get('img_path', 'label map')))


def _moved_alone(results: Mapping[str, Any]) -> str:
    """Why the sizes of image and label map differ, where those of the files do not."""
    if results.get('ori_shape') != results['gt_seg_map'].shape:
        return ''
    return (
        ' behind what moves it before the labels are loaded: move the loading of labels before it, '
        'or give label maps of that size'
    )


def _size(image: np.ndarray) -> str:
    return f'{image.shape[1]} x {image.shape[0]} (width x height)'
