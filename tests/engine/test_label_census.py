"""Values of label maps against the classes: what is told, and what is let pass."""

import os
import re

import cv2
import numpy as np
import pytest
from mistakes import check_mistake, mistake
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from mm_tuning_plugin.inspection.label_values import (
    LabelCensus,
    label_warnings,
    shown_values,
    take_census,
)

NAMES = ['sky', 'road', 'car']


def warned(loaded, in_files=(), names=NAMES, ignored=(255,)):
    """Warnings for values that occur 100 times each, or as often as a dict says."""

    def counts(values):
        return dict(values) if isinstance(values, dict) else dict.fromkeys(values, 100)

    census = LabelCensus(4, counts(loaded), counts(in_files), 4 if in_files else 0)
    return label_warnings(census, names, ignored)


@pytest.mark.parametrize(
    ('loaded', 'in_files'),
    [
        ([0, 1, 2], []),
        ([0, 1, 2, 255], []),
        ([0, 2], []),
        ([1, 2], []),
        ({0: 40, 1: 30, 2: 20, 255: 10}, {0: 10, 1: 40, 2: 30, 3: 20}),  # reduced, as it should be
        ({0: 100, 255: 10}, {0: 10, 1: 100}),  # two classes are not seen: rare?
    ],
)
def test_sound_labels_pass(loaded, in_files):
    assert warned(loaded, in_files) == []


def test_all_labels_are_shifted():
    (line,) = warned([1, 2, 3])
    check_mistake(line, 'reduce_zero_label', ['1 to 3', '3 classes'], 'reduce_zero_label=True')


def test_one_value_more_than_classes():
    (line,) = warned([0, 1, 2, 3, 255])
    check_mistake(line, 'label maps', ['0 to 3', '3 classes'], 'num_classes')
    assert 'reduce_zero_label=True' in line and 'label_map={3: 255}' in line


def test_values_far_beyond_the_classes():
    (line,) = warned([0, 1, 7, 9])
    check_mistake(line, 'label maps', ['7, 9', '3 classes'], ['MapLabels', 'num_classes'])


def test_reduced_although_the_files_begin_at_zero():
    (line,) = warned([0, 1, 255], [0, 1, 2])
    found = ['True', '0 to 2', '3 classes', '33.3 %', "'car'"]
    check_mistake(line, 'reduce_zero_label', found, 'reduce_zero_label=False')


def test_reduced_and_little_is_dropped_but_only_the_last_class_is_missing():
    (line,) = warned({0: 100, 1: 100, 255: 10}, {0: 10, 1: 100, 2: 100})
    check_mistake(line, 'reduce_zero_label', ['4.76 %', "'car'"], 'reduce_zero_label=False')


def test_reduced_and_much_is_dropped():
    """Not all classes are seen, but 0 covers more than what nobody labelled usually does."""
    (line,) = warned({0: 100, 255: 60}, {0: 60, 1: 100})
    check_mistake(line, 'reduce_zero_label', ['37.5 %', "'car'"], 'reduce_zero_label=False')


def test_reduced_as_the_values_allow_but_much_is_dropped():
    """A label of its own for what is unlabelled, behind the classes: 0 is one of them."""
    (line,) = warned({0: 30, 1: 30, 2: 20, 255: 20}, {0: 20, 1: 30, 2: 30, 3: 20})
    check_mistake(line, 'reduce_zero_label', ['True', '20 %'], 'reduce_zero_label=False')
    assert "'car'" not in line


def test_masks_of_0_and_255():
    (line,) = warned({0: 90, 255: 10}, names=['background', 'crack'])
    remedy = ['label_map={255: 1}', 'LoadAnnotations']
    check_mistake(line, 'label maps', ['0 and 255', '255 (10 %'], remedy)


def test_most_is_ignored():
    (line,) = warned({0: 10, 1: 10, 2: 10, 255: 70})
    check_mistake(line, 'label maps', ['70 %', '(255)'], ['reduce_zero_label', 'ignore_index'])
    assert warned({0: 20, 1: 20, 2: 20, 255: 40}) == []


def test_an_ignored_value_that_is_a_class():
    (line,) = warned({0: 30, 1: 40, 2: 30}, ignored=(0, 255))
    check_mistake(line, re.compile('ignore_index.*seg_pad_val'), ['0', "'sky'", '30 %'], '255')


