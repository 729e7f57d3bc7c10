"""What pictures share: exact pixels, text in its place, legends, files, no global state."""

import os
import subprocess
import sys
from functools import partial

import matplotlib
import numpy as np
import pytest
from mistakes import mistake
from PIL import Image

from mm_tuning_plugin import visualization as vis
from mm_tuning_plugin.visualization import save_image
from mm_tuning_plugin.visualization.drawing import (
    Entry,
    draw_legend,
    drawing,
    mark,
    pixel_axes,
    shorten,
    text_width,
    write,
)
from mm_tuning_plugin.visualization.images import blank, frame, resize


@pytest.mark.parametrize('size', [(1, 1), (37, 101), (333, 7), (1001, 999)])
def test_pixels_come_back_as_they_were(size):
    page = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    before = page.copy()
    with drawing(page):
        pass
    np.testing.assert_array_equal(page, before)


def ink(picture):
    return np.argwhere((picture != 255).any(axis=-1))


@pytest.mark.parametrize('align', ['left', 'center', 'right'])
def test_text_lies_where_it_was_put(align):
    page = blank(60, 400)
    with drawing(page) as figure:
        write(figure, 200, 30, 'EHEH', 20, ha=align)
    (top, left), (bottom, right) = ink(page).min(0), ink(page).max(0) + 1
    assert abs((top + bottom) / 2 - 30) <= 1
    width = text_width('EHEH', 20)
    begin = {'left': 200, 'center': 200 - width / 2, 'right': 200 - width}[align]
    assert abs(left - begin) <= 4 and abs(right - begin - width) <= 4


def test_text_that_reads_upwards_begins_at_its_place():
    page = blank(200, 60)
    with drawing(page) as figure:
        write(figure, 30, 180, 'EHEHEH', 20, rotation=90)
    (top, left), (bottom, right) = ink(page).min(0), ink(page).max(0) + 1
    assert abs((left + right) / 2 - 30) <= 1 and 175 < bottom <= 180
    assert abs(bottom - top - text_width('EHEHEH', 20)) <= 5


def test_long_text_ends_in_an_ellipsis_within_its_width():
    page = blank(30, 400)
    with drawing(page) as figure:
        write(figure, 10, 15, 'a very long class name ' * 9, room=120)
    assert ink(page)[:, 1].max() < 131
    assert shorten('a very long class name', 80).endswith('…')
    assert shorten('short', 80) == 'short' and shorten('short', 0) == '…'


@pytest.mark.parametrize('string', ['$x_$', '$\\frac', 'a\nb\tc', '中文', '\x00', '', '%&#\\'])
def test_any_string_is_one_plain_line(string, recwarn):
    page = blank(40, 300)
    with drawing(page) as figure:
        write(figure, 10, 20, string, 12)
    rows = ink(page)
    assert not len(rows) or np.ptp(rows[:, 0]) < 20
    assert not recwarn.list


def test_axes_have_the_pages_pixels_as_their_units():
    page = blank(50, 80)
    with drawing(page) as figure:
        axes = pixel_axes(figure)
        axes.scatter([20], [10], s=64, c='k', marker='s', linewidths=0)
        mark(figure, 60, 40, 's', 8, (0, 0, 0))
    for rows, columns, middle in ((slice(0, 25), slice(0, 40), (10, 20)),
                                  (slice(25, 50), slice(40, 80), (15, 20))):  # fmt: skip
        places = ink(page[rows, columns])
        np.testing.assert_allclose(places.mean(0) + 0.5, middle, atol=0.6)


def test_a_frame_is_cut_off_at_the_edges():
    page = blank(10, 10)
    for box in ((-5, -5, 2, 2), (8, 8, 58, 58), (-7, 0, -2, 5), (30, 0, 35, 5)):
        frame(page, box, 1, (1, 2, 3))
    assert (page == (1, 2, 3)).all(axis=-1).sum() == 3 + 3


def test_resize_keeps_type_and_values():
    labels = np.array([[0, 200], [7, 3]], dtype=np.uint8)
    np.testing.assert_array_equal(resize(labels, 4, 4, 'nearest'), np.kron(labels, np.ones((2, 2))))
    assert resize(labels > 5, 4, 6, 'nearest').dtype == bool


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
    with mistake(str(target), 'disk full'):
        save_image(target, np.ones((2, 2, 3), np.uint8))
    assert target.read_bytes() == old and os.listdir(tmp_path) == ['picture.png']


def test_save_image_errors(tmp_path):
    with pytest.raises(ValueError, match=r"path: .*'.*x\.gif'"):
        save_image(tmp_path / 'x.gif', np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match=r'rgb: .*shape \(2, 2\), float64'):
        save_image(tmp_path / 'x.png', np.zeros((2, 2)))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize('count', [0, 1, 6, 11, 21, 150])
@pytest.mark.parametrize('marker', [None, 'o'])
def test_a_legend_keeps_to_its_place(count, marker, texts):
    names = [f'class {i} ' + 'long ' * (i % 7 * 3) for i in range(count)]
    entries = [Entry(i, name, (200, 0, i), marker) for i, name in enumerate(names)]
    strip = draw_legend(entries[::-1], 740, margin=20, max_rows=5)
    assert strip.shape[0] <= 140 and strip.shape[1] == 740
    shown = [int(text.get_text().split()[1]) for text in texts if text.get_text()[:3] == 'cla']
    assert shown == sorted(shown)
    if count:
        places = ink(strip)
        assert places.min() >= 19 and places[:, 0].max() <= 121 and places[:, 1].max() <= 721
        for label in {shown[0], shown[-1]}:
            assert (strip == (200, 0, label)).all(axis=-1).sum() > 50
    if count < 150:
        assert len(shown) == count
    else:
        assert texts[-1].get_text() == f'and {150 - len(shown)} more' and 149 in shown


