import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mistakes import mistake

from mm_tuning_plugin.datasets.label_values import (
    IGNORE,
    as_integers,
    map_labels,
    usable_label_table,
)


def expected(value, num_classes, ignore_values):
    """What the rule says of one value, -1 where it is a mistake."""
    if value == 255 or value in ignore_values:
        return IGNORE
    return value if 0 <= value < num_classes else -1


@given(
    num_classes=st.integers(1, 300),
    ignore_values=st.lists(st.integers(-300, 400), max_size=4),
)
def test_every_value_follows_the_rule(num_classes, ignore_values):
    table = usable_label_table(num_classes, ignore_values)
    assert table.shape == (256,)
    assert table.tolist() == [expected(v, num_classes, ignore_values) for v in range(256)]


def test_maps_values_to_classes_and_255():
    # 2 lies inside the range of the classes and is ignored all the same
    table = usable_label_table(4, [2, 200, -100])
    seg_map = np.array([[0, 1, 2], [3, 200, 255]], dtype=np.uint8)
    mapped = map_labels(seg_map, table, 'a.png')
    assert mapped.dtype == np.int16
    assert mapped.tolist() == [[0, 1, 255], [3, 255, 255]]
    assert seg_map[0, 2] == 2, 'the input is not changed'


TYPES = ['u1', 'u2', 'u4', 'u8', 'i1', 'i2', 'i4', 'i8', 'f2', 'f4', 'f8', '>i4', '>f4']


@given(
    kind=st.sampled_from(TYPES),
    values=st.lists(st.integers(-130, 400), min_size=1, max_size=6),
    num_classes=st.integers(1, 255),
    ignore_values=st.lists(st.integers(-130, 400), max_size=3),
)
def test_any_type_is_read_as_packing_casts_it(kind, values, num_classes, ignore_values):
    # what a type cannot hold becomes another value before anybody sees it
    seg_map = np.array([values], dtype=np.int64).astype(kind)
    cast = seg_map.astype(np.int64)[0].tolist()
    rule = [expected(value, num_classes, ignore_values) for value in cast]
    table = usable_label_table(num_classes, ignore_values)
    if -1 in rule:
        lowest = min(v for v, r in zip(cast, rule) if r < 0)
        with mistake('a.png', re.compile(f' {lowest}\\b')):
            map_labels(seg_map, table, 'a.png', ignore_values)
    else:
        mapped = map_labels(seg_map, table, 'a.png', ignore_values)
        assert mapped.dtype == np.int16 and mapped.tolist() == [rule]


def test_wide_ignored_values():
    table, ignored = usable_label_table(3, [-1, 65535, 70000]), [-1, 65535, 70000]
    seg_map = np.array([[0, -1, 65535, 2, 70000, 255]])
    assert map_labels(seg_map, table, 'a', ignored).tolist() == [[0, 255, 255, 2, 255, 255]]
    high = np.array([[0, 2**64 - 1]], dtype=np.uint64)  # -1 as a 64-bit integer with a sign
    assert map_labels(high, table, 'a', ignored).tolist() == [[0, 255]]
    with mistake('a', (' -2, 70001 ', '[-1, 255, 65535, 70000]'), 'reduce_zero_label'):
        map_labels(np.array([[-2, 70001]]), table, 'a', ignored)


def test_masks_of_true_and_false():
    mask = np.array([[True, False]])
    assert map_labels(mask, usable_label_table(2, []), 'a').tolist() == [[1, 0]]
    assert as_integers(mask, 'a').dtype == np.uint8


@pytest.mark.parametrize('wrong', [0.5, 1e-3, 254.99, np.nan, np.inf, -np.inf, 1e30])
def test_fractions_are_a_mistake(wrong):
    seg_map = np.array([[0.0, 1.0, wrong]], dtype=np.float32)
    with mistake('ann/3.npy', f'{np.float32(wrong):g}', 'whole numbers'):
        map_labels(seg_map, usable_label_table(255, []), 'ann/3.npy')


@pytest.mark.parametrize('kind', ['c8', 'U1', object])
def test_what_is_no_number_is_a_mistake(kind):
    with mistake('a', str(np.dtype(kind)), 'integers'):
        map_labels(np.zeros((2, 2)).astype(kind), usable_label_table(2, []), 'a')


def test_empty_map():
    mapped = map_labels(np.empty((0, 3), dtype=np.uint8), usable_label_table(5, []), 'a.png')
    assert mapped.shape == (0, 3)


@pytest.mark.parametrize(
    ('values', 'dtype', 'found'),
    [
        ([0, 3], np.uint8, '3'),  # the first value behind the classes
        ([-1, 0], np.int64, '-1'),
        ([256, 0], np.uint16, '256'),  # would be class 0 in a byte
        ([511, 0], np.uint16, '511'),  # would be ignored in a byte
        ([-1, 7, 254, 300], np.int32, '-1, 7, 254, 300'),
        (list(range(10, 20)), np.uint8, '10, 11, 12, 13, 14, ... (10 values)'),
    ],
)
def test_anything_else_is_a_mistake(values, dtype, found):
    table = usable_label_table(3, [100])
    with mistake('ann/7.png', (f' {found} ', ' 0 to 2 ', '[100, 255]'), 'reduce_zero_label'):
        map_labels(np.array([values], dtype=dtype), table, 'ann/7.png')


def test_message_names_the_highest_usable_class():
    table = usable_label_table(5, [4])
    with mistake('a.png', (' 9 ', ' 0 to 3 ', '[4, 255]')):
        map_labels(np.array([[9]]), table, 'a.png')
