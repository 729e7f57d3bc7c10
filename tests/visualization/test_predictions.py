"""Prediction sheets: wrong pixels stand out, right ones fade, unlabelled ones are hatched."""

import numpy as np
import pytest

from mm_tuning_plugin.visualization import class_palette, prediction_sheet
from mm_tuning_plugin.visualization.predictions import error_map

PALETTE = np.array([[200, 0, 0], [0, 0, 200], [0, 160, 0]], np.uint8)
NAMES = ['a', 'b', 'c']
FADED = np.round(0.25 * PALETTE + 0.75 * 255).astype(np.uint8)
INK = (33, 33, 33)
TOP, LEFT, STEP = 48, 12, 328  # of the first cell; from column to column


def has(picture, colour):
    return (picture == np.asarray(colour)).all(axis=-1)


def example():
    image = np.full((320, 320, 3), 77, np.uint8)
    truth = np.zeros((320, 320), np.uint8)
    truth[:, 160:] = 1
    truth[300:] = 255
    wrong = np.where(truth == 255, 0, truth)
    wrong[100:200, 40:120] = 2
    return image, truth, wrong


def cell(picture, column, size=(320, 320), top=TOP):
    left = LEFT + column * STEP
    return picture[top : top + size[0], left : left + size[1]]


def sheet(images, truth, predictions, **options):
    return prediction_sheet(images, truth, predictions, PALETTE, NAMES, **options)


def test_each_column_shows_its_own():
    image, truth, wrong = example()
    right = np.where(truth == 255, 2, truth)
    picture = sheet([image], [truth], {'first': [wrong], 'second': [right]})
    assert picture.shape[1] == 4 * STEP - 8 + 24
    np.testing.assert_array_equal(cell(picture, 0), image)
    shown = cell(picture, 1)
    assert has(shown[:300, :160], PALETTE[0]).all() and has(shown[:300, 160:], PALETTE[1]).all()
    first, second = cell(picture, 2), cell(picture, 3)
    assert has(first[100:200, 40:120], PALETTE[2]).all()
    assert has(first, PALETTE[2]).sum() == 100 * 80
    assert has(first[:90, :160], FADED[0]).all() and has(first[:300, 160:], FADED[1]).all()
    assert has(first[99, 40:120], INK).all() and has(first[100:200, 120], INK).all()
    assert not has(second, PALETTE[2]).any() and not has(second, INK).any()
    for column in (1, 2, 3):
        greys = {tuple(c) for c in cell(picture, column)[300:].reshape(-1, 3).tolist()}
        assert greys == {(150, 150, 150), (205, 205, 205)}


def test_error_map_against_a_loop():
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 1, 2, 255], (12, 15), p=[0.5, 0.2, 0.2, 0.1])
    prediction = np.where(rng.random((12, 15)) < 0.7, truth % 255, rng.integers(0, 3, (12, 15)))
    picture = error_map(prediction, truth, PALETTE)
    wrong = (prediction != truth) & (truth != 255)
    for y, x in np.ndindex(12, 15):
        beside = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        touches = any(0 <= v < 12 and 0 <= u < 15 and wrong[v, u] for v, u in beside)
        if truth[y, x] == 255:
            expected = (205,) * 3 if (y + x) % 8 < 2 else (150,) * 3
        elif wrong[y, x]:
            expected = PALETTE[prediction[y, x]]
        else:
            expected = INK if touches else FADED[prediction[y, x]]
        np.testing.assert_array_equal(picture[y, x], expected)


def test_images_of_different_sizes_keep_their_proportions():
    sizes = [(100, 200), (640, 320), (32, 32), (1, 50)]
    images = [np.full((*size, 3), (77, 12, 99), np.uint8) for size in sizes]
    truth = [np.zeros(size, int) for size in sizes]
    picture = sheet(images, truth, {'arm': truth})
    shown = has(picture[:, LEFT : LEFT + 320], (77, 12, 99))
    assert shown.sum() == 320 * 160 + 160 * 320 + 320 * 320 + 320 * 6
    tall = shown[TOP + 160 + 22 :][:320]
    assert np.flatnonzero(tall.any(axis=0)).tolist() == list(range(80, 240))


