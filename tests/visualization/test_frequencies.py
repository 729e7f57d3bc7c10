"""The bars of classes: their lengths, their names, and pages of many classes."""

import numpy as np
import pytest

from mm_tuning_plugin.visualization import class_palette, frequency_bars
from mm_tuning_plugin.visualization.frequencies import percentage


def bars(count, pixels=None, nodes=None, names=None):
    even = np.full(count, 1 / count)
    names = names or [f'class {i}' for i in range(count)]
    pixels = even if pixels is None else pixels
    return frequency_bars(pixels, even if nodes is None else nodes, names, class_palette(count))


def test_lengths_grow_with_the_square_root():
    palette = class_palette(3)
    shares = [0.64, 0.32, 0.04]
    picture = frequency_bars([0, 0, 0], shares, ['a', 'b', 'c'], palette)
    widths = []
    for index, colour in enumerate(palette):
        rows = picture[58 + 30 * index :][:30]  # not the key, which has the same colours
        widths.append((rows == colour).all(axis=-1).sum(axis=1).max())
    assert widths == pytest.approx([230, 230 * (0.5**0.5), 230 / 4], abs=3)


def test_a_class_without_nodes_has_no_bar():
    palette = class_palette(2)
    picture = frequency_bars([0.5, 0.5], [1, 0], ['a', 'b'], palette)
    below = picture[58 + 30 :]
    assert not (below == palette[1]).all(axis=-1).any()


@pytest.mark.parametrize(('count', 'columns'), [(1, 1), (11, 1), (40, 1), (41, 2), (150, 4)])
def test_many_classes_make_columns(count, columns):
    height, width, _ = bars(count).shape
    depth = -(-count // columns)
    assert height == 58 + 30 * depth + 12
    assert width >= 290 * columns


def test_nothing_is_written_beyond_the_page():
    """The last columns of a page are its margin, whatever the names and figures."""
    names = ['a very long name of a class that nobody has room for'] * 50
    picture = bars(50, pixels=[0.9999] + [1e-6] * 49, names=names)
    assert (picture[:, -4:] >= 230).all() and (picture[:, :6] >= 230).all()
    assert (bars(1)[:, -4:] >= 230).all()


@pytest.mark.parametrize(
    ('share', 'text'),
    [(0, '0 %'), (4e-5, '<0.01 %'), (0.00123, '0.123 %'), (0.1234, '12.3 %'), (1, '100 %')],
)
def test_percentages(share, text):
    assert percentage(share) == text


@pytest.mark.parametrize(
    ('pixels', 'message'),
    [([0.5], r'pixel_shares: .*2.*\(1,\)'), ([0.5, 1.5], r'pixel_shares: .*\[0.5, 1.5\]'),
     ([float('nan'), 0], r'pixel_shares: .*nan')],
)  # fmt: skip
def test_errors_name_the_argument(pixels, message):
    with pytest.raises(ValueError, match=message):
        bars(2, pixels=pixels)