def test_a_legend_in_next_to_no_width_is_one_column(texts):
    strip = draw_legend([Entry(0, 'name', (0, 0, 0))] * 9, 5, margin=0, max_rows=4)
    assert strip.shape[0] == 4 * 20 and [text.get_text() for text in texts][3:] == ['and 6 more']


def pictures(num_classes):
    """Every kind of picture of a number of classes with long names, by name."""
    draws = np.random.default_rng(0)
    names = [f'class {i} ' + 'of a long name'[: i % 15] for i in range(num_classes)]
    palette = vis.class_palette(num_classes)
    image = draws.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    truth = draws.integers(0, num_classes, (12, 16)).repeat(10, 0).repeat(10, 1)
    truth[:10] = 255
    labels = np.arange(num_classes)
    patches = draws.integers(0, 256, (num_classes, 16, 16, 3), dtype=np.uint8)
    corners = draws.integers(0, 100, (num_classes, 2))
    rows = draws.normal(size=(num_classes, 8))
    matrix = vis.class_similarity(rows, labels, num_classes)
    found = vis.Neighbours(patches[:12, None].repeat(5, 1), labels[:12, None].repeat(5, 1))
    shares = np.full(num_classes, 1 / num_classes)
    drawn = {
        'overlay': partial(vis.node_overlay, image, corners, labels, palette, names),
        'mosaic': partial(vis.patch_mosaic, patches, labels, names, palette),
        'sheet': partial(vis.node_sheet, [image], [corners], [labels], palette, names),
        'embedding': partial(vis.embedding_map, rows, -rows, labels, names, palette),
        'gallery': partial(
            vis.retrieval_gallery, patches[:12], labels[:12], {'x': found}, names, palette
        ),
        'similarity': partial(vis.similarity_map, {'a': matrix, 'b': matrix}, names, palette),
        'predictions': partial(
            vis.prediction_sheet, [image], [truth], {'arm': [truth % num_classes]}, palette, names
        ),
        'frequencies': partial(vis.frequency_bars, shares, shares, names, palette),
    }
    return drawn


KINDS = list(pictures(2))


@pytest.mark.parametrize('num_classes', [11, 21, 150])
@pytest.mark.parametrize('kind', KINDS)
def test_no_line_is_cut_at_the_edge_or_written_over_another(kind, num_classes, texts):
    pictures(num_classes)[kind]()
    assert texts
    for figure in {text.figure for text in texts}:
        own = [text for text in texts if text.figure is figure and text.get_text()]
        boxes = np.array([text.get_window_extent().extents for text in own]).T
        x0, y0, x1, y1 = boxes + np.array([[1.5], [2], [-1.5], [-2]])
        assert min(x0.min(), y0.min()) >= 0
        assert x1.max() <= figure.bbox.width and y1.max() <= figure.bbox.height
        over = (x0[:, None] < x1) & (x0 < x1[:, None]) & (y0[:, None] < y1) & (y0 < y1[:, None])
        np.fill_diagonal(over, False)
        assert not over.any(), [own[i].get_text() for i in np.argwhere(over)[0]]


@pytest.mark.parametrize('kind', KINDS)
def test_the_users_settings_of_matplotlib_change_nothing_and_stay(kind):
    plain = pictures(11)[kind]()
    settings = {
        'figure.dpi': 200,
        'figure.facecolor': 'red',
        'figure.autolayout': True,
        'text.usetex': True,
        'font.size': 40,
        'lines.linewidth': 7,
        'scatter.edgecolors': 'red',
        'image.origin': 'lower',
    }
    with matplotlib.rc_context(settings):
        before = dict(matplotlib.rcParams)
        np.testing.assert_array_equal(pictures(11)[kind](), plain)
        assert dict(matplotlib.rcParams) == before


def run(code, **environment):
    kept = {k: v for k, v in os.environ.items() if k not in ('DISPLAY', 'WAYLAND_DISPLAY')}
    done = subprocess.run(
        [sys.executable, '-c', code],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


ALL = """
import sys
import numpy as np
from mm_tuning_plugin import visualization as vis
from mm_tuning_plugin.errors import UserError
assert 'matplotlib' not in sys.modules
names, palette = ['a', 'b'], vis.class_palette(2)
image, labels = np.zeros((20, 30, 3), np.uint8), np.array([0, 1, 1])
boxes = np.array([[0, 0, 9, 9], [-3, 4, 9, 16], [5, 5, 12, 12]])
truth = np.zeros((20, 30), int)
matrix = vis.class_similarity(np.eye(3), labels, 2)
for draw in (
    lambda: vis.node_sheet([image], [boxes], [labels], palette, names),
    lambda: vis.embedding_map(np.eye(3), np.eye(3), labels, names, palette),
    lambda: vis.similarity_map({'x': matrix}, names, palette),
    lambda: vis.prediction_sheet([image], [truth], {'arm': [truth]}, palette, names),
):
"""


def test_neither_pyplot_nor_a_display_nor_mmengine_is_needed():
    code = """    draw()
bad = {'matplotlib.pyplot', 'tkinter', 'torch', 'mmengine', 'mmcv', 'mmseg'} & set(sys.modules)
assert not bad, bad
"""
    run(ALL + code, MPLBACKEND='TkAgg')


def test_without_matplotlib_drawing_says_what_to_install():
    code = """    sys.modules['matplotlib'] = None
    try:
        draw()
    except UserError as error:
        assert error.where == 'report' and 'matplotlib' in error.problem
        assert "'mm_tuning_plugin[report]'" in error.remedy
        print('told')
"""
    assert run(ALL + code).split() == ['told'] * 4
