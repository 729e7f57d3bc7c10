"""What of a large image is embedded: a window at its own scale; small ones stay as they are."""

import numpy as np
import pytest

from mm_tuning_plugin.datasets import CutLargeImage
from mm_tuning_plugin.datasets.large_images import MOST_PIXELS, window_size
from mm_tuning_plugin.datasets.wrappers import random_state


def image(height, width, labelled=()):
    """An image whose pixels say where they are; labels in the top left corner, wide and high."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint16)
    seg_map = np.full((height, width), 255, np.uint8)
    for label, (h, w) in enumerate(labelled):
        seg_map[: h // (label + 1), :w] = label
    return dict(img=np.stack([rows, columns], axis=2), gt_seg_map=seg_map)


@pytest.mark.parametrize(
    ('shape', 'crop', 'size'),
    [
        ((1024, 2048), (512, 1024), (1024, 2048)),
        ((1024, 2049), (512, 1024), (512, 1024)),
        ((3000, 3000), (769, 769), (769, 769)),
        ((300, 9000), (512, 512), (300, 512)),
        ((1500, 1500), (1600, 1600), (1500, 1500)),
        ((1600, 1600), (1600, 1600), (1600, 1600)),
        ((3000, 3000), None, (1448, 1448)),
        ((500, 8000), None, (362, 5792)),
    ],
)
def test_how_large_a_part_is_embedded(shape, crop, size):
    found = window_size(shape, crop)
    assert found == size
    assert found[0] * found[1] <= max(MOST_PIXELS, crop[0] * crop[1] if crop else 0)


@pytest.mark.parametrize('grey', [False, True])
def test_image_and_labels_are_cut_alike_at_their_own_scale_and_always_the_same(grey):
    found = []
    for _ in '12':
        results = image(1500, 1500, [(1500, 1500)])
        if grey:
            results['img'] = results['img'][..., 0]
        results['gt_seg_map'][::2] = 7
        with random_state(3):
            found.append(CutLargeImage([300, 400]).transform(results))
    cut, seg_map = found[0]['img'], found[0]['gt_seg_map']
    assert seg_map.shape == found[0]['img_shape'] == cut.shape[:2] == (300, 400)
    rows = cut if grey else cut[..., 0]
    assert (np.diff(rows[:, 0].astype(int)) == 1).all(), 'not shrunk'
    assert ((seg_map == 7) == (rows % 2 == 0)).all()
    assert np.array_equal(cut, found[1]['img'])


def test_a_window_with_many_classes_is_chosen():
    """Of an image most of which nobody labelled."""
    results, classes = image(2000, 2000, [(1000, 800), (1000, 800), (1000, 800)]), []
    for seed in range(8):
        with random_state(seed):
            cut = CutLargeImage([600, 600]).transform(dict(results))
        classes.append(len(set(np.unique(cut['gt_seg_map'])) - {255}))
    assert min(classes) >= 1 and np.mean(classes) > 2


def test_a_small_image_stays_and_draws_nothing():
    results = image(1024, 2048)
    before = dict(results)
    with random_state(1):
        state = np.random.get_state()[1].copy()
        assert CutLargeImage([8, 8]).transform(results) == before
        assert all(results[key] is before[key] for key in before)
        assert np.array_equal(np.random.get_state()[1], state)
