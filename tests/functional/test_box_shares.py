"""Shares of boxes against sums over single pixels."""

import pytest
import torch

from mm_tuning_plugin.functional.box_shares import box_purity, share_covered, share_outside


def random_boxes(generator, count, side=24):
    corner = torch.randint(-8, side, (count, 2), generator=generator)
    size = torch.randint(1, 14, (count, 2), generator=generator)
    return torch.cat([corner, corner + size], dim=1)


def pixels_of(box):
    y0, x0, y1, x1 = box.tolist()
    return {(y, x) for y in range(y0, y1) for x in range(x0, x1)}


@pytest.mark.parametrize('seed', range(20))
def test_against_plain_loops(seed):
    generator = torch.Generator().manual_seed(seed)
    height, width = 17, 23
    seg_map = torch.randint(0, 4, (height, width), generator=generator)
    seg_map[seg_map == 3] = 255
    count = int(torch.randint(1, 8, (1,), generator=generator))
    boxes = random_boxes(generator, count)
    labels = torch.randint(0, 3, (count,), generator=generator)
    purity, outside = box_purity(seg_map, boxes, labels), share_outside(boxes, height, width)
    covered = share_covered(boxes)
    all_pixels = [pixels_of(box) for box in boxes]
    for i, pixels in enumerate(all_pixels):
        inside = [p for p in pixels if 0 <= p[0] < height and 0 <= p[1] < width]
        same = sum(int(seg_map[p] == labels[i]) for p in inside)
        expected = same / len(inside) if inside else float('nan')
        assert purity[i].item() == pytest.approx(expected, nan_ok=True)
        assert outside[i].item() == pytest.approx(1 - len(inside) / len(pixels))
        others = set().union(*(p for j, p in enumerate(all_pixels) if j != i))
        assert covered[i].item() == pytest.approx(len(pixels & others) / len(pixels))


def test_edges():
    seg_map = torch.zeros(4, 4, dtype=torch.long)
    none = torch.zeros(0, 4, dtype=torch.long)
    assert share_covered(none).shape == share_outside(none, 4, 4).shape == (0,)
    assert box_purity(seg_map, none, none[:, 0]).shape == (0,)
    twice = torch.tensor([[0, 0, 2, 2], [0, 0, 2, 2]])
    assert share_covered(twice).tolist() == [1, 1]
    assert share_covered(twice[:1]).tolist() == [0]
    away = torch.tensor([[-5, 0, -1, 2], [9, 9, 11, 11]])
    assert box_purity(seg_map, away, torch.zeros(2, dtype=torch.long)).isnan().all()
    assert share_outside(away, 4, 4).tolist() == [1, 1]


def test_errors_name_the_argument():
    boxes, labels = torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match=r'^seg_map\b.*\(3, 3\)'):
        box_purity(torch.zeros(3, 3), boxes, labels)
    with pytest.raises(ValueError, match=r'^boxes\b.*\(2, 3\)'):
        share_covered(boxes[:, :3])
    with pytest.raises(ValueError, match=r'^boxes\b.*float32'):
        share_outside(boxes.float(), 3, 3)
