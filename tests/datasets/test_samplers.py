import pickle
from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader

from mm_tuning_plugin.datasets import samplers
from mm_tuning_plugin.datasets.samplers import SeededIndex, SeededInfiniteSampler


def make(monkeypatch, size=7, seed=3, rank=0, world_size=1, batch_size=1):
    monkeypatch.setattr(samplers, 'get_dist_info', lambda: (rank, world_size))
    return SeededInfiniteSampler(range(size), seed=seed, batch_size=batch_size)


def drawn(sampler, count):
    return [(int(index), index.seed) for index in islice(sampler, count)]


def test_index_is_an_int_that_keeps_its_seed_through_pickling():
    index = pickle.loads(pickle.dumps(SeededIndex(5, (1, 2))))
    assert type(index) is SeededIndex and index == 5 and index.seed == (1, 2)
    assert list(range(9))[index] == 5


class Seeds:
    """Gives back what arrives in a worker."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return int(index), *index.seed


@pytest.mark.parametrize('num_workers', [0, 2])
def test_seeds_arrive_through_a_data_loader(num_workers):
    data = Seeds()
    loader = DataLoader(
        data,
        batch_size=3,
        sampler=SeededInfiniteSampler(data, seed=8),
        num_workers=num_workers,
        collate_fn=list,
    )
    batches = list(islice(loader, 3))
    expected = [(index, *seed) for index, seed in drawn(SeededInfiniteSampler(data, seed=8), 9)]
    assert [item for batch in batches for item in batch] == expected


def test_epochs_are_different_permutations(monkeypatch):
    indices = [index for index, _ in drawn(make(monkeypatch), 7 * 20)]
    epochs = [tuple(indices[i : i + 7]) for i in range(0, len(indices), 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(epochs)) > 15


def test_order_follows_from_the_seed_alone(monkeypatch):
    first = drawn(make(monkeypatch, seed=3), 30)
    torch.manual_seed(99)
    torch.rand(5)
    assert drawn(make(monkeypatch, seed=3), 30) == first
    assert [i for i, _ in drawn(make(monkeypatch, seed=4), 30)] != [i for i, _ in first]
    assert [seed for _, seed in first] == [(3, position) for position in range(30)]


def test_drawing_leaves_the_random_state_alone(monkeypatch):
    sampler = make(monkeypatch)
    before = torch.get_rng_state()
    drawn(sampler, 30)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize('batch_size', [1, 3])
@pytest.mark.parametrize('world_size', [2, 3, 8])  # 8: more ranks than images
def test_a_batch_of_all_ranks_is_that_of_one(monkeypatch, world_size, batch_size):
    batches, options = 4, dict(world_size=world_size, batch_size=batch_size)
    together = drawn(make(monkeypatch), batches * world_size * batch_size)
    apart = [
        drawn(make(monkeypatch, rank=rank, **options), batches * batch_size)
        for rank in range(world_size)
    ]
    joined = []
    for start in range(0, batches * batch_size, batch_size):
        for own in apart:
            joined += own[start : start + batch_size]
    assert joined == together


@pytest.mark.parametrize('batch_size', [1, 4])
@pytest.mark.parametrize('world_size', [1, 2])
@pytest.mark.parametrize('skips', [(0,), (1,), (5, 6), (100,)])
def test_skipping_equals_having_consumed(monkeypatch, world_size, batch_size, skips):
    for rank in range(world_size):
        sampler = make(monkeypatch, rank=rank, world_size=world_size, batch_size=batch_size)
        expected = drawn(sampler, sum(skips) + 10)[sum(skips) :]
        for skip in skips:
            sampler.skip(skip)
        assert drawn(sampler, 10) == expected


def test_length_epochs_and_a_seed_of_its_own(monkeypatch):
    sampler = make(monkeypatch, seed=None)
    assert len(sampler) == 7 and isinstance(sampler.seed, int)
    before = drawn(sampler, 5)
    sampler.set_epoch(4)
    assert drawn(sampler, 5) == before
