"""Embedding maps: the same points in the same colours on both sides."""

import numpy as np
import pytest

from mm_tuning_plugin.visualization import class_palette, embedding_map
from mm_tuning_plugin.visualization.embeddings import _project, _turned, thin_out

PANELS = (slice(14, 534), slice(548, 1068))  # columns
ROWS = slice(52, 572)


def has(picture, colour):
    return (picture == np.asarray(colour)).all(axis=-1)


def draw(before, after, labels, num_classes=3, **options):
    names = [f'class {i}' for i in range(num_classes)]
    return embedding_map(before, after, labels, names, class_palette(num_classes), **options)


def clusters(num_classes, per_class, seed=0, spread=0.1):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), per_class)
    centres = rng.normal(size=(num_classes, 6))
    return centres[labels] + spread * rng.normal(size=(len(labels), 6)), labels


@pytest.mark.parametrize('method', ['pca', 'tsne'])
def test_a_class_has_its_colour_in_both_panels_and_the_legend(method):
    before, labels = clusters(3, 6, spread=1.0)
    after, _ = clusters(3, 6, seed=1)
    picture = draw(before, after, labels, method=method)
    assert picture.dtype == np.uint8 and picture.shape[1:] == (1082, 3)
    for colour in class_palette(3):
        for columns in PANELS:
            assert has(picture[ROWS, columns], colour).sum() > 6 * 20
        assert has(picture[572:], colour).sum() > 40


def test_every_point_is_drawn_once_in_each_panel():
    places = np.array([[0.0, 0], [4, 0], [0, 3], [4, 3], [2, 1]])
    picture = draw(places, places[::-1], np.array([0, 0, 0, 1, 1]))
    for columns in PANELS:
        disc = has(picture[ROWS, columns], class_palette(3)[0]).sum() / 3
        other = has(picture[ROWS, columns], class_palette(3)[1]).sum() / 2
        assert 40 < disc < 95 and abs(disc - other) < 8


@pytest.mark.parametrize('num_classes', [6, 11, 21, 150])
def test_the_legend_names_every_class_and_does_not_swamp_the_maps(num_classes, told):
    before, labels = clusters(num_classes, 3)
    picture = draw(before, before, labels, num_classes)
    assert {f'class {i}' for i in range(num_classes)} <= set(told())
    assert picture.shape[0] <= (720 if num_classes < 50 else 1050)


def test_both_axes_have_one_scale_and_all_points_lie_inside():
    places = np.array([[-100.0, 0], [100, 0], [0, 1], [0, -1]])
    picture = draw(places, places, np.array([0, 0, 1, 1]))
    panel = picture[ROWS, PANELS[0]]
    xs = np.argwhere(has(panel, class_palette(3)[0]))
    assert np.ptp(xs[:, 1]) > 460 and np.ptp(xs[:, 0]) < 20
    assert xs[:, 1].min() > 4 and xs[:, 1].max() < 516


def extents(picture):
    """Width and height that the points of both panels cover, pixels."""
    panels = [picture[ROWS, columns] for columns in PANELS]
    found = [np.argwhere((panel[5:-5, 5:-5] < 245).any(axis=-1)) for panel in panels]
    return np.array([np.ptp(places, axis=0) for places in found])


@pytest.mark.parametrize(('times', 'enlarged'), [(1, 1), (2.5, 1), (4.4, 4), (0.2, 5)])
def test_both_panels_have_one_scale_or_say_so(times, enlarged, texts):
    places = np.random.default_rng(0).uniform(-1, 1, (40, 2))
    left, right = extents(draw(places, times * places, np.zeros(40, int)))
    ratio = times * enlarged if times < 1 else times / enlarged
    np.testing.assert_allclose((right - 11) / (left - 11), ratio, rtol=0.05)
    told = [text.get_text() for text in texts if 'PCA' in text.get_text()]
    assert [f'enlarged {enlarged} times' in note for note in told] == [
        enlarged > 1 and times > 1, enlarged > 1 and times < 1
    ]  # fmt: skip


def test_the_right_map_is_turned_towards_the_left_one_and_keeps_its_distances():
    draws = np.random.default_rng(0)
    places = draws.normal(size=(30, 2)) * [3, 1]
    turn = np.linalg.qr(draws.normal(size=(2, 2)))[0] @ np.diag([1, -1])
    np.testing.assert_allclose(_turned(places @ turn, places), places - places.mean(0), atol=1e-9)
    moved = _turned(places**2, places)
    for one in (0, 7):
        np.testing.assert_allclose(
            np.linalg.norm(moved - moved[one], axis=1),
            np.linalg.norm(places**2 - places[one] ** 2, axis=1),
        )


def test_projection_is_pca():
    embeddings = np.random.default_rng(0).normal(size=(40, 5)) * [9, 5, 1, 1, 1]
    places, note = _project(embeddings, 'pca', 0)
    centred = embeddings - embeddings.mean(0)
    values = np.linalg.svd(centred, compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(places, axis=0), values[:2])
    assert note == f'PCA, {100 * (values[:2] ** 2).sum() / (values**2).sum():.0f} % of the variance'


