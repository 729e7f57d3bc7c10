"""Class colours: distinct, deterministic, and readable under text."""

import numpy as np
import pytest

from mm_tuning_plugin.visualization import class_palette, text_colour
from mm_tuning_plugin.visualization.palette import _seen


@pytest.mark.parametrize('num_classes', [1, 6, 11, 21, 150])
def test_made_colours_are_distinct_and_begin_every_longer_palette(num_classes):
    palette = class_palette(num_classes)
    assert palette.shape == (num_classes, 3) and palette.dtype == np.uint8
    assert len(np.unique(palette, axis=0)) == num_classes
    np.testing.assert_array_equal(palette, class_palette(150)[:num_classes])


def test_neighbouring_colours_differ_to_every_eye():
    def gaps(num_classes):
        seen = _seen(class_palette(num_classes))
        apart = np.linalg.norm(seen[:, :, None] - seen[:, None], axis=-1)
        return (apart + 1e9 * np.eye(num_classes)).min(axis=(1, 2))  # per kind of vision

    assert (gaps(11) > 12).all()
    assert gaps(150)[0] > 10


def test_greys_are_left_to_what_has_no_class():
    palette = class_palette(150).astype(int)
    assert (palette.max(axis=1) - palette.min(axis=1)).min() > 15


def test_a_result_can_be_written_to_without_changing_the_next():
    class_palette(5)[:] = 0
    assert class_palette(5).any()


def test_more_colours_than_can_be_made_repeat():
    palette = class_palette(2003)
    np.testing.assert_array_equal(palette[2000:], palette[:3])


def test_a_given_palette_is_kept():
    given = [[0, 0, 0], [255, 1, 2]]
    np.testing.assert_array_equal(class_palette(2, given), given)
    np.testing.assert_array_equal(class_palette(2, []), class_palette(2))


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ((0,), 'num_classes: .*0$'),
        ((2.0,), 'num_classes: .*2.0$'),
        ((True,), 'num_classes: .*True$'),
        ((3, [[0, 0, 0]]), r'given: .*shape \(1, 3\)'),
        ((1, [[0, 0, 256]]), 'given: .*256$'),
        ((1, [[0, 0, 0.5]]), 'given: .*0.5$'),
        ((1, [[0, 0, float('nan')]]), 'given: .*nan$'),
        ((1, ['red']), r"given: .*\(1, 3\).*'red'"),
    ],
)
def test_errors(args, message):
    with pytest.raises(ValueError, match=message):
        class_palette(*args)


def test_text_colour_has_the_higher_contrast():
    assert text_colour((255, 255, 255)) == text_colour((240, 228, 66)) == (0, 0, 0)
    assert text_colour((0, 0, 0)) == text_colour((0, 0, 255)) == (255, 255, 255)
    assert text_colour((118, 118, 118)) == (0, 0, 0)  # 4.54 on black text, 4.54 on white: a tie
