"""The overview picture: made by the package, again and alike, of what the method really draws."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import overview
import overview_scene
import pytest
import torch
from PIL import Image

from mm_tuning_plugin.functional import recall_at_k
from mm_tuning_plugin.visualization.palette import _seen

FILE = Path(__file__).parents[2] / 'docs' / 'pictures' / 'overview.png'


class Tuned(NamedTuple):
    """What the toy gave while the picture was drawn."""

    outcome: tuple
    cut: list  # streets that patches were cut out of, by call
    states: tuple  # of torch's generator, before and after


@pytest.fixture(scope='module')
def drawn():
    """The picture, and of how the toy was tuned for it."""
    torch.set_num_threads(1)
    seen, cut = [], []
    tune, cut_patches = overview_scene.tune_toy, overview_scene.cut_patches

    def tune_toy():
        torch.manual_seed(99)
        before = torch.get_rng_state()
        seen.append((tune(), before, torch.get_rng_state()))
        return seen[-1][0]

    def cut_and_kept(*given, **more):
        cut.append(given[0])
        return cut_patches(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        for module in (overview_scene, overview):
            patch.setattr(module, 'tune_toy', tune_toy)
        patch.setattr(overview_scene, 'cut_patches', cut_and_kept)
        picture = overview.draw_overview()
    ((outcome, *states),) = seen
    return picture, Tuned(outcome, cut, tuple(states))


@pytest.fixture(scope='module')
def picture(drawn):
    return drawn[0]


def test_the_file_is_the_picture_that_the_package_draws(picture):
    stored = np.asarray(Image.open(FILE).convert('RGB')).astype(int)
    assert stored.shape == picture.shape == (800, 1800, 3) and FILE.stat().st_size < 200_000
    # 256 colours, and another machine's last digits may move a point of the maps
    off = np.abs(stored - picture)
    assert off.mean() < 1.5
    left, width = overview.COLUMNS[3]
    off[:, left : left + width] = 0
    assert (off.max(axis=-1) > 60).mean() < 0.001, 'run `make docs`'


def test_nothing_is_cut_off_at_the_edges(picture):
    for edge in (picture[:16], picture[-16:], picture[:, :12], picture[:, -12:]):
        assert (edge == 255).all()


def test_every_class_is_in_every_step(picture):
    for left, width in overview.COLUMNS:
        step = picture[overview.TOP : overview.BOTTOM, left : left + width]
        for colour in overview.COLOURS:
            assert (step == colour).all(axis=-1).sum() > 60, (left, colour)
    assert len(set(overview.MARKERS)) == len(overview.COLOURS)


def test_classes_are_told_apart_under_every_kind_of_sight():
    seen = _seen(overview.COLOURS)
    gaps = np.linalg.norm(seen[:, :, None] - seen[:, None], axis=-1)
    assert gaps[:, ~np.eye(5, dtype=bool)].min() > 15


def test_the_toy_is_measured_on_streets_that_it_was_not_tuned_on(drawn):
    _, tuned = drawn
    assert torch.equal(*tuned.states)
    before, after, labels = tuned.outcome
    learnt, shown = tuned.cut
    assert not any(np.array_equal(a[0], b[0]) for a in learnt for b in shown)
    half, classes = len(labels) // 2, torch.from_numpy(labels)
    recalls = [
        float(recall_at_k(rows[:half], classes[:half], rows[half:], classes[half:], 1))
        for rows in (torch.from_numpy(before), torch.from_numpy(after))
    ]
    assert recalls[0] + 0.1 < recalls[1] and recalls[1] > 0.8


def test_a_streets_labels_are_those_of_its_shapes():
    image, labels = overview_scene.draw_street(4)
    assert image.shape == (256, 256, 3) and set(np.unique(labels)) <= set(range(5))
    for again, expected in zip(overview_scene.draw_street(4), (image, labels)):
        np.testing.assert_array_equal(again, expected)
    sky = image[labels == 0]
    assert (sky == sky[0]).all() and labels[0].tolist() == [0] * 256
    assert (labels[-1] == 1).all() and not np.array_equal(image, overview_scene.draw_street(5)[0])
