"""Where patches lie: against the plain loop, in distribution, at the edges; messages."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import sampling as reference
from scipy.stats import chi2_contingency, chisquare

from mm_tuning_plugin.functional import sample_patches
from mm_tuning_plugin.functional.patches import spread_out


def scene(height=60, width=80, seed=0):
    """Classes 0..4 in unequal blocks, a strip of ignore."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 5, (height // 10, width // 10), generator=generator)
    seg_map = blocks.repeat_interleave(10, 0).repeat_interleave(10, 1)
    seg_map[:, :7] = 255
    return seg_map


def centres_of(boxes):
    return (boxes[:, :2] + boxes[:, 2:]) // 2


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.integers(-9, 12)] * 2, st.integers(1, 9), st.integers(1, 9)), max_size=30
    ),
    st.integers(0, 12),
    st.sampled_from([0.0, 0.25, 0.5, 0.6, 1.0]),
)
def test_spreading_out_equals_the_mask_of_pixels(rectangles, count, max_overlap):
    boxes = [(y, x, y + h, x + w) for y, x, h, w in rectangles]
    chosen = spread_out(np.array(boxes, dtype=np.int64).reshape(-1, 4), count, max_overlap)
    assert chosen == reference.spread_out(boxes, count, max_overlap)


@pytest.mark.parametrize('seed', range(5))
def test_spreading_out_equals_the_mask_for_boxes_of_the_usual_size(seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 512, (2, 200))
    boxes, _ = reference.draw_boxes(pixels, 120, (64, 256), rng)
    expected = reference.spread_out(boxes, 24, 0.6)
    assert spread_out(np.array(boxes), 24, 0.6) == expected


@pytest.mark.parametrize('balance', ['pixel', 'class'])
@pytest.mark.parametrize('background_index', [None, 0])
@pytest.mark.parametrize('seed', range(5))
def test_invariants(seed, background_index, balance, device, seeded):
    seg_map = scene(seed=seed).to(device)
    boxes, labels = sample_patches(
        seg_map, 20, (8, 31), background_index=background_index, balance=balance,
        generator=seeded(seed),
    )  # fmt: skip
    assert boxes.shape == (20, 4) and labels.shape == (20,)
    assert boxes.dtype == labels.dtype == torch.int64 and boxes.device.type == device.type
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (sides[:, 0] == sides[:, 1]).all() and (sides % 2 == 0).all()
    assert sides.min() >= 8 and sides.max() <= 30
    y, x = centres_of(boxes).T
    assert (seg_map[y, x] == labels).all() and (labels != 255).all()
    if background_index == 0:
        assert (labels == 0).nonzero().flatten().tolist() == [18, 19]  # max(1, int(0.1 * 20))


@pytest.mark.parametrize(
    ('ratio', 'count', 'expected'),
    [(0.1, 9, 1), (0.1, 10, 1), (0.1, 20, 2), (0.5, 9, 4), (0.0, 9, 1), (1.0, 9, 9), (0.1, 1, 1)],
)
def test_background_quota(ratio, count, expected):
    labels = sample_patches(
        scene(), count, (4, 8), background_index=0, background_ratio=ratio
    ).labels
    assert (labels == 0).sum() == expected and len(labels) == count


@pytest.mark.parametrize('listed', [False, True])
def test_centres_are_uniform_over_the_foreground_pixels(listed, seeded, device):
    # rare foreground is listed, frequent foreground found by trial
    seg_map = torch.zeros(50, 60, dtype=torch.int64, device=device)
    if listed:
        seg_map[10, 5:15] = 1
        seg_map[49, 59] = 2
    else:
        seg_map[:, 30:] = torch.arange(30, device=device) // 10 + 1
    seg_map[0] = 255
    generator, hits = seeded(1), torch.zeros_like(seg_map)
    for _ in range(400):
        boxes = sample_patches(
            seg_map, 9, (2, 2), background_index=0, max_overlap=1.0, generator=generator
        ).boxes
        y, x = centres_of(boxes[:8]).T
        hits.index_put_((y, x), hits.new_ones(8), accumulate=True)
    foreground = (seg_map > 0) & (seg_map != 255)
    assert hits[~foreground].sum() == 0 and hits.sum() == 3200
    counts = hits[foreground].cpu().numpy()
    counts = counts if listed else counts.reshape(49, 30)[:48].reshape(16, 3, 5, 6).sum((1, 3))
    assert chisquare(counts.ravel()).pvalue > 0.001


