"""The `paper` recipe's sampler at its own numbers: maps of 512, squares of 64 to 256 pixels.

What holds by itself (sides, labels and places of what is drawn first) is compared with the exact
law; what de-duplication makes of it, with draws of the plain loop. The loop must pass as well: it
has the mended rules where the released ones are wrong (tests/reference/sampling.py says which).

Elsewhere: de-duplication box by box, maps that lack something, other options
(tests/functional/test_patches.py); cutting and resizing (tests/functional/test_crops.py, on
uint8 tests/datasets/test_transforms.py).
"""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from laws import LEAST_P, p_of_counts, p_of_law, p_of_sizes
from reference import sampling as reference

from mm_tuning_plugin.functional import sample_patches
from mm_tuning_plugin.functional.patches import spread_out

DRAWS = 3000
FEWER = 1000  # where each takes long, or there are few kinds of outcomes
SIDES = range(64, 257, 2)
NUMBERS = {'roomy': (10, 9), 'crowded': (9, 8)}  # patches, foreground ones: AlexNet and VGG-16


def scene(name):
    """A map of 512 with 20 classes on a background, a strip of ignore; foreground far or near."""
    rng = np.random.default_rng(5)
    if name == 'roomy':
        blocks = rng.integers(0, 40, (16, 16))
        seg_map = np.where(blocks > 20, 0, blocks).repeat(32, 0).repeat(32, 1)
    else:  # so near that most candidates are covered, and the dropped have to fill up
        seg_map = np.zeros((512, 512), np.int64)
        seg_map[200:290, 150:270] = rng.integers(1, 21, (9, 12)).repeat(10, 0).repeat(10, 1)
    seg_map[:12] = 255
    return seg_map


class Patches(NamedTuple):
    boxes: np.ndarray  # (P, 4)
    labels: np.ndarray  # (P,)


class Drawn(NamedTuple):
    """DRAWS draws of both; foreground first."""

    seg_map: np.ndarray
    foreground: int
    ours: list
    loop: list


@pytest.fixture(scope='module', params=NUMBERS)
def drawn(request):
    number, foreground = NUMBERS[request.param]
    seg_map = scene(request.param)
    tensor, generator = torch.from_numpy(seg_map), torch.Generator().manual_seed(1)
    lists, rng = reference.list_pixels(seg_map, 0), np.random.default_rng(2)
    ours, loop = [], []
    for _ in range(DRAWS):
        patches = sample_patches(tensor, number, background_index=0, generator=generator)
        ours.append(Patches(*(part.numpy() for part in patches)))
        boxes, centres = reference.draw_patches(lists, number, (64, 256), rng)
        loop.append(Patches(boxes, np.array([seg_map[y, x] for y, x in centres])))
    return Drawn(seg_map, foreground, ours, loop)


@pytest.fixture(params=['ours', 'loop'])
def either(request, drawn):
    return getattr(drawn, request.param)


def sides(draws, patch):
    return [int(draw.boxes[patch, 2] - draw.boxes[patch, 0]) for draw in draws]


def centres(draws, patch):
    """(DRAWS, 2) rows and columns."""
    boxes = np.stack([draw.boxes[patch] for draw in draws])
    return (boxes[:, :2] + boxes[:, 2:]) // 2


