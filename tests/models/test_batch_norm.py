"""Statistics estimated anew, against plain loops in float64."""

import pytest
import torch
import torch.distributed as dist
from gloo import end_group, start_ranks
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from torch import nn

from mm_tuning_plugin.models.batch_norm import (
    estimate_statistics,
    momentum_override,
    tracking_norms,
)
from mm_tuning_plugin.registry import MODELS

RESNET = {
    'type': 'ResNet', 'depth': 18, 'base_channels': 4, 'stem_channels': 4,
    'norm_cfg': {'type': 'BN'},
}  # fmt: skip
SIZES = (3, 2, 2, 1)  # images of the batches


def make(backbone=RESNET):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        network = MODELS.build(backbone).double()
    for norm in tracking_norms(network):  # as after some training
        norm.running_mean.uniform_()
        norm.running_var.uniform_(0.5, 2)
        norm.num_batches_tracked.fill_(7)
    return network


def batches(sizes=SIZES):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(sum(sizes), 3, 64, 64, generator=generator).double() + 0.5
    return images.split(sizes)


def by_plain_loop(network, sizes=SIZES):
    """Mean and variance (denominator n - 1) of what enters each layer, weighted by images."""
    network.train()
    names = {m: name for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    entered = {}
    for module, name in names.items():
        module.register_forward_pre_hook(
            lambda module, inputs, name=name: entered.setdefault(name, []).append(inputs[0])
        )
    for batch in batches(sizes):
        with torch.no_grad():
            network(batch)
    expected = {}
    for name, inputs in entered.items():
        means, variances = [], []
        for x in inputs:
            channels = [x[:, k].flatten() for k in range(x.shape[1])]
            means.append(torch.stack([c.sum() / len(c) for c in channels]))
            variances.append(
                torch.stack([((c - c.sum() / len(c)) ** 2).sum() / (len(c) - 1) for c in channels])
            )
        expected[f'{name}.running_mean'] = sum(n * m for n, m in zip(sizes, means)) / sum(sizes)
        expected[f'{name}.running_var'] = sum(n * v for n, v in zip(sizes, variances)) / sum(sizes)
    return expected


def assert_estimated(network, before, expected):
    for name, value in network.state_dict().items():
        if name in expected:
            assert (value - expected[name]).abs().max() < 1e-10, name
            assert (value - before[name]).abs().max() > 1e-3, name
        else:
            assert torch.equal(value, before[name]), name


def state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_the_statistics_are_those_of_the_plain_loop():
    network = make()
    before = state(network)
    assert estimate_statistics(network, batches()) == 20
    assert_estimated(network, before, by_plain_loop(make()))
    assert all(norm.momentum == 0.1 for norm in tracking_norms(network))
    assert not any(parameter.grad is not None for parameter in network.parameters())


def test_only_layers_that_train_take_part():
    network = make({**RESNET, 'frozen_stages': 2})
    before = state(network)
    expected = by_plain_loop(make({**RESNET, 'frozen_stages': 2}))
    trained = {k: v for k, v in expected.items() if k.startswith(('layer3', 'layer4'))}
    assert estimate_statistics(network, batches()) == len(trained) // 2 == 10
    assert_estimated(network, before, trained)


@pytest.mark.parametrize('training', [True, False])
def test_modes_and_random_states_are_left_as_they_were(training):
    network = make({**RESNET, 'frozen_stages': 1})
    network.train(training)
    network.layer3.eval()
    modes = [module.training for module in network.modules()]
    random = torch.get_rng_state()
    estimate_statistics(network, batches())
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)


def test_nothing_else_is_random():
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(3)).double()
    estimate_statistics(network, batches())
    mean = torch.cat(batches()).mean((0, 2, 3))
    assert (network[1].running_mean - mean).abs().max() < 1e-10


def test_norm_eval_reads_no_batch():
    network = make({**RESNET, 'norm_eval': True})
    before = state(network)
    unread = iter(batches())
    assert estimate_statistics(network, unread) == 0
    assert len(list(unread)) == len(SIZES)
    assert_estimated(network, before, {})


def test_statistics_that_are_not_finite_are_mended():
    network = make()
    network.bn1.running_mean.fill_(float('nan'))
    network.bn1.running_var.fill_(float('inf'))
    estimate_statistics(network, batches())
    expected = by_plain_loop(make())
    assert (network.bn1.running_mean - expected['bn1.running_mean']).abs().max() < 1e-10
    assert (network.bn1.running_var - expected['bn1.running_var']).abs().max() < 1e-10


class Unusual(nn.Module):
    """One layer called twice, one never, one without running statistics."""

    def __init__(self):
        super().__init__()
        self.twice, self.never = nn.BatchNorm2d(3, momentum=None), nn.BatchNorm2d(3)
        self.bare = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, images):
        return self.twice(3 * self.twice(images) + 1) + self.bare(images)


def test_layers_called_twice_or_never():
    network = Unusual().double()
    network.never.running_mean.fill_(5)
    assert estimate_statistics(network, batches()) == 1
    assert torch.equal(network.never.running_mean, torch.full((3,), 5.0).double())
    expected = torch.stack([b.mean((0, 2, 3)) * len(b) for b in batches()]).sum(0) / sum(SIZES)
    # the second call sees mean 1, since the first one normalises
    assert torch.allclose(network.twice.running_mean, (expected + 1) / 2, atol=1e-10)
    assert network.twice.momentum is None and network.twice.num_batches_tracked == 0


def test_synchronised_layers_and_what_mmengine_replaces_them_by():
    norm_cfg = {'norm_cfg': {'type': 'SyncBN'}}
    for network in (
        make({**RESNET, **norm_cfg}),
        revert_sync_batchnorm(make({**RESNET, **norm_cfg})),
    ):
        before = state(network)
        assert estimate_statistics(network, batches()) == 20
        assert_estimated(network, before, by_plain_loop(make()))


def test_held_momentum_ends_with_an_error_too():
    norm = nn.BatchNorm2d(3)
    counter = norm.num_batches_tracked
    with pytest.raises(RuntimeError), momentum_override([norm], 0.0):
        norm(torch.rand(2, 3, 4, 4))
        raise RuntimeError
    assert norm.momentum == 0.1 and norm.num_batches_tracked is counter
    assert counter == 0 and torch.equal(norm.running_mean, torch.zeros(3))


def work(rank, world_size, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/init', rank=rank, world_size=world_size
    )
    network = make()
    # three batches here, one there: nothing synchronises but the sums at the end
    estimate_statistics(network, batches()[:3] if rank == 0 else batches()[3:])
    torch.save(network.state_dict(), f'{folder}/rank{rank}.pt')
    end_group()


def test_two_ranks_average_their_shares(tmp_path):
    start_ranks(work, 2, str(tmp_path))
    expected = by_plain_loop(make())
    for rank in range(2):
        network = make()
        before = state(network)
        network.load_state_dict(torch.load(tmp_path / f'rank{rank}.pt'))
        assert_estimated(network, before, expected)
