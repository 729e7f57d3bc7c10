import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_tuning_plugin.datasets.labels import IGNORE, map_labels, usable_label_table
from mm_tuning_plugin.errors import UserError


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


@pytest.mark.parametrize('dtype', [np.uint8, np.int16, np.uint16, np.int32, np.int64])
def test_any_integer_type(dtype):
    seg_map = np.array([[0, 4, 255]], dtype=dtype)
    assert map_labels(seg_map, usable_label_table(5, []), 'a.png').tolist() == [[0, 4, 255]]


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
    with pytest.raises(UserError) as error:
        map_labels(np.array([values], dtype=dtype), table, 'ann/7.png')
    assert str(error.value) == (
        f'ann/7.png: label values {found} found, expected 0 to 2 or one of the ignored '
        '[100, 255]; is the number of classes or reduce_zero_label right?'
    )


def test_message_names_the_highest_usable_class():
    table = usable_label_table(5, [4])
    with pytest.raises(UserError, match=r'9 found, expected 0 to 3 or one of the ignored \[4, 255'):
        map_labels(np.array([[9]]), table, 'a.png')