def test_only_classes_present_are_in_the_legend():
    image, truth, wrong = example()
    legend = sheet([image], [truth], {'arm': [np.where(truth == 255, 0, truth)]})[TOP + 342 :]
    assert has(legend, PALETTE[1]).any() and not has(legend, PALETTE[2]).any()
    assert has(sheet([image], [truth], {'arm': [wrong]})[TOP + 342 :], PALETTE[2]).any()


def test_scores_stand_over_their_arm():
    image, truth, wrong = example()
    arms = {'first': [wrong], 'second': [wrong]}
    plain, scored = (
        sheet([image], [truth], arms),
        sheet([image], [truth], arms, scores={'second': 50.5}),
    )
    changed = np.argwhere((plain != scored).any(axis=-1))
    assert changed[:, 0].max() < TOP and changed[:, 1].min() >= LEFT + 3 * STEP
    assert changed[:, 1].max() < LEFT + 3 * STEP + 320


def test_long_names_of_arms_keep_to_their_columns():
    image, truth, wrong = example()
    picture = sheet([image], [truth], {'a name ' * 30: [wrong], 'b': [wrong]})
    assert (picture[:TOP, LEFT + 3 * STEP - 6 : LEFT + 3 * STEP] == 255).all()


def test_150_classes_and_another_ignore_index():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 150, (20, 30)).repeat(8, 0).repeat(8, 1)
    truth[:8] = -1
    image = np.zeros((160, 240, 3), np.uint8)
    names = [f'class {i}' for i in range(150)]
    arms = {'arm': [np.where(truth < 0, 3, truth)]}
    picture = prediction_sheet([image], [truth], arms, class_palette(150), names, ignore_index=-1)
    assert picture.shape[0] < 213 + 48 + 22 + 6 * 20 + 34 + 24 + 1


def test_an_image_without_labels_and_a_sheet_without_arms():
    image, truth, _ = example()
    nothing = np.full_like(truth, 255)
    picture = sheet([image], [nothing], {'arm': [np.zeros_like(truth)]})
    assert set(np.unique(cell(picture, 2))) == {150, 205}
    assert sheet([image], [truth], {}).shape[1] == 2 * STEP - 8 + 24
    tiny = np.zeros((1, 1), int)
    assert prediction_sheet([image[:1, :1]], [tiny], {'x': [tiny]}, [[1, 2, 3]], ['a']).ndim == 3


def test_the_same_sheet_twice_and_inputs_untouched():
    inputs = example()
    copies = [array.copy() for array in inputs]
    image, truth, wrong = inputs
    sheets = [sheet([image], [truth], {'arm': [wrong]}) for _ in range(2)]
    np.testing.assert_array_equal(*sheets)
    for array, copy in zip(inputs, copies):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'images': []}, 'images: .*none$'),
        ({'images': [np.zeros((4, 4))]}, r'images\[0\]: '),
        ({'truth': []}, 'truth: .*0$'),
        ({'truth': [np.zeros((4, 5), int)]}, r'truth\[0\]: .*shape \(4, 5\)'),
        ({'truth': [np.zeros((4, 4))]}, r'truth\[0\]: .*float64$'),
        ({'truth': [np.full((4, 4), 3)]}, r'truth\[0\]: .*3$'),
        ({'predictions': [[0]]}, 'predictions: .*list$'),
        ({'predictions': {'x': []}}, r"predictions\['x'\]: .*0$"),
        (
            {'predictions': {'x': [np.full((4, 4), 255)]}},
            r"predictions\['x'\]\[0\]: .*255$",
        ),
        ({'scores': {'y': 1.0}}, r"scores: .*'y'"),
        ({'cell': 63}, 'cell: .*63$'),
    ],
)
def test_errors(change, message):
    zeros = np.zeros((4, 4), int)
    given = {'images': [np.zeros((4, 4, 3), np.uint8)], 'truth': [zeros]}
    given |= {'predictions': {'x': [zeros]}, 'palette': PALETTE, 'class_names': NAMES}
    with pytest.raises(ValueError, match=message):
        prediction_sheet(**{**given, **change})