def test_jpegs():
    census = LabelCensus(4, {0: 50, 1: 40, 7: 10}, {}, 0, jpegs=3)
    (line,) = label_warnings(census, NAMES, [255])
    check_mistake(line, 'label maps', re.compile(r'\b3 JPEG.*\b4\b'), 'PNG')


def test_wide_ignored_values_pass():
    assert warned({0: 40, 1: 40, 2: 40, -1: 20}, ignored=(-1, 255)) == []
    (line,) = warned({0: 40, 1: 40, 2: 40, -1: 20})
    check_mistake(line, 'label maps', '-1', 'MapLabels')


def test_ranges():
    assert shown_values({3, 1, 0, 2, 255}) == '0 to 3, 255'
    assert shown_values({0, 2, 4, 6, 8, 10, 11}) == '0, 2, 4, 6, 8, ...'


def test_what_is_counted(toy_cfg, demo_root):
    """In the files where the label is reduced, and behind the user's transforms everywhere."""
    dataset = toy_cfg.train_dataloader.dataset
    maps = [
        cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        for path in sorted((demo_root / 'ann' / 'train').iterdir())
    ]
    values, numbers = np.unique(np.stack([maps[0], maps[3]]), return_counts=True)
    expected = dict(zip(values.tolist(), numbers.tolist()))
    census = take_census(dataset, lambda size: [0, 3, 3][:size])
    assert census == LabelCensus(2, expected, {}, 0)

    dataset.reduce_zero_label = True
    census = take_census(dataset, lambda size: [0, 3])
    assert census.in_files == expected and census.reduced == 2
    zero = expected.get(0, 0) + expected.get(255, 0)
    shifted = {value - 1: count for value, count in expected.items() if 0 < value < 255}
    assert census.loaded == {**shifted, **({255: zero} if zero else {})}


@TRANSFORMS.register_module()
class LoadCensusArray(BaseTransform):
    """Label maps that lie in no image file."""

    def __init__(self, kind, last=0):
        self.kind, self.last = kind, last

    def transform(self, results):
        size = results['img'].shape[:2]
        results['gt_seg_map'] = np.full(size, 3, dtype=self.kind)
        results['gt_seg_map'][-1, -1] = self.last
        return results


def test_a_loader_of_the_users_own(toy_cfg, demo_root, tmp_path):
    dataset = toy_cfg.train_dataloader.dataset
    dataset.pipeline[1] = dict(type='LoadCensusArray', kind='float32', last=-1)
    assert take_census(dataset, lambda size: [0]).loaded == {3: 64 * 64 - 1, -1: 1}
    dataset.pipeline[1] = dict(type='LoadCensusArray', kind='float32', last=0.5)
    with mistake(re.compile(r'\.png$'), '0.5'):
        take_census(dataset, lambda size: [0])
    # files that no reader of images takes: what is in them stays unknown
    (tmp_path / 'ann').mkdir()
    for name in os.listdir(demo_root / 'img' / 'train'):
        (tmp_path / 'ann' / name).with_suffix('.npy').write_bytes(b'array')
    dataset.update(
        reduce_zero_label=True,
        seg_map_suffix='.npy',
        data_prefix=dict(img_path=str(demo_root / 'img/train'), seg_map_path=str(tmp_path / 'ann')),
    )
    dataset.pipeline[1] = dict(type='LoadCensusArray', kind='int64', last=7)
    census = take_census(dataset, lambda size: [0])
    assert census == LabelCensus(1, {3: 64 * 64 - 1, 7: 1}, {}, 1)
    sorted((tmp_path / 'ann').iterdir())[1].write_bytes(b'\xff\xd8\xff a JPEG by its beginning')
    assert take_census(dataset, lambda size: [0, 1, 2]).jpegs == 1


def test_a_mapping_of_the_users_counts(toy_cfg):
    dataset = toy_cfg.train_dataloader.dataset
    dataset.pipeline.insert(2, dict(type='mm_tuning_plugin.MapLabels', label_map={0: 9}))
    assert 9 in take_census(dataset, range).loaded
    assert 0 not in take_census(dataset, range).loaded


def test_a_missing_root_is_one_line(toy_cfg):
    toy_cfg.train_dataloader.dataset.data_root = 'nowhere'
    with mistake('data_root', "'nowhere'"):
        take_census(toy_cfg.train_dataloader.dataset, range)
