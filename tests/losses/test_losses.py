import pytest
import torch

from mm_tuning_plugin import functional
from mm_tuning_plugin.losses.cross_entropy import NodeCrossEntropyLoss
from mm_tuning_plugin.losses.expected_triplet import ExpectedTripletLoss
from mm_tuning_plugin.losses.graph_triplet import GraphTripletLoss
from mm_tuning_plugin.losses.supervised_contrastive import SupervisedContrastiveLoss
from mm_tuning_plugin.registry import MODELS

LOSSES = [
    GraphTripletLoss(),
    ExpectedTripletLoss(),
    SupervisedContrastiveLoss(),
    SupervisedContrastiveLoss(balanced=True),
]
LABELS = torch.tensor([3, 3, 0, 7, 0, 3, 0, 9])


def embeddings(count=8, device='cpu'):
    torch.manual_seed(0)
    return torch.randn(count, 5).to(device).requires_grad_()


def seeded(seed=4):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('labels', [LABELS, LABELS[:0], torch.tensor([1, 1]), torch.tensor([1, 2])])
def test_one_key_alone_says_loss_and_all_are_scalars(loss, labels, device):
    done = loss(embeddings(len(labels), device), labels.to(device), seeded())
    assert [key for key in done if 'loss' in key] == ['loss']
    assert all(value.shape == () and value.dtype == torch.float32 for value in done.values())
    assert not any(value.requires_grad for key, value in done.items() if key != 'loss')


@pytest.mark.parametrize('margin', [2.1, 0.3])
def test_graph_triplet_is_the_functional_one(margin, device):
    rows, labels = embeddings(device=device), LABELS.to(device)
    triplets = functional.graph_triplets(labels, generator=seeded())
    done = GraphTripletLoss(margin)(rows, labels, seeded())
    assert torch.equal(done['loss'], functional.triplet_margin_loss(rows, triplets, margin))
    share = functional.active_triplet_share(rows, triplets, margin)
    assert torch.equal(done['active_share'], share)
    assert done['triplets'] == len(triplets.anchor) == 6


def test_graph_triplet_follows_its_generator():
    rows = embeddings()
    losses = {GraphTripletLoss()(rows, LABELS, seeded(s))['loss'].item() for s in (1, 1, 2, 3)}
    assert len(losses) == 3


@pytest.mark.parametrize('margin', [2.1, 0.3])
def test_expected_triplet_is_the_functional_one(margin, device):
    rows, labels = embeddings(device=device), LABELS.to(device)
    done = ExpectedTripletLoss(margin)(rows, labels)
    expected = functional.expected_triplet_loss(rows, labels, margin)
    torch.testing.assert_close(done['loss'], expected)
    assert done['triplets'] == 6


@pytest.mark.parametrize('balanced', [False, True])
@pytest.mark.parametrize('temperature', [0.1, 0.5])
def test_supervised_contrastive_is_the_functional_one(temperature, balanced, device):
    rows, labels = embeddings(device=device), LABELS.to(device)
    done = SupervisedContrastiveLoss(temperature, balanced)(rows, labels)
    expected = functional.supervised_contrastive_loss(rows, labels, temperature, balanced=balanced)
    torch.testing.assert_close(done['loss'], expected)
    assert done['triplets'] == 6


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('labels', [[], [4], [1, 2, 3]])
def test_nothing_to_compare_is_a_zero_with_gradients(loss, labels):
    rows = embeddings(len(labels))
    done = loss(rows, torch.tensor(labels, dtype=torch.int64), seeded())
    assert done['loss'] == 0 and done['triplets'] == 0
    done['loss'].backward()
    assert rows.grad is not None and (rows.grad == 0).all()


@pytest.mark.parametrize('loss', LOSSES)
def test_one_class_has_no_triplets(loss):
    done = loss(embeddings(4), torch.tensor([2, 2, 2, 2]), seeded())
    assert done['triplets'] == 0 and torch.isfinite(done['loss'])


@pytest.mark.parametrize('loss', LOSSES)
def test_built_by_name(loss):
    name = type(loss).__name__
    assert isinstance(MODELS.build({'type': f'mm_tuning_plugin.{name}'}), type(loss))


def test_cross_entropy_is_torch_s_and_counts_hits(device):
    scores = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], device=device, requires_grad=True)
    done = NodeCrossEntropyLoss()(scores, torch.tensor([0, 1, 1], device=device))
    odds = torch.tensor([-2.0, -1.0, 3.0]).exp()  # of all other classes against the right one
    torch.testing.assert_close(done['loss'].cpu(), (1 + odds).log().mean())
    assert done['accuracy'] == pytest.approx(2 / 3)
    assert 'triplets' not in done  # a batch of one class teaches it as well


def test_cross_entropy_of_nothing_is_a_zero_with_gradients():
    rows = embeddings(0)
    done = NodeCrossEntropyLoss()(rows, torch.zeros(0, dtype=torch.int64))
    done['loss'].backward()
    assert done['loss'] == 0 and rows.grad is not None