def test_every_draw_has_its_quotas_and_even_squares_around_labelled_pixels(drawn, either):
    boxes = np.stack([draw.boxes for draw in either])  # (DRAWS, P, 4)
    labels = np.stack([draw.labels for draw in either])  # (DRAWS, P)
    number = labels.shape[1]
    assert number == drawn.foreground + 1  # max(1, int(0.1 * 9 or 10)) of the background
    assert (((labels > 0) & (labels <= 20)).sum(1) == drawn.foreground).all()
    assert ((labels == 0) == (np.arange(number) == number - 1)).all()
    side = boxes[..., 2:] - boxes[..., :2]
    assert (side[..., 0] == side[..., 1]).all() and {*np.unique(side).tolist()} <= {*SIDES}
    y, x = np.moveaxis((boxes[..., :2] + boxes[..., 2:]) // 2, -1, 0)
    assert (drawn.seg_map[y, x] == labels).all()


def test_sides_are_uniform_over_the_even_numbers(either):
    """Of the first, which nothing can cover, and of background, which is not de-duplicated."""
    law = {side: 1 / len(SIDES) for side in SIDES}
    assert p_of_law(sides(either, 0), law) > LEAST_P
    assert p_of_law(sides(either, -1), law) > LEAST_P
    assert {side for patch in (0, -1) for side in sides(either, patch)} == {*SIDES}


def test_labels_are_as_frequent_as_their_pixels(drawn, either):
    classes, pixels = np.unique(drawn.seg_map, return_counts=True)
    foreground = (classes > 0) & (classes < 255)
    shares = pixels[foreground] / pixels[foreground].sum()
    law = dict(zip(classes[foreground].tolist(), shares))
    assert len(law) == 20
    assert p_of_law([draw.labels[0] for draw in either], law) > LEAST_P


def coarse(y, x):
    return y // 64 * 8 + x // 64


def fine(y, x):
    return y % 8 * 8 + x % 8


@pytest.mark.parametrize('cell', [coarse, fine])
@pytest.mark.parametrize('patch', [0, -1])
def test_places_are_uniform_over_the_pixels_of_their_kind(drawn, either, patch, cell):
    """The first is of the foreground, the last of the background."""
    kind = drawn.seg_map == 0 if patch else (drawn.seg_map > 0) & (drawn.seg_map < 255)
    cells, pixels = np.unique(cell(*np.nonzero(kind)), return_counts=True)
    law = dict(zip(cells.tolist(), pixels / pixels.sum()))
    assert p_of_law(cell(*centres(either, patch).T), law) > LEAST_P


def test_sides_labels_and_places_behind_de_duplication_follow_the_loop(drawn):
    """Of every patch by its number: large ones are covered less often, so the law changes."""
    for patch in range(1, drawn.foreground):
        ours, loop = sides(drawn.ours, patch), sides(drawn.loop, patch)
        assert p_of_sizes(ours, loop) > LEAST_P, patch
        ours, loop = ([draw.labels[patch] for draw in draws] for draws in (drawn.ours, drawn.loop))
        assert p_of_counts(ours, loop) > LEAST_P, patch
        ours, loop = centres(drawn.ours, patch), centres(drawn.loop, patch)
        assert p_of_sizes(ours[:, 0], loop[:, 0]) > LEAST_P, patch
        assert p_of_sizes(ours[:, 1], loop[:, 1]) > LEAST_P, patch


def covered_shares(boxes):
    """How much of each box lies under those before it, and of all their area under several."""
    boxes = boxes - np.tile(boxes[:, :2].min(0), 2)
    counts = np.zeros(boxes[:, 2:].max(0), np.int8)
    shares = []
    for y0, x0, y1, x1 in boxes:
        window = counts[y0:y1, x0:x1]
        shares.append((window > 0).mean())
        window += 1
    return np.array(shares), (counts > 1).sum() / (counts > 0).sum()


def test_overlap_follows_the_loop(drawn):
    """How many had to be filled up, and of each image the most covered kept and the whole."""
    filled, most, whole = ([], []), ([], []), ([], [])
    for which, draws in enumerate((drawn.ours, drawn.loop)):
        for draw in draws[:FEWER]:
            shares, total = covered_shares(draw.boxes[: drawn.foreground])
            over = shares > 0.6
            assert (np.diff(over.astype(int)) >= 0).all()  # the kept first, then the dropped
            filled[which].append(int(over.sum()))
            most[which].append(shares[~over].max())
            whole[which].append(total)
    if drawn.foreground == 8:  # the crowded scene
        assert np.mean(filled, axis=1).min() > 1
        assert p_of_counts(*filled) > LEAST_P
    else:  # hardly ever any
        assert np.mean(filled, axis=1).max() < 0.01
    assert p_of_sizes(*most) > LEAST_P
    assert p_of_sizes(*whole) > LEAST_P


def test_what_is_covered_is_a_share_of_the_candidate_s_own_area():
    """The release divides by the area of the first candidate: the second is 6 % of that."""
    boxes = [(0, 0, 256, 256), (10, 10, 74, 74), (500, 500, 564, 564), (0, 128, 256, 384)]
    expected = [0, 2, 3]  # the last is half covered
    assert reference.spread_out(boxes, 3, 0.6) == expected
    assert spread_out(np.array(boxes), 3, 0.6) == expected


def test_cityscapes_has_squares_of_128_and_no_background():
    """Mended: the release took class 0, road, for a background, and drew one patch on it."""
    seg_map = np.where(scene('roomy') == 255, 255, scene('roomy') % 19)
    tensor, generator = torch.from_numpy(seg_map), torch.Generator().manual_seed(3)
    lists, rng = reference.list_pixels(seg_map), np.random.default_rng(4)
    first, roads = [], ([], [])
    for _ in range(FEWER):
        boxes, labels = sample_patches(tensor, 9, (128, 128), generator=generator)
        assert (boxes[:, 2:] - boxes[:, :2] == 128).all() and len(labels) == 9
        _, around = reference.draw_patches(lists, 9, (128, 128), rng)
        first.append(int(labels[0]))
        roads[0].append(int((labels == 0).sum()))
        roads[1].append(sum(int(seg_map[y, x] == 0) for y, x in around))
    classes, pixels = np.unique(seg_map[seg_map != 255], return_counts=True)
    assert p_of_law(first, dict(zip(classes.tolist(), pixels / pixels.sum()))) > LEAST_P
    assert p_of_counts(*roads) > LEAST_P
