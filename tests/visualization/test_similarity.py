"""Class-by-class cosines: the numbers against plain loops, and the picture of them."""

import matplotlib
import numpy as np
import pytest

from mm_tuning_plugin.visualization import class_palette, class_similarity, similarity_map
from mm_tuning_plugin.visualization import similarity as module


def by_loops(rows, labels, num_classes):
    result = np.full((num_classes, num_classes), np.nan)
    for a in range(num_classes):
        for b in range(num_classes):
            cosines = []
            for i in np.flatnonzero(labels == a):
                for j in np.flatnonzero(labels == b):
                    if i != j:
                        lengths = np.linalg.norm(rows[i]) * np.linalg.norm(rows[j])
                        cosines.append(rows[i] @ rows[j] / lengths if lengths else 0.0)
            if cosines:
                result[a, b] = np.mean(cosines)
    return result


@pytest.mark.parametrize('seed', range(5))
def test_as_plain_loops_have_it(seed):
    rng = np.random.default_rng(seed)
    rows, labels = rng.normal(size=(30, 4)), rng.integers(0, 6, 30)
    rows[rng.integers(0, 30, 3)] = 0
    labels[labels == 4] = 3  # a class without nodes
    labels[0], labels[labels == 5] = 5, 1  # and one of a single node
    labels[0] = 5
    similarity = class_similarity(rows, labels, 6)
    np.testing.assert_allclose(similarity, by_loops(rows, labels, 6), atol=1e-12)
    assert np.isnan(similarity[4]).all() and np.isnan(similarity[5, 5])
    np.testing.assert_array_equal(similarity, similarity.T)


def test_half_precision_and_the_order_of_nodes_do_not_matter():
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(40, 8)).astype(np.float32), rng.integers(0, 3, 40)
    order = rng.permutation(40)
    first = class_similarity(rows, labels, 3)
    np.testing.assert_allclose(first, class_similarity(rows[order], labels[order], 3), atol=1e-6)
    np.testing.assert_allclose(
        first, class_similarity(rows.astype(np.float16), labels, 3), atol=2e-3
    )


def test_without_nodes_and_errors():
    assert np.isnan(class_similarity(np.zeros((0, 4)), np.zeros(0, int), 3)).all()
    with pytest.raises(ValueError, match='embeddings: '):
        class_similarity(np.array([[np.nan]]), np.array([0]), 1)
    with pytest.raises(ValueError, match=r'labels: .*2$'):
        class_similarity(np.ones((1, 2)), np.array([2]), 2)
    with pytest.raises(ValueError, match=r'matrices: .*none$'):
        similarity_map({}, ['a'], [[0, 0, 0]])
    with pytest.raises(ValueError, match=r"matrices\['x'\]: .*\(2, 2\)"):
        similarity_map({'x': np.zeros((3, 3))}, ['a', 'b'], class_palette(2))


def matrix(num_classes, seed=0, absent=()):
    rng = np.random.default_rng(seed)
    values = rng.uniform(-0.2, 0.5, (num_classes, num_classes))
    values = (values + values.T) / 2
    np.fill_diagonal(values, 0.9)
    values[list(absent)] = values[:, list(absent)] = np.nan
    return values


@pytest.mark.parametrize('num_classes', [11, 21, 150])
def test_every_cell_has_the_colour_of_its_number_on_one_scale(num_classes):
    names = [f'class {i}' for i in range(num_classes)]
    matrices = {'before': matrix(num_classes), 'after': matrix(num_classes, 1) / 3}
    page = similarity_map(matrices, names, class_palette(num_classes))
    both = np.stack(list(matrices.values()))
    low, high = np.floor(both.min() * 10) / 10, np.ceil(both.max() * 10) / 10
    cell = next(side for most, side in module._CELLS if num_classes <= most)
    side = cell * num_classes
    top = page.shape[0] - 14 - round(74 * max(1, side / 900)) - side
    for place, values in enumerate(both):
        left = page.shape[1] - 14 - (2 - place) * side - (1 - place) * (8 + 26)
        wanted = matplotlib.colormaps['cividis']((values - low) / (high - low), bytes=True)
        corners = np.arange(num_classes) * cell + 1  # the letters are in the middle
        found = page[top + corners[:, None], left + corners]
        assert np.abs(found - wanted[..., :3].astype(int)).max() <= 1
    edges = [page[:8], page[-10:], page[:, :10], page[:, -10:]]
    assert all((edge == 255).all() for edge in edges)


@pytest.mark.parametrize(('num_classes', 'size'), [(11, 12), (21, 12), (150, 10)])
def test_names_are_large_enough_and_rows_do_not_touch(texts, num_classes, size):
    names = [f'{i} is a rather long name of a class' for i in range(num_classes)]
    similarity_map({'x': matrix(num_classes)}, names, class_palette(num_classes))
    named = [text for text in texts if ' is a ' in text.get_text() and '–' not in text.get_text()]
    columns = [text for text in named if text.get_rotation() == 90]
    assert len(named) == 2 * len(columns) == 2 * num_classes
    cell = next(side for most, side in module._CELLS if num_classes <= most)
    assert {text.get_size() for text in named} == {size} and size < cell
    assert all(max(text.get_window_extent().size) <= 151 for text in named)
    numbers = [text for text in texts if text.get_text() == '0.90']
    assert (len(numbers) >= num_classes) == (num_classes < 24)


def test_absent_classes_and_the_pairs_most_alike_are_named(told):
    values = matrix(5, absent=[2])
    values[1, 3] = values[3, 1] = 0.8
    values[4, 4] = np.nan  # of a single node
    similarity_map({'x': values}, list('abcde'), class_palette(5))
    texts = list(told())
    assert 'without a node (1): c' in texts
    assert next(t for t in texts if t.startswith('most alike')).startswith('most alike: b – d 0.80')
    assert 'c' not in texts and '–' in texts
    shown = [0, 1, 3, 4]
    between = np.mean([values[i, j] for i in shown for j in shown if i != j])
    assert f'within classes 0.90, between classes {between:.2f}' in texts


def test_all_absent_is_a_page_that_says_so(told):
    page = similarity_map({'x': np.full((3, 3), np.nan)}, list('abc'), class_palette(3))
    assert page.shape[0] < 200
    assert 'no class has nodes' in told()


def test_names_of_columns_read_upwards_from_their_column():
    values = matrix(2)
    pages = [
        similarity_map({'x': values}, ['i' * 40, name], class_palette(2)).astype(int)
        for name in ('', 'MMMMMM')
    ]
    changed = np.argwhere((pages[0] != pages[1]).any(axis=-1))
    column = changed[changed[:, 0] < pages[0].shape[0] - 74 - 14 - 2 * 46 - 8]
    assert np.ptp(column[:, 0]) > 2.5 * np.ptp(column[:, 1]) > 0


def test_titles_of_large_matrices_are_large(told):
    for count, title in ((21, 'few'), (150, 'many')):
        names = [f'class {i}' for i in range(count)]
        page = similarity_map({title: matrix(count)}, names, class_palette(count))
        assert all((edge == 255).all() for edge in (page[:8], page[:, :8], page[:, -8:]))
    assert (told()['few'].get_size(), told()['many'].get_size()) == (16, 32)
