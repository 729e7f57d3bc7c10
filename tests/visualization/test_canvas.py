"""The canvas: exact pixels, text in its place, files whole or absent, no global state."""

import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from mm_tuning_plugin.visualization import save_image
from mm_tuning_plugin.visualization.canvas import Canvas, fit, resize, shorten, text_width
from mm_tuning_plugin.visualization.legend import Entry, draw_legend, plan_legend


@pytest.mark.parametrize('size', [(1, 1), (37, 101), (333, 7), (1001, 999)])
def test_pixels_come_back_as_they_were(size):
    canvas = Canvas(*size)
    canvas.pixels[:] = np.random.default_rng(0).integers(0, 256, (*size, 3))
    np.testing.assert_array_equal(canvas.render(), canvas.pixels)
    np.testing.assert_array_equal(canvas.render(), canvas.pixels)


def ink(picture):
    return np.argwhere((picture != 255).any(axis=-1))


@pytest.mark.parametrize('align', ['left', 'center', 'right'])
def test_text_lies_where_it_was_put(align):
    canvas = Canvas(60, 400)
    canvas.text(30, 200, 'EHEH', size=20, align=align)
    (top, left), (bottom, right) = ink(canvas.render()).min(0), ink(canvas.render()).max(0) + 1
    assert abs((top + bottom) / 2 - 30) <= 1
    width = text_width('EHEH', size=20)
    begin = {'left': 200, 'center': 200 - width / 2, 'right': 200 - width}[align]
    assert abs(left - begin) <= 4 and abs(right - begin - width) <= 4


def test_long_text_ends_in_an_ellipsis_within_its_width():
    canvas = Canvas(30, 400)
    canvas.text(15, 10, 'a very long class name ' * 9, max_width=120)
    assert ink(canvas.render())[:, 1].max() < 131
    assert shorten('a very long class name', 80).endswith('…')
    assert shorten('short', 80) == 'short' and shorten('short', 0) == '…'


@pytest.mark.parametrize('string', ['$x_$', '$\\frac', 'a\nb\tc', '中文', '\x00', '', '%&#\\'])
def test_any_string_is_one_plain_line(string, recwarn):
    canvas = Canvas(40, 300)
    canvas.text(20, 10, string, size=12)
    rows = ink(canvas.render())
    assert not len(rows) or np.ptp(rows[:, 0]) < 20
    assert not recwarn.list


def test_what_reaches_outside_is_cut_off():
    canvas = Canvas(10, 10)
    canvas.fill(-5, -5, 7, 7, (1, 2, 3))
    canvas.fill(8, 8, 50, 50, (1, 2, 3))
    canvas.fill(-7, 0, 5, 5, (9, 9, 9))
    canvas.fill(30, 0, 5, 5, (9, 9, 9))
    picture = canvas.render()
    assert (picture == (1, 2, 3)).all(axis=-1).sum() == 8
    assert not (picture == 9).any()


def test_resize_keeps_type_and_values():
    labels = np.array([[0, 200], [7, 3]], dtype=np.uint8)
    np.testing.assert_array_equal(resize(labels, 4, 4, 'nearest'), np.kron(labels, np.ones((2, 2))))
    assert resize(labels > 5, 4, 6, 'nearest').dtype == bool
    assert fit(100, 400, 50, 50) == (12, 50) and fit(1, 1000, 50, 50) == (1, 50)


def test_save_image_is_read_back_and_leaves_nothing_aside(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    target = tmp_path / 'new' / 'picture.png'
    save_image(str(target), rgb)
    np.testing.assert_array_equal(np.asarray(Image.open(target)), rgb)
    save_image(target, rgb[::-1])
    np.testing.assert_array_equal(np.asarray(Image.open(target)), rgb[::-1])
    save_image(tmp_path / 'picture.JPG', rgb)
    assert sorted(os.listdir(tmp_path / 'new')) == ['picture.png']


def test_a_failed_write_keeps_the_old_file_and_no_other(tmp_path, monkeypatch):
    target = tmp_path / 'picture.png'
    save_image(target, np.zeros((2, 2, 3), np.uint8))
    old = target.read_bytes()

    def fail(*args, **kwargs):
        raise OSError('disk full')

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='disk full'):
        save_image(target, np.ones((2, 2, 3), np.uint8))
    assert target.read_bytes() == old and os.listdir(tmp_path) == ['picture.png']


