import pytest
import torch
import torch.nn.functional as F

from mm_tuning_plugin.functional.reading import read_at_points


def every_pixel(images, height, width):
    grid = torch.meshgrid(*(torch.arange(n) for n in (images, height, width)), indexing='ij')
    return torch.stack([axis.flatten() for axis in grid], dim=1)  # (M * H * W, 3)


@pytest.mark.parametrize(
    ('map_size', 'image_size'),
    [
        ((4, 4), (128, 128)),
        ((5, 7), (37, 50)),  # no whole ratio
        ((6, 9), (6, 9)),  # as it is
        ((12, 10), (5, 4)),  # finer than the image
        ((1, 1), (8, 8)),
        ((1, 6), (9, 12)),
    ],
)
def test_equals_resizing_the_map_and_indexing(map_size, image_size, device):
    features = torch.rand(2, 3, *map_size, device=device)
    points = every_pixel(2, *image_size).to(device)
    resized = F.interpolate(features, image_size, mode='bilinear', align_corners=False)
    expected = resized.permute(0, 2, 3, 1).flatten(0, 2)
    assert torch.allclose(read_at_points(features, points, image_size), expected, atol=1e-5)


def test_points_in_any_order_and_repeated():
    features = torch.rand(3, 2, 4, 5)
    points = torch.tensor([[2, 7, 9], [0, 0, 0], [2, 7, 9], [1, 3, 2]])
    resized = F.interpolate(features, (8, 10), mode='bilinear', align_corners=False)
    expected = resized[points[:, 0], :, points[:, 1], points[:, 2]]
    assert torch.allclose(read_at_points(features, points, (8, 10)), expected, atol=1e-6)


def test_far_into_a_large_image():
    # in float32 a place at 50,000 would be off by a hundredth of a pixel
    ramp = torch.arange(50_000.0, dtype=torch.float64).view(1, 1, 1, -1)
    read = read_at_points(ramp, torch.tensor([[0, 0, 149_998]]), (1, 150_000))
    assert abs(read.item() - ((149_998 + 0.5) / 3 - 0.5)) < 1e-6


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_keeps_the_dtype(dtype):
    features, points = torch.rand(2, 3, 4, 4), every_pixel(2, 9, 9)
    read = read_at_points(features.to(dtype), points, (9, 9))
    assert read.dtype == dtype
    assert torch.allclose(read.float(), read_at_points(features, points, (9, 9)), atol=2e-2)


def test_no_points():
    points = torch.empty(0, 3, dtype=torch.int64)
    features = torch.rand(1, 5, 4, 4, requires_grad=True)
    read = read_at_points(features, points, (8, 8))
    assert read.shape == (0, 5)
    read.sum().backward()
    assert (features.grad == 0).all()


def test_gradients():
    features = torch.rand(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    points = every_pixel(2, 5, 7)[::3]
    assert torch.autograd.gradcheck(lambda f: read_at_points(f, points, (5, 7)), features)


@pytest.mark.parametrize(
    ('features', 'points', 'message'),
    [
        ((3, 4, 4), (2, 3), r'^features\b.*\(3, 4, 4\)'),
        ((1, 3, 4, 4), (2, 2), r'^points\b.*\(2, 2\)'),
        ((1, 3, 4, 4), (3,), r'^points\b.*\(3,\)'),
    ],
)
def test_wrong_shapes_are_named(features, points, message):
    with pytest.raises(ValueError, match=message):
        read_at_points(torch.rand(features), torch.zeros(points, dtype=torch.int64), (8, 8))
