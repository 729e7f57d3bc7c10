import pytest
import torch
import torch.nn.functional as F
from mmseg.models import SegDataPreProcessor

from mm_tuning_plugin.models import NodeDataPreprocessor

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def sample(images, points, labels, size=(8, 8), channels=3):
    return {
        'inputs': torch.randint(0, 256, (images, channels, *size), dtype=torch.uint8),
        'points': torch.tensor(points, dtype=torch.int64).reshape(-1, 3),
        'labels': torch.tensor(labels, dtype=torch.int64),
        'meta': {'img_path': ''},
    }


def collate(*samples):
    return {key: [s[key] for s in samples] for key in ('inputs', 'points', 'labels', 'meta')}


@pytest.mark.parametrize('swap', [False, True])
def test_normalises_as_mmseg_does(swap):
    samples = [sample(1, [[0, 1, 2]], [5]), sample(1, [[0, 3, 4]], [6])]
    ours = NodeDataPreprocessor(MEAN, STD, swap_channels=swap)(collate(*samples))
    theirs = SegDataPreProcessor(MEAN, STD, bgr_to_rgb=swap)
    expected = theirs({'inputs': [s['inputs'][0] for s in samples]})['inputs']
    assert ours['nodes'].images.dtype == torch.float32
    assert torch.equal(ours['nodes'].images, expected)


def test_without_normalisation_or_swap():
    one = sample(2, [], [])
    nodes = NodeDataPreprocessor()(collate(one))['nodes']
    assert torch.equal(nodes.images, one['inputs'].float())


@pytest.mark.parametrize('channels', [1, 4])
def test_only_three_channels_are_swapped(channels):
    one = sample(2, [], [], channels=channels)
    nodes = NodeDataPreprocessor(swap_channels=True)(collate(one))['nodes']
    assert torch.equal(nodes.images, one['inputs'].float())


def test_mixing_shifts_the_image_index():
    batch = collate(
        sample(2, [[0, 1, 1], [1, 2, 2], [1, 3, 3]], [7, 8, 9]),
        sample(0, [], []),
        sample(1, [], []),
        sample(3, [[2, 4, 4], [0, 5, 5]], [1, 2]),
    )
    done = NodeDataPreprocessor()(batch, training=True)
    assert done['nodes'].points.tolist() == [[0, 1, 1], [1, 2, 2], [1, 3, 3], [5, 4, 4], [3, 5, 5]]
    assert done['nodes'].labels.tolist() == [7, 8, 9, 1, 2]
    assert torch.equal(done['nodes'].images, torch.cat(batch['inputs']).float())
    assert done['counts'] == [3, 0, 0, 2]
    assert [s.tolist() for s in batch['points']][3] == [[2, 4, 4], [0, 5, 5]], 'input unchanged'


def test_other_sizes_are_padded_below_and_right_with_the_mean():
    one, two = sample(1, [[0, 5, 3]], [0], (6, 4)), sample(1, [[0, 2, 8]], [1], (3, 9))
    nodes = NodeDataPreprocessor(MEAN, STD)(collate(one, two))['nodes']
    assert nodes.images.shape == (2, 3, 6, 9)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    assert torch.equal(nodes.images[0, :, :6, :4], (one['inputs'][0] - mean) / std)
    assert torch.equal(nodes.images[1, :, :3, :9], (two['inputs'][0] - mean) / std)
    assert (nodes.images[0, :, :, 4:] == 0).all() and (nodes.images[1, :, 3:] == 0).all()
    assert nodes.points.tolist() == [[0, 5, 3], [1, 2, 8]]


@pytest.mark.parametrize('size', [(16, 24), (4, 6), (7, 7), (224, 224), (8, 12)])
def test_resizing_moves_points_to_the_pixel_that_holds_their_centre(size):
    height, width = 8, 12
    points = [[0, y, x] for y in range(height) for x in range(width)]
    batch = collate(sample(1, points, [0] * len(points), (height, width)))
    nodes = NodeDataPreprocessor(size=list(size))(batch)['nodes']
    resized = F.interpolate(batch['inputs'][0].float(), size, mode='bilinear', align_corners=False)
    assert torch.equal(nodes.images, resized)
    low = nodes.points[:, 1:].double()
    centres = (torch.tensor(points)[:, 1:] + 0.5).double() * torch.tensor(
        [size[0] / height, size[1] / width], dtype=torch.float64
    )
    assert (low <= centres + 1e-9).all() and (centres < low + 1 + 1e-9).all()
    assert (nodes.points[:, 1:] < torch.tensor(size)).all() and (low >= 0).all()


@pytest.mark.parametrize('size', [None, (24, 20)])
def test_no_node_at_all(size):
    done = NodeDataPreprocessor(MEAN, STD, size=size)(collate(sample(0, [], []), sample(0, [], [])))
    nodes = done['nodes']
    assert nodes.images.shape == (0, 3, *(size or (8, 8)))
    assert nodes.points.shape == (0, 3) and nodes.points.dtype == torch.int64
    assert nodes.labels.shape == (0,) and done['counts'] == [0, 0]


def test_nothing_of_it_is_saved():
    assert NodeDataPreprocessor(MEAN, STD).state_dict() == {}
