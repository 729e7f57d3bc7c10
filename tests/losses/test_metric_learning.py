import sys

import pytest
import torch
from mistakes import mistake
from pytorch_metric_learning import distances, losses, miners

from mm_tuning_plugin import functional
from mm_tuning_plugin.engine import MixAndMatchRunner
from mm_tuning_plugin.losses.metric_learning import PMLLoss

LABELS = torch.tensor([3, 3, 0, 7, 0, 3, 0, 9])


def rows(count=8):
    torch.manual_seed(0)
    return torch.randn(count, 5, requires_grad=True)


def seeded(seed=4):
    return torch.Generator().manual_seed(seed)


def graph():
    generator = seeded()
    torch.randint(2**31, (), generator=generator)  # the seed of what the library draws
    return tuple(functional.graph_triplets(LABELS, generator=generator))


def test_a_loss_by_name_gets_the_triplets_of_the_graph():
    done = PMLLoss('TripletMarginLoss')(rows(), LABELS, seeded())
    assert torch.equal(done['loss'], losses.TripletMarginLoss()(rows(), LABELS, graph()))
    assert done['triplets'] == 6


def test_its_own_pairs_are_all():
    done = PMLLoss('ContrastiveLoss', match='own')(rows(), LABELS, seeded())
    assert torch.equal(done['loss'], losses.ContrastiveLoss()(rows(), LABELS))
    assert 'triplets' not in done


def test_a_miner_chooses_instead_of_the_graph():
    loss = dict(type='TripletMarginLoss', distance=dict(type='CosineSimilarity'), margin=0.3)
    done = PMLLoss(loss, miner='BatchHardMiner')(rows(), LABELS, seeded())
    chosen = miners.BatchHardMiner()(rows(), LABELS)
    expected = losses.TripletMarginLoss(distance=distances.CosineSimilarity(), margin=0.3)
    assert torch.equal(done['loss'], expected(rows(), LABELS, chosen))
    assert done['triplets'] == len(chosen[0])


def test_pairs_of_a_miner_are_counted_once():
    loss = PMLLoss('ContrastiveLoss', miner='PairMarginMiner')
    chosen = miners.PairMarginMiner()(rows(), LABELS)
    assert loss(rows(), LABELS)['triplets'] == len(chosen[0]) + len(chosen[2])


def test_sizes_that_a_class_asks_for_are_filled_in():
    loss = PMLLoss('ProxyAnchorLoss', channels=5, num_classes=11)
    assert loss.loss.proxies.shape == (11, 5)
    memory = dict(type='CrossBatchMemory', loss='NTXentLoss', memory_size=16)
    memory['loss'] = dict(type='NTXentLoss')
    loss = PMLLoss(memory, match='own', channels=5)
    assert loss.loss.embedding_memory.shape == (16, 5)
    loss = PMLLoss(dict(type='ProxyAnchorLoss', num_classes=10), channels=5, num_classes=11)
    assert loss.loss.proxies.shape == (10, 5)


@pytest.mark.parametrize(
    ('labels', 'options'),
    [
        (LABELS[:0], {}),
        (LABELS[:1], {'match': 'own'}),
        (torch.tensor([1, 1]), {}),
        (torch.tensor([1, 1]), {'miner': 'BatchHardMiner'}),
    ],
)
def test_nothing_to_compare_is_a_zero_connected_to_the_embeddings(labels, options):
    embeddings = rows(len(labels))
    loss = PMLLoss('TripletMarginLoss', **options)(embeddings, labels, seeded())['loss']
    loss.backward()
    assert loss.item() == 0 and embeddings.grad is not None


@pytest.mark.parametrize('labels', [LABELS[:1], torch.tensor([1, 1])])
def test_nothing_to_compare_is_a_zero_connected_to_the_parameters_of_a_loss(labels):
    memory = PMLLoss('ProxyAnchorLoss', match='graph', channels=5, num_classes=11)
    memory(rows(len(labels)), labels, seeded())['loss'].backward()
    assert (memory.loss.proxies.grad == 0).all()


def test_what_the_library_draws_follows_the_generator_and_moves_no_other():
    loss = PMLLoss(dict(type='TripletMarginLoss', triplets_per_anchor=1), match='own')
    torch.manual_seed(1)
    before = torch.get_rng_state()
    values = [loss(rows().detach(), LABELS, seeded(s))['loss'].item() for s in (1, 1, 2)]
    torch.manual_seed(1)
    assert torch.equal(before, torch.get_rng_state())
    state = torch.get_rng_state()
    loss(torch.ones(8, 5), LABELS, seeded(3))
    assert torch.equal(state, torch.get_rng_state())
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize(
    ('options', 'where', 'problem', 'remedy'),
    [
        (
            dict(loss='TripletMargenLoss'),
            'PMLLoss.loss',
            'TripletMargenLoss',
            ['pytorch_metric_learning', 'TripletMarginLoss'],
        ),
        (dict(loss=3), 'PMLLoss.loss', '3', 'type'),
        (
            dict(loss=dict(type='TripletMarginLoss', marjin=1)),
            'PMLLoss.loss',
            'marjin',
            'TripletMarginLoss',
        ),
        (dict(loss='ProxyAnchorLoss'), 'PMLLoss.loss', 'num_classes', 'ProxyAnchorLoss'),
        (dict(loss='ContrastiveLoss', match='all'), 'PMLLoss.match', "'all'", ["'graph'", "'own'"]),
        (
            dict(loss='ContrastiveLoss', miner='BatchHardMiner', match='graph'),
            'PMLLoss.match',
            ["'graph'", 'miner'],
            "'own'",
        ),
    ],
)
def test_a_wrong_config_is_one_line(options, where, problem, remedy):
    with mistake(where, problem, remedy):
        PMLLoss(**options)


@pytest.mark.parametrize(
    ('loss', 'where', 'problem', 'remedy'),
    [
        ('P2SGradLoss', 'PMLLoss.match', ["'graph'", 'P2SGradLoss'], "'own'"),
        (
            dict(type='TripletMarginLoss', reducer=dict(type='DoNothingReducer')),
            'PMLLoss.loss',
            ['TripletMarginLoss', 'dict'],
            'reducer',
        ),
    ],
)
def test_a_loss_that_does_not_fit_is_one_line(loss, where, problem, remedy):
    built = PMLLoss(loss, channels=5, num_classes=11)
    with mistake(where, problem, remedy):
        built(rows(), LABELS, seeded())


def test_without_the_library_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pytorch_metric_learning', None)
    monkeypatch.setitem(sys.modules, 'pytorch_metric_learning.losses', None)
    with mistake('PMLLoss.loss', 'TripletMarginLoss', 'pip install pytorch-metric-learning'):
        PMLLoss('TripletMarginLoss')


def test_stage_one_knows_the_sizes_and_trains(toy_cfg):
    loss = dict(type='mm_tuning_plugin.PMLLoss', loss='ProxyAnchorLoss', match='own')
    toy_cfg['mix_and_match'] = dict(
        loss=loss, max_iters=2, images_per_batch=2, projection_channels=24, retrieval_images=0
    )
    tuned = MixAndMatchRunner.from_cfg(toy_cfg).tune()
    last = torch.load(tuned.parent / 'iter_2.pth', weights_only=False)['state_dict']
    assert last['criterion.loss.proxies'].shape == (8, 24)