def test_save_image_errors(tmp_path):
    with pytest.raises(ValueError, match=r"path: expected a name ending in .*, got '.*x\.gif'"):
        save_image(tmp_path / 'x.gif', np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match=r'rgb: expected RGB .* got shape \(2, 2\), float64'):
        save_image(tmp_path / 'x.png', np.zeros((2, 2)))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize('count', [0, 1, 6, 11, 21, 150])
@pytest.mark.parametrize('marker', [None, 'o'])
def test_a_legend_keeps_to_its_place(count, marker):
    names = [f'class {i} ' + 'long ' * (i % 7 * 3) for i in range(count)]
    entries = [Entry(name, (200, 0, i), marker, order=i) for i, name in enumerate(names)]
    legend = plan_legend(entries[::-1], 700, max_rows=5)
    assert legend.height <= 100
    canvas = Canvas(140, 740)
    draw_legend(canvas, legend, 20, 20)
    places = ink(canvas.render())
    if count:
        assert places.min() >= 19 and places[:, 0].max() <= 121 and places[:, 1].max() <= 721
    shown = [entry.order for entry in legend.entries if entry.colour is not None]
    assert shown == sorted(shown)
    if count < 150:
        assert len(shown) == count
    else:
        assert legend.entries[-1].name == f'and {150 - len(shown)} more' and 149 in shown


def test_a_legend_in_next_to_no_width_is_one_column():
    legend = plan_legend([Entry('name', (0, 0, 0))] * 9, 5, max_rows=4)
    assert len(legend.entries) == 4 and legend.rows == 4


def test_the_users_settings_of_matplotlib_change_nothing():
    def draw():
        canvas = Canvas(60, 300)
        canvas.fill(0, 0, 9, 9, (1, 2, 3))
        canvas.text(20, 10, 'minus −1 $x$', bold=True)
        canvas.marker(40, 40, 's', 14, (9, 99, 199))
        axes = canvas.axes(0, 200, 60, 60)
        axes.scatter([0, 1], [0, 1], s=9, c=['r', 'b'])
        return canvas.render()

    plain = draw()
    settings = {
        'figure.dpi': 200,
        'figure.facecolor': 'red',
        'figure.autolayout': True,
        'text.usetex': True,
        'font.size': 40,
        'lines.linewidth': 7,
        'image.origin': 'lower',
    }
    with matplotlib.rc_context(settings):
        np.testing.assert_array_equal(draw(), plain)


def test_neither_pyplot_nor_a_display_nor_mmengine_is_needed():
    code = """
import sys
import numpy as np
from mm_tuning_plugin import visualization as vis
names, palette = ['a', 'b'], vis.class_palette(2)
image, labels = np.zeros((20, 30, 3), np.uint8), np.array([0, 1, 1])
boxes = np.array([[0, 0, 9, 9], [-3, 4, 9, 16], [5, 5, 12, 12]])
vis.node_sheet([image], [boxes], [labels], palette, names)
vis.embedding_map(np.eye(3), np.eye(3), labels, names, palette)
truth = np.zeros((20, 30), int)
vis.prediction_sheet([image], [truth], {'arm': [truth]}, palette, names)
bad = {'matplotlib.pyplot', 'tkinter', 'torch', 'mmengine', 'mmcv', 'mmseg'} & set(sys.modules)
assert not bad, bad
"""
    environment = {k: v for k, v in os.environ.items() if k not in ('DISPLAY', 'WAYLAND_DISPLAY')}
    environment['MPLBACKEND'] = 'TkAgg'
    done = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