def test_sides_are_uniform_over_the_even_numbers_and_fractions_follow_the_shorter_side():
    generator = torch.Generator().manual_seed(3)
    sides = [
        box[2] - box[0]
        for _ in range(150)
        for box in sample_patches(scene(), 20, (7, 21), generator=generator, max_overlap=1.0).boxes
    ]
    values, counts = torch.stack(sides).unique(return_counts=True)
    assert values.tolist() == [8, 10, 12, 14, 16, 18, 20]
    assert chisquare(counts.numpy()).pvalue > 0.001
    boxes = sample_patches(scene(60, 80), 200, (0.2, 0.5), max_overlap=1.0).boxes
    sides = boxes[:, 2] - boxes[:, 0]
    assert (sides.min(), sides.max()) == (12, 30)
    fixed = sample_patches(scene(), 5, (16, 16)).boxes
    assert ((fixed[:, 2:] - fixed[:, :2]) == 16).all()
    assert (sample_patches(scene(), 5, (1e-6, 1e-6)).boxes[:, 2:].shape) == (5, 2)


def test_the_label_frequencies_match_the_plain_loop():
    seg_map, rng = scene(seed=3), np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    ours, plain = [], []
    for _ in range(300):
        ours += sample_patches(
            seg_map, 9, (10, 40), background_index=0, generator=generator
        ).labels.tolist()
        plain += reference.sample_patches(seg_map.numpy(), 9, (10, 40), rng, background_index=0)[1]
    table = np.stack([np.bincount(labels, minlength=5) for labels in (ours, plain)])
    assert chi2_contingency(table).pvalue > 0.001


def covered_shares(boxes):
    """How much of each box the union of those before covers."""
    boxes = boxes - boxes[:, :2].min()
    mask, shares = torch.zeros(*(boxes[:, 2:].max(0).values.tolist()), dtype=torch.bool), []
    for y0, x0, y1, x1 in boxes.tolist():
        shares.append(mask[y0:y1, x0:x1].double().mean().item())
        mask[y0:y1, x0:x1] = True
    return shares


@pytest.mark.parametrize('balance', ['pixel', 'class'])
@pytest.mark.parametrize('seed', range(5))
def test_foreground_patches_overlap_little_where_there_is_room(seed, balance, seeded):
    seg_map = scene(200, 300, seed)
    boxes = sample_patches(seg_map, 9, (20, 60), balance=balance, generator=seeded(seed)).boxes
    assert max(covered_shares(boxes)) <= 0.6


def test_the_dropped_fill_up_where_there_is_no_room():
    seg_map = torch.full((40, 40), 255)
    seg_map[20, 20] = 3
    boxes, labels = sample_patches(seg_map, 9, (30, 30))
    assert labels.tolist() == [3] * 9
    assert (boxes == torch.tensor([5, 5, 35, 35])).all()


