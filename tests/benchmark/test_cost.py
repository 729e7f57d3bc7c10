import random

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS

from mm_tuning_plugin.benchmark.design import cost
from mm_tuning_plugin.benchmark.design.cost import (
    CostBook,
    NotComputed,
    StepCost,
    equal_iterations,
    measure_step,
)
from mm_tuning_plugin.benchmark.fingerprints import Fingerprints
from mm_tuning_plugin.engine import derive_tuning_config

# ---- counting


class Rows:
    """A data set of vectors."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return torch.rand(10)


class Layers(BaseModel):
    """Two linear layers: 10 -> 20 -> 5."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.Linear(20, 5))

    def forward(self, inputs, mode='tensor'):
        assert self.training
        return {'loss': self.layers(torch.stack(inputs)).mean(), 'accuracy': inputs[0].mean()}


class Inputs(torch.nn.Module):
    """Names what the loader gives."""

    def forward(self, data, training=False):
        return {'inputs': list(data)}


def step_config(batch_size, max_iters=100, **loader):
    return Config(
        {
            'model': {'type': 'FlopsTestLayers', 'data_preprocessor': None},
            'train_cfg': {'max_iters': max_iters},
            'train_dataloader': {
                'batch_size': batch_size,
                'sampler': {'type': 'InfiniteSampler', 'shuffle': True},
                'dataset': {'type': 'FlopsTestRows'},
                'collate_fn': {'type': 'pseudo_collate'},
                **loader,
            },
        }
    )


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(MODELS._module_dict, 'FlopsTestLayers', make_layers)
    monkeypatch.setitem(DATASETS._module_dict, 'FlopsTestRows', Rows)


def make_layers(data_preprocessor=None):
    model = Layers()
    model.data_preprocessor = Inputs()
    return model


WORKERS = {
    'num_workers': 4, 'persistent_workers': True, 'prefetch_factor': 2, 'timeout': 30,
    'multiprocessing_context': 'spawn',
}  # fmt: skip


@pytest.mark.parametrize('workers', [{}, WORKERS])
def test_flops_of_known_layers(registered, workers):
    # both forward and the weights' gradients; the first layer needs no gradient of its input
    expected = 2 * 8 * (2 * 10 * 20 + 3 * 20 * 5)
    cfg = step_config(8, **workers)
    text = cfg.pretty_text
    assert measure_step(cfg).flops == expected
    assert cfg.pretty_text == text, 'the config is not changed'


def test_counting_leaves_the_random_state_alone(registered):
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    measure_step(step_config(2))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == before


def test_what_is_large_is_not_computed(monkeypatch):
    layer, images = torch.nn.Conv2d(3, 5, 3, padding=1), torch.ones(2, 3, 6, 7)
    everywhere = images > 0
    monkeypatch.setattr(cost, 'LARGE', images.numel())
    with NotComputed():
        made = layer(images)
        (made.sum() + torch.nn.functional.linear(images, torch.ones(4, 7)).sum()).backward()
        assert images[everywhere].shape == (252,), 'values determine this shape'
        assert images.relu_() is images
    assert made.shape == (2, 5, 6, 7) and not made.any()
    assert layer.weight.grad.shape == layer.weight.shape and not layer.weight.grad.any()
    assert layer(images).any()


@pytest.mark.parametrize('stage', ['fine-tuning', 'points', 'patches'])
def test_what_is_not_computed_is_counted_all_the_same(toy_cfg, monkeypatch, stage):
    if stage != 'fine-tuning':
        toy_cfg.mix_and_match.update(nodes=stage, size_range=(16, 32), patch_size=32)
        toy_cfg = derive_tuning_config(toy_cfg)
    monkeypatch.setattr(cost, 'LONG', 0)
    counted = measure_step(toy_cfg).flops
    monkeypatch.setattr(cost, 'LARGE', 10**9)
    assert counted == measure_step(toy_cfg).flops > 10**6


def test_a_long_step_is_not_run_only_to_be_timed(registered, monkeypatch):
    steps = []
    plain = Layers.forward
    monkeypatch.setattr(Layers, 'forward', lambda *a, **k: steps.append(1) or plain(*a, **k))
    monkeypatch.setattr(cost, '_speed', lambda device: 100.0)
    monkeypatch.setattr(cost, 'LONG', 112.0)
    assert measure_step(step_config(8)).seconds < 60 and len(steps) == 3
    monkeypatch.setattr(cost, 'LONG', 111.0)
    assert measure_step(step_config(8)) == (11200, 112.0) and len(steps) == 4


@pytest.mark.parametrize(
    ('flops', 'step', 'expected'), [(45.0, 1, 45), (20, 1000, 1), (12.0, 5, 3), (0, 7, 0)]
)
def test_equal_iterations_round_up(flops, step, expected):
    assert equal_iterations(flops, step) == expected


# ---- the book


def book(folder):
    return CostBook(folder / 'costs', Fingerprints(folder))


def test_costs_are_kept_by_what_they_depend_on(registered, tmp_path, monkeypatch):
    first = book(tmp_path).of(step_config(8))
    assert first.flops == 2 * 8 * (2 * 10 * 20 + 3 * 20 * 5) and first.seconds > 0
    assert book(tmp_path).of(step_config(12)).flops == first.flops * 12 // 8
    monkeypatch.setattr(cost, 'measure_step', None)
    longer = step_config(8, max_iters=7)
    assert book(tmp_path).of(longer) == first, 'read from the disk; the schedule does not matter'


def test_another_device_is_timed_and_counts_the_same(registered, tmp_path, monkeypatch):
    first = book(tmp_path).of(step_config(8))
    monkeypatch.setattr(cost, 'device_name', lambda: 'another')
    monkeypatch.setattr(cost, 'measure_step', lambda cfg, device: StepCost(first.flops + 1, 9.0))
    assert book(tmp_path).of(step_config(8)) == StepCost(first.flops, 9.0)
