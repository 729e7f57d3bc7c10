"""The `paper` recipe's loss at the released sizes: value and gradient by hand, and where it starts.

Elsewhere: other margins, rows of zeros, half precision, gradcheck
(tests/functional/test_losses.py); through the network and its pool5 (test_paper_step.py).
"""

import random

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from reference import graph as reference_graph
from reference import losses as reference

from mm_tuning_plugin.functional import (
    Triplets,
    active_triplet_share,
    expected_triplet_loss,
    graph_triplets,
    triplet_margin_loss,
)
from mm_tuning_plugin.registry import MODELS

# nodes of a graph, channels and side of pool5: 4,096, 6,400 and 8,192 numbers
SYSTEMS = {
    'AlexNet': (400, 256, 4),
    'AlexNet jigsaw': (400, 256, 5),
    'VGG-16, one GPU': (144, 512, 4),
    'VGG-16, four GPUs': (576, 512, 4),
}


@pytest.fixture(params=SYSTEMS)
def pool5(request):
    """(N, C, S, S) maps behind a ReLU, of unlike lengths, and the nodes' labels."""
    count, channels, side = SYSTEMS[request.param]
    generator = torch.Generator().manual_seed(count + channels + side)
    maps = torch.randn(count, channels, side, side, generator=generator, dtype=torch.float64)
    scale = torch.rand(count, 1, 1, 1, generator=generator) * 20 + 0.1
    labels = torch.randint(0, 21, (count,), generator=generator)
    return maps.relu() * scale, labels


def drawn_by_the_loop(labels):
    return [list(index) for index in zip(*reference_graph.triplets(
        labels.tolist(), random.Random(1), reference_graph.grow_lean))]  # fmt: skip


@pytest.mark.parametrize('margin', [2.1, 0.001])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_value_and_gradient_are_those_of_the_loop(pool5, dtype, margin):
    """For given triplets; at the smaller margin about half of the hinges are closed."""
    maps, labels = pool5
    triplets = drawn_by_the_loop(labels)
    rows = maps.flatten(1).to(dtype)
    value, gradient = reference.triplet_margin_with_gradient(
        rows.double().numpy(), triplets, margin
    )
    rows.requires_grad_()
    indices = Triplets(*map(torch.tensor, triplets))
    loss = triplet_margin_loss(rows, indices, margin)
    loss.backward()
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    assert loss.item() == pytest.approx(value, abs=tolerance)
    largest = np.abs(gradient).max()
    assert largest > 0
    assert np.abs(rows.grad.double().numpy() - gradient).max() < tolerance * largest
    share = active_triplet_share(rows, indices, margin).item()
    assert share == 1 if margin == 2.1 else 0.2 < share < 0.8


def test_the_embedding_is_the_flattened_map_at_length_one(pool5):
    """No pooling, no projection; the loss that follows is the loop's."""
    maps, labels = pool5
    with DefaultScope.overwrite_default_scope('mmseg'):
        head = MODELS.build(dict(
            type='mm_tuning_plugin.PooledEmbedding', in_channels=[maps.shape[1]],
            grid_size=maps.shape[2], projection_channels=0,
        ))  # fmt: skip
        criterion = MODELS.build(dict(type='mm_tuning_plugin.GraphTripletLoss'))
    assert not [*head.parameters()]
    points = torch.tensor([[i, 64, 64] for i in range(len(maps))])
    rows = head([maps], points, (128, 128))
    for row, image in zip(rows, maps):
        flat = image.reshape(-1)
        assert row.shape == flat.shape
        assert torch.allclose(row, flat / (flat * flat).sum().sqrt(), atol=1e-12)
    found = criterion(rows, labels, torch.Generator().manual_seed(5))
    triplets = graph_triplets(labels, generator=torch.Generator().manual_seed(5))
    value, _ = reference.triplet_margin_with_gradient(
        maps.flatten(1).numpy(), [index.tolist() for index in triplets]
    )
    assert found['loss'].item() == pytest.approx(value, abs=1e-12)
    assert found['triplets'] == len(triplets.anchor)


def test_random_features_behind_a_relu_start_at_1_05(pool5):
    """The bound: each term is 1.05 + cos(a, n) - cos(a, p), open whatever the features are."""
    maps, labels = pool5
    rows = maps.flatten(1)
    triplets = graph_triplets(labels, generator=torch.Generator().manual_seed(2))
    loss = triplet_margin_loss(rows, triplets).item()
    expected = float(expected_triplet_loss(rows, labels))
    assert loss == pytest.approx(expected, rel=0.01)
    assert expected == pytest.approx(1.05, rel=0.01)
    terms = [
        1.05 + reference.cosine(rows[a], rows[n]) - reference.cosine(rows[a], rows[p])
        for a, p, n in zip(*(index.tolist() for index in triplets))
    ]
    assert min(terms) > 0
    assert loss == pytest.approx(sum(terms) / len(terms), abs=1e-9)


def test_the_hinge_stays_open_where_nothing_is_left_to_learn():
    """At cosines of 1 and 0, the best behind a ReLU, 0.05 is left; a margin of 2 would leave 0."""
    rows = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]], dtype=torch.float64)
    triplets = Triplets(*torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1]]))
    assert triplet_margin_loss(rows, triplets).item() == pytest.approx(0.05)
    assert active_triplet_share(rows, triplets) == 1
    assert active_triplet_share(rows, triplets, 2.0) == 0
