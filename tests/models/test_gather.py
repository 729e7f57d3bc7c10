"""The nodes of two processes, split unevenly, give the loss and gradients of one process."""

import warnings

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from gloo import end_group, start_ranks
from torch.nn.parallel import DistributedDataParallel

from mm_tuning_plugin.losses.graph_triplet import GraphTripletLoss
from mm_tuning_plugin.losses.supervised_contrastive import SupervisedContrastiveLoss
from mm_tuning_plugin.models import gather_nodes

LABELS = torch.tensor([0, 1, 1, 2, 0, 1, 2, 2, 0, 1])
LOSSES = {'triplet': GraphTripletLoss(), 'contrastive': SupervisedContrastiveLoss()}
SPLITS = {'uneven': (7, 3), 'no node on rank 0': (0, 10), 'no node on rank 1': (10, 0)}


def rows():
    return torch.rand(10, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


class Model(torch.nn.Module):
    """One layer, then the loss of all nodes, inside forward as in the tuner."""

    def __init__(self, loss):
        super().__init__()
        self.layer = torch.nn.Linear(6, 4, dtype=torch.float64)
        with torch.no_grad():
            self.layer.weight.copy_(torch.linspace(-1, 1, 24).view(4, 6).sin())
            self.layer.bias.fill_(0.1)
        self.loss = loss

    def forward(self, inputs, labels):
        embeddings, labels, self.counts = gather_nodes(F.normalize(self.layer(inputs)), labels)
        self.labels = labels
        generator = torch.Generator().manual_seed(1)
        return self.loss(embeddings, labels, generator)['loss'] + 0.0 * embeddings.sum()


def own_part(rank, split):
    part = slice(0, split[0]) if rank == 0 else slice(split[0], None)
    return rows()[part], LABELS[part]


def work(rank, world_size, folder):
    warnings.simplefilter('error', FutureWarning)  # a deprecated call would speak up on every rank
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/init', rank=rank, world_size=world_size
    )
    done = {}
    for name, loss in LOSSES.items():
        for case, split in SPLITS.items():
            model = DistributedDataParallel(Model(loss))
            value = model(*own_part(rank, split))
            value.backward()
            gradients = [parameter.grad for parameter in model.parameters()]
            done[name, case] = value.detach(), gradients, model.module.labels, model.module.counts
            # without DDP's averaging, the ranks' gradients add up to as many times the gradient
            bare = Model(loss)
            bare(*own_part(rank, split)).backward()
            summed = bare.layer.weight.grad
            dist.all_reduce(summed)
            done[name, case, 'summed'] = summed / world_size
    nothing = torch.zeros(0, 4, requires_grad=True)
    embeddings, labels, counts = gather_nodes(nothing, LABELS[:0])
    embeddings.sum().backward()
    done['nothing'] = *(tuple(t.shape) for t in (embeddings, labels, nothing.grad)), counts
    torch.save(done, f'{folder}/rank{rank}.pt')
    end_group()


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    start_ranks(work, 2, str(folder))
    return [torch.load(folder / f'rank{rank}.pt') for rank in range(2)]


@pytest.mark.parametrize('case', SPLITS)
@pytest.mark.parametrize('name', LOSSES)
def test_two_processes_equal_one(ranks, name, case):
    model = Model(LOSSES[name])
    expected = model(rows(), LABELS)
    expected.backward()
    for rank in ranks:
        value, gradients, labels, counts = rank[name, case]
        assert torch.equal(labels, LABELS), 'in rank order'
        assert counts == SPLITS[case]
        assert abs(value - expected) < 1e-10
        for gradient, parameter in zip(gradients, model.parameters()):
            assert parameter.grad.abs().max() > 1e-4
            assert (gradient - parameter.grad).abs().max() < 1e-10
        assert (rank[name, case, 'summed'] - model.layer.weight.grad).abs().max() < 1e-10


def test_no_node_anywhere(ranks):
    assert [rank['nothing'] for rank in ranks] == [((0, 4), (0,), (0, 4), (0, 0))] * 2


def test_one_process_gathers_nothing():
    inputs = rows()
    embeddings, labels, counts = gather_nodes(inputs, LABELS)
    assert embeddings is inputs and labels is LABELS and counts == (10,)