def test_thinning_is_even_and_keeps_the_classes_shares():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [6000, 3000, 1000]))
    kept = thin_out(labels, 1000)
    assert len(kept) == 1000 and (np.diff(kept) > 0).all()
    assert np.bincount(labels[kept]).tolist() == [600, 300, 100]
    np.testing.assert_array_equal(thin_out(labels[:5], 5), np.arange(5))
    for n in (6, 7, 11):
        assert len(set(thin_out(np.zeros(n, int), 5).tolist())) == 5


@pytest.mark.parametrize('method', ['pca', 'tsne'])
def test_the_same_map_twice_and_no_global_random_state(method):
    before, labels = clusters(3, 20)
    np.random.seed(3)
    state = np.random.get_state()[1].copy()
    maps = [draw(before, before, labels, method=method, max_points=12) for _ in range(2)]
    np.testing.assert_array_equal(*maps)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_tsne_of_single_numbers_depends_on_the_seed_alone():
    column = np.array([[1.0], [2], [5], [3], [9], [4]])
    first, again, other = (_project(column, 'tsne', seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_many_points_are_small():
    places, labels = np.zeros((1500, 2)), np.zeros(1500, int)
    places[0], labels[0] = 1, 1
    few, many = (draw(places[:n], places[:n], labels[:n])[ROWS, PANELS[0]] for n in (2, 1500))
    assert has(few, class_palette(3)[1]).sum() > 1.5 * has(many, class_palette(3)[1]).sum() > 10


def test_scores_and_titles_are_written():
    before, labels = clusters(3, 4)
    plain = draw(before, before, labels)
    scored = draw(before, before, labels, scores=(0.4, 0.75))
    assert (plain[:30, 380:534] == 255).all() and (scored[:30, 380:534] != 255).any()
    named = draw(before, before, labels, titles=('x' * 400, ''), scores=(0.4, 0.75))
    assert (named[:30, 350:400] == 255).all(axis=(0, 2)).any()


@pytest.mark.parametrize(
    'embeddings',
    [
        np.zeros((0, 4)),
        np.zeros(0),
        np.ones((1, 4)),
        np.full((7, 4), 0.1),
        np.full((7, 4), 1e30),
        np.array([[1.0], [2], [5], [3], [9], [4]]),
        np.eye(2),
        np.eye(4),
        np.eye(5),
        np.array([[0, 1], [2, 3], [9, 9]]),
    ],
    ids=['none', 'flat', 'one', 'same', 'large', 'D=1', 'two', 'four', 'five', 'integers'],
)
def test_edges(embeddings, recwarn):
    labels = np.arange(len(embeddings)) % 3
    picture = draw(embeddings, embeddings, labels)
    drawn = [has(picture[ROWS, PANELS[1]], colour).any() for colour in class_palette(3)]
    assert any(drawn) == bool(len(labels))
    if embeddings.ndim == 2:
        places, note = _project(embeddings.astype(float), 'tsne', 0)
        assert places.shape == (len(labels), 2) and np.isfinite(places).all()
        assert (note == 't-SNE') == (len(labels) >= 5 and np.ptp(embeddings) > 0)
    assert not [w for w in recwarn.list if issubclass(w.category, RuntimeWarning)]


def test_before_and_after_may_have_different_widths():
    assert draw(np.eye(3), np.ones((3, 1)), [0, 1, 2]).shape[1] == 1082


def test_identical_embeddings_lie_in_the_middle():
    picture = draw(np.ones((5, 3)), np.ones((5, 3)), [0] * 5)
    places = np.argwhere(has(picture[ROWS, PANELS[0]], class_palette(3)[0]))
    np.testing.assert_allclose(places.mean(0), (259.5, 259.5), atol=1)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'before': np.zeros((3, 2, 2))}, r'before: .*shape'),
        ({'before': np.zeros((3, 0))}, r'before: .*shape \(3, 0\)'),
        ({'before': np.array([['a']] * 3)}, 'before: '),
        ({'after': np.zeros((2, 2))}, r'after: .*shape \(2, 2\)'),
        ({'after': np.full((3, 2), np.nan)}, 'after: .*3 rows$'),
        ({'labels': [0, 1]}, r'labels: .*\(3,\)'),
        ({'labels': [0, 1, 255]}, r'labels: .*255$'),
        ({'method': 'umap'}, "method: .*'umap'$"),
        ({'max_points': 0}, 'max_points: .*0$'),
        ({'titles': ('a',)}, 'titles: .*1$'),
        ({'scores': (0.5,)}, 'scores: .*1$'),
        ({'scores': 0.5}, 'scores: .*0.5$'),
    ],
)
def test_errors(change, message):
    given = {'before': np.eye(3), 'after': np.eye(3), 'labels': [0, 1, 0]}
    given |= {'class_names': ['a', 'b'], 'palette': class_palette(2)}
    with pytest.raises(ValueError, match=message):
        embedding_map(**{**given, **change})
