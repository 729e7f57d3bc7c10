import copy

import pytest
import torch
import torch.nn.functional as F

from mm_tuning_plugin.functional.reading import read_at_points
from mm_tuning_plugin.models import PointEmbedding, PooledEmbedding

CHANNELS = [4, 6]
HEADS = [
    PooledEmbedding(CHANNELS),
    PooledEmbedding(CHANNELS, grid_size=2, projection_channels=16, hidden_channels=8),
    PointEmbedding(CHANNELS, hidden_channels=8),
    PointEmbedding(CHANNELS, projection_channels=0),
]
POINTS = torch.tensor([[0, 3, 9], [2, 31, 0], [2, 0, 31], [0, 3, 9], [1, 16, 16]])


def features(dtype=torch.float32, grad=False):
    torch.manual_seed(0)
    sizes = [(3, 4, 8, 8), (3, 6, 4, 4)]
    return [torch.randn(size).to(dtype).requires_grad_(grad) for size in sizes]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('head', HEADS)
def test_rows_have_unit_length_and_are_float32(head, dtype, device):
    head, points = copy.deepcopy(head).to(device), POINTS.to(device)
    levels = [level.to(device) for level in features(dtype)]
    embeddings = head(levels, points, (32, 32))
    assert embeddings.dtype == torch.float32 and embeddings.device.type == device.type
    assert torch.allclose(embeddings.norm(dim=1).cpu(), torch.ones(5), atol=1e-5)
    assert torch.allclose(embeddings[0], embeddings[3], atol=1e-6)
    assert not torch.allclose(embeddings[0], embeddings[1])
    assert head.describe(levels, points, (32, 32)).dtype == torch.float32


@pytest.mark.parametrize(('head', 'sizes'), zip(HEADS, [(160, 160), (40, 16), (10, 128), (10, 10)]))
def test_sizes_of_descriptors_and_embeddings(head, sizes):
    described = head.describe(features(), POINTS, (32, 32))
    assert described.shape == (5, sizes[0])
    assert head(features(), POINTS, (32, 32)).shape == (5, sizes[1])


@pytest.mark.parametrize('head', HEADS)
def test_embedding_is_the_projected_descriptor_at_unit_length(head):
    described = head.describe(features(), POINTS, (32, 32))
    expected = F.normalize(head.projection(described))
    assert torch.allclose(head(features(), POINTS, (32, 32)), expected)


@pytest.mark.parametrize('kind', [PointEmbedding, PooledEmbedding])
def test_a_classifier_is_linear_and_keeps_its_scale(kind):
    head = kind(CHANNELS, projection_channels=3, hidden_channels=0, normalise=False)
    scores = head(features(), POINTS, (32, 32))
    described = head.describe(features(), POINTS, (32, 32))
    weight, bias = head.projection.weight, head.projection.bias
    torch.testing.assert_close(scores, described @ weight.T + bias)


def test_pooled_grid_is_the_flattened_map_where_sizes_agree():
    level = features()[1]  # 4 x 4
    described = PooledEmbedding([6]).describe([level], POINTS, (32, 32))
    assert torch.equal(described, level.flatten(1)[POINTS[:, 0]])


def test_pooled_grid_of_a_larger_and_a_smaller_map():
    head = PooledEmbedding([1], grid_size=2)
    large = torch.arange(16.0).view(1, 1, 4, 4)
    points = torch.zeros(1, 3, dtype=torch.int64)
    assert head.describe([large], points, (8, 8)).tolist() == [[2.5, 4.5, 10.5, 12.5]]
    assert head.describe([large[..., :1, :1]], points, (8, 8)).tolist() == [[0.0] * 4]


def test_a_grid_that_fits_is_read_as_pooling_reads_it():
    level = features(grad=True)[1]  # 4 x 4, the grid of the head
    pooled = F.adaptive_avg_pool2d(level, 4).flatten(1)[POINTS[:, 0]]
    described = PooledEmbedding([6]).describe([level], POINTS, (32, 32))
    assert torch.equal(described, pooled)
    weights = torch.arange(5.0)[:, None]
    (expected,) = torch.autograd.grad((pooled * weights).sum(), level)
    (gradient,) = torch.autograd.grad((described * weights).sum(), level)
    assert torch.equal(gradient, expected)


def test_pooled_levels_stand_side_by_side():
    levels = features()
    head = PooledEmbedding(CHANNELS, grid_size=2)
    parts = [
        PooledEmbedding([c], grid_size=2).describe([level], POINTS, (32, 32))
        for c, level in zip(CHANNELS, levels)
    ]
    assert torch.equal(head.describe(levels, POINTS, (32, 32)), torch.cat(parts, dim=1))


def test_points_read_every_level():
    levels = features()
    described = PointEmbedding(CHANNELS).describe(levels, POINTS, (32, 32))
    expected = [read_at_points(level, POINTS, (32, 32)) for level in levels]
    assert torch.equal(described, torch.cat(expected, dim=1))


@pytest.mark.parametrize('head', HEADS)
def test_no_nodes(head):
    levels = features(grad=True)
    head.zero_grad()
    embeddings = head(levels, POINTS[:0], (32, 32))
    assert embeddings.shape == (0, head(levels, POINTS, (32, 32)).shape[1])
    embeddings.sum().backward()
    assert all((level.grad == 0).all() for level in levels)
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.parametrize('head', HEADS)
def test_gradients_reach_all_levels_and_parameters(head):
    levels = features(grad=True)
    head.zero_grad()
    head(levels, POINTS, (32, 32)).square()[:, 0].sum().backward()
    assert all(level.grad.abs().sum() > 0 for level in levels)
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters())
