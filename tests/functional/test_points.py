import pytest
import torch
from scipy.stats import chisquare

from mm_tuning_plugin.functional import sample_points
from mm_tuning_plugin.functional.points import near_border


def scene(side, device='cpu'):
    """A frequent class 0, a rare class 3 of 40 pixels, class 9 of two, a quarter ignored."""
    seg_map = torch.zeros(side, side, dtype=torch.int64, device=device)
    seg_map[: side // 4] = 255
    seg_map[-1, :40] = 3
    seg_map[-2, 5:7] = 9
    return seg_map


SIDES = [48, 300]  # listed in whole; the frequent class found by trial


@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('seed', range(5))
def test_counts_labels_and_no_point_twice(seed, side, device, seeded):
    seg_map = scene(side, device)
    points, labels = sample_points(seg_map, 12, generator=seeded(seed))
    assert points.shape == (26, 2) and points.dtype == labels.dtype == torch.int64
    assert (seg_map[points[:, 0], points[:, 1]] == labels).all()
    assert labels.bincount().tolist() == [12, 0, 0, 12, 0, 0, 0, 0, 0, 2]
    assert len(points.unique(dim=0)) == 26
    assert points.device.type == device.type


def test_a_pixel_that_is_tried_twice_is_drawn_once(device, seeded):
    seg_map = scene(132, device)  # just large enough for trials, of which many coincide
    for seed in range(40):
        points = sample_points(seg_map, 64, generator=seeded(seed))[0]
        assert len(points.unique(dim=0)) == len(points) == 64 + 40 + 2


@pytest.mark.parametrize('side', SIDES)
def test_uniform_inside_each_class(side, device, seeded):
    seg_map, generator = scene(side, device), seeded(0)
    rare, frequent = [], []
    for _ in range(400):
        points, labels = sample_points(seg_map, 10, generator=generator)
        rare.append(points[labels == 3][:, 1])
        frequent.append(points[labels == 0])
    rare = torch.cat(rare).bincount(minlength=40)
    assert chisquare(rare.cpu()).pvalue > 0.001
    frequent = torch.cat(frequent)
    blocks = (frequent[:, 0] // (side // 4) * 4 + frequent[:, 1] // (side // 4)).cpu()
    model = torch.zeros(16, dtype=torch.float64).index_add(
        0,
        (
            torch.arange(side)[:, None] // (side // 4) * 4 + torch.arange(side) // (side // 4)
        ).ravel(),
        (seg_map == 0).double().cpu().ravel(),
    )
    counts = blocks.bincount(minlength=16)
    present = model > 0
    assert counts[~present].sum() == 0
    model = model[present] / model.sum() * len(frequent)
    assert chisquare(counts[present], model, ddof=0).pvalue > 0.001


def test_pairs_of_points_are_uniform():
    # two of four pixels, jointly: all six pairs equally likely
    seg_map = torch.tensor([[1, 1, 1, 1]])
    generator = torch.Generator().manual_seed(0)
    seen = torch.zeros(4, 4)
    for _ in range(1200):
        a, b = sample_points(seg_map, 2, generator=generator).points[:, 1].sort().values
        seen[a, b] += 1
    assert chisquare(seen[seen > 0].ravel()).pvalue > 0.001 and (seen > 0).sum() == 6


@pytest.mark.parametrize('side', SIDES)
def test_max_points_keeps_a_uniform_subset(side, seeded):
    seg_map, generator = scene(side), seeded(1)
    kept = torch.cat(
        [sample_points(seg_map, 6, max_points=7, generator=generator).labels for _ in range(300)]
    )
    counts = kept.bincount()[[0, 3, 9]]
    assert counts.sum() == 300 * 7
    # without replacement within a draw, so the spread is below the multinomial one
    assert chisquare(counts, torch.tensor([6, 6, 2]) / 14 * 2100).pvalue > 0.001
    assert len(sample_points(seg_map, 6, max_points=14).labels) == 14


def test_nothing_to_draw(device):
    for seg_map in (torch.full((300, 300), 255), torch.empty(3, 0, dtype=torch.int64)):
        points, labels = sample_points(seg_map.to(device), 5)
        assert points.shape == (0, 2) and labels.shape == (0,)
        assert points.dtype == labels.dtype == torch.int64


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int16])
def test_other_dtypes_and_ignore_labels(dtype):
    seg_map = scene(300).to(dtype)
    assert sample_points(seg_map, 5, ignore_index=-253).labels.unique().tolist() == [0, 3, 9, 255]
    assert sample_points(seg_map, 5, ignore_index=0).labels.unique().tolist() == [3, 9, 255]
    assert sample_points(seg_map.T, 5).labels.unique().tolist() == [0, 3, 9]


def test_same_seed_same_points(seeded, device):
    seg_map = scene(300, device)
    one, two = (sample_points(seg_map, 9, max_points=15, generator=seeded(3)) for _ in range(2))
    assert torch.equal(one.points, two.points)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'seg_map': torch.zeros(3)}, r'^seg_map\b.*float32'),
        ({'max_per_class': 0}, r'^max_per_class\b.* 0 \('),
        ({'max_points': 0}, r'^max_points\b.* 0 \('),
        ({'max_points': 1.5}, r'^max_points\b.*1\.5 \('),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    arguments = {'seg_map': scene(48), 'max_per_class': 5, **changes}
    with pytest.raises(ValueError, match=message):
        sample_points(**arguments)


def test_the_border_is_what_a_plain_loop_finds():
    seg_map = torch.zeros(20, 30, dtype=torch.long)
    seg_map[5:12, 8:20] = 2
    seg_map[15:, 25:] = 255
    found = near_border(seg_map)
    for y in range(20):
        for x in range(30):
            window = seg_map[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4]
            assert found[y, x] == (len(window.unique()) > 1)


def test_a_share_of_each_class_lies_near_the_border(seeded, device):
    seg_map = torch.zeros(200, 200, dtype=torch.long)
    seg_map[:, 100:] = 1
    seg_map = seg_map.to(device)
    near = torch.from_numpy(near_border(seg_map))
    points, labels = sample_points(seg_map, 40, border_share=0.5, generator=seeded(1))
    points = points.cpu()
    at_border = near[points[:, 0], points[:, 1]]
    assert len(points) == len({tuple(p) for p in points.tolist()})
    for c in (0, 1):
        own = labels.cpu() == c
        # 20 near, and of the 20 anywhere about 3 in 100 as well
        assert 18 <= at_border[own].sum() <= 25 and 36 <= own.sum() <= 40
    everywhere = sample_points(seg_map, 40, border_share=1.0, generator=seeded(2)).points.cpu()
    assert near[everywhere[:, 0], everywhere[:, 1]].all()


def test_a_map_of_one_label_has_no_border():
    seg_map = torch.ones(9, 9, dtype=torch.long)
    assert not near_border(seg_map).any()
    assert len(sample_points(seg_map, 4, border_share=1.0).labels) == 0
    assert len(sample_points(seg_map, 4, border_share=0.5).labels) == 2
    with pytest.raises(ValueError, match=r'^border_share\b.*1\.5 \('):
        sample_points(seg_map, 4, border_share=1.5)
