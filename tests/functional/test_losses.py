"""Losses against plain loops, in all precisions, at the edges; gradients; messages."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from reference import losses as reference

from mm_tuning_plugin.functional import (
    Triplets,
    active_triplet_share,
    expected_triplet_loss,
    graph_triplets,
    supervised_contrastive_loss,
    triplet_margin_loss,
)

balanced_contrastive = partial(supervised_contrastive_loss, balanced=True)
LABEL_LOSSES = [expected_triplet_loss, supervised_contrastive_loss, balanced_contrastive]


def sample(seed, count=14, classes=3, dim=5, device='cpu', zero_row=False):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    embeddings = torch.randn(count, dim, dtype=torch.float64, generator=generator) * 3
    if zero_row:
        embeddings[4] = 0
    triplets = graph_triplets(labels, generator=generator)
    triplets = Triplets(*(index.to(device) for index in triplets))
    return embeddings.to(device).requires_grad_(), labels.to(device), triplets


@pytest.mark.parametrize('margin', [2.1, 0.3, -0.5])
@pytest.mark.parametrize('zero_row', [False, True])
@pytest.mark.parametrize('seed', range(4))
def test_triplet_margin_is_the_released_formula(seed, zero_row, margin, device):
    embeddings, _, triplets = sample(seed, device=device, zero_row=zero_row)
    expected = reference.triplet_margin(embeddings, triplets, margin)
    torch.testing.assert_close(triplet_margin_loss(embeddings, triplets, margin), expected)


@pytest.mark.parametrize('zero_row', [False, True])
@pytest.mark.parametrize('classes', [2, 4, 10])
@pytest.mark.parametrize('seed', range(3))
def test_label_losses_equal_the_loops(seed, classes, zero_row, device):
    embeddings, labels, _ = sample(seed, classes=classes, device=device, zero_row=zero_row)
    for ours, plain in [
        (expected_triplet_loss, reference.expected_triplet),
        (supervised_contrastive_loss, reference.supervised_contrastive),
        (balanced_contrastive, reference.balanced_contrastive),
    ]:
        value, expected = ours(embeddings, labels), plain(embeddings, labels)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(
            torch.autograd.grad(value, embeddings), torch.autograd.grad(expected, embeddings)
        )


@pytest.mark.parametrize('margin', [2.1, 0.3])
def test_triplet_gradient_equals_the_loops_and_leaves_zero_rows_alone(margin, device):
    embeddings, _, triplets = sample(1, device=device, zero_row=True)
    ours = torch.autograd.grad(triplet_margin_loss(embeddings, triplets, margin), embeddings)[0]
    plain = reference.triplet_margin(embeddings, triplets, margin)
    torch.testing.assert_close(ours, torch.autograd.grad(plain, embeddings)[0])
    assert not ours[4].any()


def test_gradcheck(device):
    embeddings, labels, triplets = sample(0, device=device)
    assert torch.autograd.gradcheck(lambda e: triplet_margin_loss(e, triplets), embeddings)
    assert torch.autograd.gradcheck(lambda e: triplet_margin_loss(e, triplets, 0.2), embeddings)
    for loss in LABEL_LOSSES:
        assert torch.autograd.gradcheck(lambda e, loss=loss: loss(e, labels), embeddings)


def test_many_pairs_are_cut_into_chunks_without_a_difference(monkeypatch):
    embeddings, _, triplets = sample(2, count=60)
    whole = triplet_margin_loss(embeddings, triplets)
    monkeypatch.setattr('mm_tuning_plugin.functional.embeddings._CHUNK', 12)
    torch.testing.assert_close(triplet_margin_loss(embeddings, triplets), whole)


def test_expected_loss_is_the_mean_of_the_sampled_one():
    embeddings, labels, _ = sample(5, count=24)
    embeddings = embeddings.detach().relu()
    generator = torch.Generator().manual_seed(0)
    # given a graph the triplets of an anchor are not equally likely, but over all graphs they are
    draws = [
        triplet_margin_loss(embeddings, graph_triplets(labels, generator=generator))
        for _ in range(3000)
    ]
    draws = torch.stack(draws)
    error = draws.std() / math.sqrt(len(draws))
    assert (draws.mean() - expected_triplet_loss(embeddings, labels)).abs() < 4 * error


@pytest.mark.parametrize('seed', range(3))
def test_random_post_relu_features_start_near_1_05(seed, device):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(144, 2048, generator=generator).relu().to(device)
    labels = torch.randint(0, 21, (144,), generator=generator).to(device)
    triplets = graph_triplets(labels)
    assert triplet_margin_loss(embeddings, triplets).item() == pytest.approx(1.05, rel=0.01)
    assert expected_triplet_loss(embeddings, labels).item() == pytest.approx(1.05, rel=0.01)
    assert active_triplet_share(embeddings, triplets).item() == 1


def test_scale_and_prior_normalisation_do_not_matter(device):
    embeddings, labels, triplets = sample(3, device=device)
    for loss, match in [(triplet_margin_loss, triplets), *((f, labels) for f in LABEL_LOSSES)]:
        torch.testing.assert_close(loss(embeddings * 7, match), loss(embeddings, match))
        torch.testing.assert_close(loss(F.normalize(embeddings), match), loss(embeddings, match))


def test_perfect_and_worst_embeddings_have_the_known_losses():
    labels = torch.tensor([0, 0, 1, 1])
    triplets = Triplets(*torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1]]))
    apart = torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0]])
    assert triplet_margin_loss(apart, triplets) == 0  # 2.1 + 0 - 4 < 0
    assert expected_triplet_loss(apart, labels).item() == pytest.approx(1.05 - 2)  # hinge open
    assert active_triplet_share(apart, triplets) == 0
    mixed = torch.tensor([[1.0, 0], [-1, 0], [1, 0], [-1, 0]])
    assert triplet_margin_loss(mixed, triplets).item() == pytest.approx(3.05)
    same = torch.ones(4, 3)
    assert supervised_contrastive_loss(same, labels).item() == pytest.approx(math.log(3))
    assert balanced_contrastive(same, labels).item() == pytest.approx(math.log(2))  # of two classes
    half = Triplets(*torch.tensor([[0, 0], [1, 2], [2, 1]]))
    assert active_triplet_share(apart, half).item() == 0.5
    assert not active_triplet_share(apart.requires_grad_(), half).requires_grad


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_precision(dtype, device):
    embeddings, labels, triplets = sample(4, device=device)
    embeddings = embeddings.detach().to(dtype).requires_grad_()
    exact = embeddings.detach().double()
    for loss, match in [(triplet_margin_loss, triplets), *((f, labels) for f in LABEL_LOSSES)]:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            value = loss(embeddings, match)
            grad = torch.autograd.grad(value, embeddings)[0]
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert grad.dtype == dtype
        assert value.item() == pytest.approx(loss(exact, match).item(), rel=1e-6)


def test_nothing_to_compare_is_a_zero_that_hangs_on_the_embeddings(device):
    empty = Triplets(*(torch.empty(0, dtype=torch.int64, device=device) for _ in range(3)))
    cases = [(triplet_margin_loss, empty)]
    cases += [(supervised_contrastive_loss, torch.arange(4, device=device))]
    cases += [(expected_triplet_loss, torch.arange(4, device=device))]
    cases += [(expected_triplet_loss, torch.zeros(4, dtype=torch.int64, device=device))]
    for loss, match in cases:
        embeddings = torch.randn(4, 3, device=device, requires_grad=True)
        value = loss(embeddings, match)
        assert value.item() == 0 and value.shape == ()
        value.backward()
        assert embeddings.grad is not None and not embeddings.grad.any()
    assert active_triplet_share(torch.randn(4, 3, device=device), empty) == 0


@pytest.mark.parametrize('loss', LABEL_LOSSES)
@pytest.mark.parametrize('count', [0, 1])
def test_no_rows_or_one(loss, count):
    embeddings = torch.randn(count, 3, requires_grad=True)
    value = loss(embeddings, torch.zeros(count, dtype=torch.int64))
    value.backward()
    assert value.item() == 0 and embeddings.grad is not None


def test_singletons_are_no_anchors_but_negatives():
    embeddings = torch.eye(3)
    labels = torch.tensor([0, 0, 1])
    # 1.05 + cos(a, n) - cos(a, p), all orthogonal
    assert expected_triplet_loss(embeddings, labels).item() == pytest.approx(1.05)
    value = supervised_contrastive_loss(embeddings, labels)
    assert value.item() == pytest.approx(math.log(2))


def index(*values):
    return torch.tensor(values, dtype=torch.int64)


@pytest.mark.parametrize(
    ('embeddings', 'triplets', 'margin', 'message'),
    [
        (torch.zeros(4), (index(0),) * 3, 2.1, r'^embeddings\b.*\(4,\)'),
        (index(0)[None], (index(0),) * 3, 2.1, r'^embeddings\b.*int64'),
        (torch.zeros(4, 2), (index(0),) * 2, 2.1, r'^triplets\b'),
        (
            torch.zeros(4, 2),
            (index(0), index(1), torch.ones(1)),
            2.1,
            r'^triplets\.negative\b.*float',
        ),
        (torch.zeros(4, 2), (index(0), index(1, 2), index(3)), 2.1, r'^triplets\b.*\b1, 2, 1'),
        (torch.zeros(4, 2), (index(0), index(4), index(3)), 2.1, r'positive\b.*\b4\b.*4\.\.4'),
        (torch.zeros(4, 2), (index(-1), index(1), index(3)), 2.1, r'anchor\b.*-1\.\.-1'),
        (torch.zeros(4, 2), (index(0), index(1), index(3)), math.nan, r'^margin\b.*nan'),
        (torch.zeros(4, 2), (index(0), index(1), index(3)), '2', r"^margin\b.*'2'"),
    ],
)
def test_wrong_triplet_arguments_are_named(embeddings, triplets, margin, message):
    for function in (triplet_margin_loss, active_triplet_share):
        with pytest.raises(ValueError, match=message):
            function(embeddings, triplets, margin)


@pytest.mark.parametrize('loss', LABEL_LOSSES)
@pytest.mark.parametrize(
    ('embeddings', 'labels', 'message'),
    [
        (torch.zeros(3, 2, 1), index(0, 1, 2), r'^embeddings\b.*\(3, 2, 1\)'),
        (torch.zeros(3, 2), index(0, 1), r'^labels\b.*\b3\b.*\b2$'),
        (torch.zeros(3, 2), torch.zeros(3), r'^labels\b.*float32'),
    ],
)
def test_wrong_label_arguments_are_named(loss, embeddings, labels, message):
    with pytest.raises(ValueError, match=message):
        loss(embeddings, labels)


@pytest.mark.parametrize('temperature', [0, -1, math.inf])
def test_wrong_temperature_is_named(temperature):
    with pytest.raises(ValueError, match=rf'^temperature\b.* {temperature} \('):
        supervised_contrastive_loss(torch.zeros(2, 2), index(0, 0), temperature)
