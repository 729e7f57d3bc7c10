"""Retrieval galleries: right and wrong are told apart by frame and by mark."""

import numpy as np
import pytest

from mm_tuning_plugin.visualization import Neighbours, class_palette, retrieval_gallery
from mm_tuning_plugin.visualization import gallery as module
from mm_tuning_plugin.visualization.gallery import RIGHT, WRONG
from mm_tuning_plugin.visualization.palette import _seen, text_colour

NAMES = ['a', 'b', 'c']
PALETTE = [[250, 10, 10], [10, 250, 10], [10, 10, 250]]
FRAME = 80**2 - 72**2 - 2 * 17 * 4 + 4**2  # of a neighbour's tile, without what its mark covers


def area(picture, colour):
    return int((picture == np.asarray(colour)).all(axis=-1).sum())


def found(labels, shade=60):
    labels = np.asarray(labels)
    return Neighbours(np.full((*labels.shape, 9, 9, 3), shade, np.uint8), labels)


def draw(labels, panels, names=NAMES, palette=PALETTE, **options):
    queries = np.full((len(labels), 9, 9, 3), 60, np.uint8)
    return retrieval_gallery(queries, np.asarray(labels), panels, names, palette, **options)


@pytest.mark.parametrize('right', range(4))
def test_right_neighbours_are_framed_in_one_colour_and_wrong_ones_in_the_other(right):
    row = [1] * right + [2] * (3 - right)
    picture = draw([1], {'after': found([row])})
    empty = draw([1], {'after': found(np.zeros((1, 0), int))})
    for colour, count in ((RIGHT, right), (WRONG, 3 - right)):
        drawn = area(picture, colour) - area(empty, colour)  # without the key
        marks = count * 17**2
        assert count * FRAME + 0.4 * marks <= drawn <= count * FRAME + marks


def test_marks_differ_where_colours_are_not_seen(monkeypatch):
    monkeypatch.setattr(module, 'RIGHT', WRONG)
    same, other = draw([0], {'a': found([[0]])}), draw([0], {'a': found([[1]])})
    top = 58 + 80 - 17  # of the mark: behind the header, in the lower corner of the tile
    rows = slice(top, top + 17)
    assert (same[rows] != other[rows]).any()


def test_frames_are_told_apart_under_every_kind_of_sight():
    gaps = np.diff(_seen(np.array([RIGHT, WRONG])), axis=1)
    assert (np.linalg.norm(gaps, axis=-1) > 60).all()
    for colour in (RIGHT, WRONG):
        assert area(draw([0], {'a': found([[0, 1]])}), text_colour(colour))


def test_queries_and_neighbours_stand_in_order():
    shades = np.arange(100, 106, dtype=np.uint8).reshape(2, 3)
    patches = np.broadcast_to(shades[..., None, None, None], (2, 3, 9, 9, 3))
    picture = draw([0, 1], {'a': Neighbours(patches, np.zeros((2, 3), int))})
    places = [np.argwhere((picture == s).all(axis=-1)).mean(0) for s in shades.ravel()]
    middle = np.array(places).reshape(2, 3, 2)
    assert (np.diff(middle[..., 1], axis=1) > 80).all()
    assert (np.diff(middle[..., 0], axis=0) > 80).all()
    assert np.allclose(middle[0, :, 0], middle[0, 0, 0], atol=2)


def test_points_are_marked_in_the_middle():
    plain, marked = (draw([0], {'a': found([[0]])}, marked=m) for m in (False, True))
    changed = np.argwhere((plain != marked).any(axis=-1))
    assert len(changed) and np.ptp(changed[:, 0]) <= 15


def test_counts_and_scores_are_those_of_the_panel(texts):
    panels = {'before': found([[1, 0] * 3, [2, 2] * 3]), 'after': found([[0, 0] * 3, [1, 2] * 3])}
    draw([0, 1], panels, scores={'before': 0.25, 'after': 0.5})
    left = {text.get_text(): text.get_position()[0] for text in texts}
    assert left['3 of 12 shown have the class of their query'] == left['before']
    assert left['9 of 12 shown have the class of their query'] == left['after']
    assert left['recall@1 0.250'] < left['after'] < left['recall@1 0.500']


@pytest.mark.parametrize('num_classes', [11, 21, 150])
def test_many_classes_and_long_names_keep_inside_the_page(num_classes):
    names = [f'a class with a name that is long {i}' for i in range(num_classes)]
    labels = np.linspace(0, num_classes - 1, 12).astype(int)
    panels = {'x' * 90: found(np.zeros((12, 5), int)), 'y': found(np.ones((12, 5), int))}
    picture = draw(labels, panels, names, class_palette(num_classes), scores={'y': 0.5})
    edges = [picture[:8], picture[-8:], picture[:, :10], picture[:, -10:]]
    assert all((edge == 255).all() for edge in edges)


def test_without_queries():
    picture = draw([], {'a': found(np.zeros((0, 5), int))})
    assert picture.shape[0] < 120 and (picture < 100).any()


def test_errors():
    with pytest.raises(ValueError, match=r"panels\['a'\]: .*\(1, N\)"):
        draw([0], {'a': found([[0], [1]])})
    with pytest.raises(ValueError, match=r"panels\['a'\]: .*3$"):
        draw([0], {'a': found([[3]])})
    with pytest.raises(ValueError, match=r"panels\['a'\]: "):
        draw([0], {'a': Neighbours(np.zeros((1, 2, 4, 4, 3), np.uint8), np.zeros((1, 1), int))})
    with pytest.raises(ValueError, match=r"scores: .*'b'"):
        draw([0], {'a': found([[0]])}, scores={'b': 1.0})
    with pytest.raises(ValueError, match=r'labels: .*5$'):
        draw([5], {'a': found([[0]])})


def test_a_name_that_would_be_cut_off_is_written_smaller(texts):
    draw([0], {'a': found([[0, 1, 2]])}, names=['a', 'sign symbols', 'nothing of which fits here'])
    sizes = {text.get_text()[:10]: text.get_size() for text in texts}
    assert (sizes['sign symbo'], sizes['nothing of']) == (10, 9)
