"""Values of label maps against the classes: what is told, and what is let pass."""

import os

import cv2
import numpy as np
import pytest
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from mm_tuning_plugin.engine.label_census import (
    LabelCensus,
    label_warnings,
    shown_values,
    take_census,
)
from mm_tuning_plugin.errors import UserError

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
    assert line == (
        'reduce_zero_label: label maps of values 1 to 3 found for 3 classes: all labels are '
        'shifted by one; set reduce_zero_label=True'
    )


def test_one_value_more_than_classes():
    (line,) = warned([0, 1, 2, 3, 255])
    assert line.startswith('label maps: values 0 to 3 found, one more than the 3 classes; ')
    assert 'set reduce_zero_label=True' in line and 'label_map={3: 255}' in line


def test_values_far_beyond_the_classes():
    (line,) = warned([0, 1, 7, 9])
    assert line.startswith('label maps: values 7, 9 found, which are none of the 3 classes; ')


def test_reduced_although_the_files_begin_at_zero():
    (line,) = warned([0, 1, 255], [0, 1, 2])
    assert line.startswith('reduce_zero_label: True found over label maps of values 0 to 2 for 3 ')
    assert '0 is dropped (33.3 % of the pixels)' in line and "class 'car' never occurs" in line
    assert line.endswith('set reduce_zero_label=False')


def test_reduced_and_little_is_dropped_but_only_the_last_class_is_missing():
    (line,) = warned({0: 100, 1: 100, 255: 10}, {0: 10, 1: 100, 2: 100})
    assert '0 is dropped (4.76 % of the pixels)' in line


def test_reduced_and_much_is_dropped():
    """Not all classes are seen, but 0 covers more than what nobody labelled usually does."""
    (line,) = warned({0: 100, 255: 60}, {0: 60, 1: 100})
    assert '0 is dropped (37.5 % of the pixels)' in line


def test_reduced_as_the_values_allow_but_much_is_dropped():
    """A label of its own for what is unlabelled, behind the classes: 0 is one of them."""
    (line,) = warned({0: 30, 1: 30, 2: 20, 255: 20}, {0: 20, 1: 30, 2: 30, 3: 20})
    assert line == (
        'reduce_zero_label: True found, and 0 is 20 % of the pixels, which are dropped; if 0 is a '
        'class of the files, set reduce_zero_label=False'
    )


def test_masks_of_0_and_255():
    (line,) = warned({0: 90, 255: 10}, names=['background', 'crack'])
    assert line.startswith('label maps: values 0 and 255 alone found: 255 (10 % of the pixels)')
    assert line.endswith('label_map={255: 1}) behind LoadAnnotations')


def test_most_is_ignored():
    (line,) = warned({0: 10, 1: 10, 2: 10, 255: 70})
    assert line.startswith('label maps: 70 % of the pixels are ignored (255); ')
    assert warned({0: 20, 1: 20, 2: 20, 255: 40}) == []


def test_an_ignored_value_that_is_a_class():
    (line,) = warned({0: 30, 1: 40, 2: 30}, ignored=(0, 255))
    assert line == (
        "ignore_index or seg_pad_val: 0 found, which is class 'sky' (30 % of the pixels): "
        'none of it counts; set it to 255'
    )


def test_jpegs():
    census = LabelCensus(4, {0: 50, 1: 40, 7: 10}, {}, 0, jpegs=3)
    (line,) = label_warnings(census, NAMES, [255])
    assert line.startswith('label maps: 3 JPEG files found among 4') and 'PNG' in line


def test_wide_ignored_values_pass():
    assert warned({0: 40, 1: 40, 2: 40, -1: 20}, ignored=(-1, 255)) == []
    (line,) = warned({0: 40, 1: 40, 2: 40, -1: 20})
    assert line.startswith('label maps: values -1 found')


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
    with pytest.raises(UserError, match=r'\.png: label value 0\.5 found, expected whole'):
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
    with pytest.raises(UserError, match="data_root: 'nowhere' found, expected an existing folder"):
        take_census(toy_cfg.train_dataloader.dataset, range)