@pytest.mark.parametrize('listed', [False, True])
def test_class_balance_is_uniform_over_the_classes_then_over_their_pixels(listed, seeded, device):
    side = 60 if listed else 200
    seg_map = torch.full((side, side), 1, device=device)
    seg_map[0, :10] = 0
    seg_map[1, :5] = 4
    seg_map[2:4] = 255
    generator, labels, pixels = seeded(2), [], []
    for _ in range(250):
        patches = sample_patches(
            seg_map, 8, (2, 2), balance='class', max_overlap=1.0, generator=generator
        )
        labels.append(patches.labels)
        pixels.append(centres_of(patches.boxes))
    labels, pixels = torch.cat(labels), torch.cat(pixels)
    assert chisquare(labels.bincount(minlength=5)[[0, 1, 4]].cpu()).pvalue > 0.001
    small = pixels[labels == 0][:, 1].bincount(minlength=10).cpu()
    assert len(small) == 10 and chisquare(small).pvalue > 0.001
    large = pixels[(labels == 1) & (pixels[:, 0] >= side // 2)][:, 1] // (side // 10)
    assert chisquare(large.bincount(minlength=10).cpu()).pvalue > 0.001
    without = sample_patches(seg_map, 50, (2, 2), balance='class', background_index=1).labels
    assert (without == 1).sum() == 5 and set(without.tolist()) == {0, 1, 4}


@pytest.mark.parametrize('balance', ['pixel', 'class'])
def test_maps_that_lack_something(balance, device):
    def labels_of(seg_map, **options):
        return sample_patches(
            seg_map.to(device), 9, (8, 16), background_index=0, balance=balance, **options
        )

    ignored = labels_of(torch.full((50, 50), 255))
    assert ignored.boxes.shape == (0, 4) and ignored.labels.shape == (0,)
    assert ignored.boxes.dtype == ignored.labels.dtype == torch.int64
    assert labels_of(torch.empty(0, 5, dtype=torch.int64)).boxes.shape == (0, 4)
    no_background = torch.full((50, 50), 3)
    assert labels_of(no_background).labels.tolist() == [3] * 9
    only_background = torch.zeros(50, 50, dtype=torch.int64)
    only_background[0] = 255
    assert labels_of(only_background).labels.tolist() == [0] * 9
    one_pixel = torch.full((50, 50), 255)
    one_pixel[49, 49] = 0
    assert labels_of(one_pixel).boxes.shape == (9, 4)
    other_ignore = torch.full((50, 50), 7)
    other_ignore[:25] = 255
    assert set(labels_of(other_ignore, ignore_index=7).labels.tolist()) == {255}


@pytest.mark.parametrize('balance', ['pixel', 'class'])
@pytest.mark.parametrize('dtype', [torch.uint8, torch.int16, torch.int32])
def test_other_integer_maps_and_labels_that_they_cannot_hold(dtype, balance):
    seg_map = (scene() % 255).to(dtype)
    seg_map[:, 40:] = 100
    patches = sample_patches(
        seg_map, 30, (2, 4), ignore_index=-156, background_index=None, balance=balance
    )  # -156 is 100 modulo 256
    assert patches.labels.dtype == torch.int64 and (patches.labels == 100).any()
    y, x = centres_of(patches.boxes).T
    assert (seg_map[y, x].long() == patches.labels).all()


@pytest.mark.parametrize('low', [-5, 70000])
def test_class_balance_with_unusual_labels(low):
    seg_map = (scene(100, 100) % 255) + low
    labels = sample_patches(seg_map, 200, (2, 4), balance='class', ignore_index=low + 2).labels
    assert set(labels.tolist()) == {low + c for c in (0, 1, 3, 4)}


def test_a_view_that_is_not_contiguous():
    seg_map = scene().T
    patches = sample_patches(seg_map, 30, (2, 4))
    y, x = centres_of(patches.boxes).T
    assert (seg_map[y, x] == patches.labels).all()


def test_same_seed_same_boxes_and_no_global_state(device, seeded):
    seg_map = scene().to(device)
    before = torch.get_rng_state()
    one, two = (sample_patches(seg_map, 9, (8, 16), generator=seeded(4)) for _ in range(2))
    assert torch.equal(one.boxes, two.boxes) and torch.equal(before, torch.get_rng_state())
    other = sample_patches(seg_map, 9, (8, 16), generator=seeded(5))
    assert not torch.equal(one.boxes, other.boxes)


@pytest.mark.parametrize('balance', ['pixel', 'class'])
def test_a_cpu_generator_draws_the_same_on_any_device(balance, device):
    options = {'num_patches': 20, 'size_range': (8, 16), 'balance': balance}
    here, there = (
        sample_patches(
            seg_map, background_index=0, generator=torch.Generator().manual_seed(2), **options
        )
        for seg_map in (scene(), scene().to(device))
    )
    assert there.boxes.device.type == there.labels.device.type == device.type
    assert all(torch.equal(a, b.cpu()) for a, b in zip(here, there))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'seg_map': torch.zeros(3, 4)}, r'^seg_map\b.*float32.*\(3, 4\)'),
        ({'seg_map': torch.zeros(1, 3, 4).long()}, r'^seg_map\b.*\(1, 3, 4\)'),
        ({'seg_map': np.zeros((3, 4))}, r'^seg_map\b.*ndarray'),
        ({'num_patches': 0}, r'^num_patches\b.* 0 \('),
        ({'num_patches': 2.0}, r'^num_patches\b.*2\.0 \('),
        ({'size_range': (20, 10)}, r'^size_range\b.*\(20, 10\)'),
        ({'size_range': (0, 10)}, r'^size_range\b.*\(0, 10\)'),
        ({'size_range': (0.1, float('inf'))}, r'^size_range\b.*\(0\.1, inf\)'),
        ({'size_range': (0.5, 1)}, r'^size_range\b.*\(0\.5, 1\)'),
        ({'size_range': (True, True)}, r'^size_range\b.*\(True, True\)'),
        ({'size_range': (9, 9)}, r'^size_range\b.*\(9, 9\)'),
        ({'size_range': 128}, r'^size_range\b.* 128 \('),
        ({'max_overlap': 1.5}, r'^max_overlap\b.*1\.5 \('),
        ({'max_overlap': -0.1}, r'^max_overlap\b.*-0\.1 \('),
        ({'background_ratio': 2}, r'^background_ratio\b.* 2 \('),
        ({'balance': 'classes'}, "^balance\\b.*'pixel'.*'class'.*'classes'"),
        ({'background_index': 255}, r'^background_index\b.*ignore_index.*\b255\b'),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    arguments = {'seg_map': scene(), 'num_patches': 9, **changes}
    with pytest.raises(ValueError, match=message):
        sample_patches(**arguments)
