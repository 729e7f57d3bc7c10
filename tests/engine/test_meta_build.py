"""A backbone without its weights: what it holds, and that it leaves no trace."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from mm_tuning_plugin.engine.config.meta_build import build_on_meta


class Drawing(nn.Module):
    """A backbone whose constructor draws numbers and reads them, as transformers' do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1000, 1000)
        self.rate = float(torch.rand(1)) + np.random.rand() + random.random()
        self.rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]


def seed():
    for reset in (random.seed, np.random.seed, torch.manual_seed):
        reset(5)


def test_it_holds_no_weights_and_moves_no_random_state():
    seed()
    expected = random.random(), np.random.rand(), float(torch.rand(1))
    seed()
    built = build_on_meta(dict(type=Drawing))
    assert (random.random(), np.random.rand(), float(torch.rand(1))) == expected
    assert built.layer.weight.is_meta and built.layer.weight.shape == (1000, 1000)
    assert torch.empty(1).device.type == 'cpu'


@pytest.mark.parametrize('scope', ['mmseg', 'mm_tuning_plugin'])
def test_names_and_shapes_are_those_of_the_backbone(scope):
    config = dict(type='mmseg.VisionTransformer', img_size=32, patch_size=8, embed_dims=16,
                  num_layers=2, num_heads=2, drop_path_rate=0.1)  # fmt: skip
    from mmseg.registry import MODELS

    built = {name: t.shape for name, t in build_on_meta(config, scope).state_dict().items()}
    assert built == {name: t.shape for name, t in MODELS.build(config).state_dict().items()}


def test_what_the_constructor_raises_comes_through():
    with pytest.raises(TypeError, match='no_such'):
        build_on_meta(dict(type='ResNet', depth=18, no_such=1))
