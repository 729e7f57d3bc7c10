"""The released numbers in the config that `recipe='paper'` derives, and what its optimizer does.

Each system's own config is held to them in tests/paper.
"""

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from mm_tuning_plugin.engine import derive_tuning_config

RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4
# images, patches an image, range of sides, whether class 0 is background
SYSTEMS = {
    'AlexNet on VOC': (40, 10, (64, 256), True),
    'VGG-16 on VOC, a GPU of four': (16, 9, (64, 256), True),
    'VGG-16 on Cityscapes, a GPU of four': (16, 9, (128, 128), False),
}


def as_released(cfg, system='VGG-16 on VOC, a GPU of four'):
    images, each, sides, background = SYSTEMS[system]
    first = 'background' if background else 'road'
    cfg.train_dataloader.dataset.metainfo = dict(classes=(first, *'bcdefgh'))
    cfg.mix_and_match = dict(
        recipe='paper',
        images_per_batch=images,
        nodes_per_image=each,
        size_range=sides,
        transforms=['RandomCrop', 'RandomFlip'],
    )
    return derive_tuning_config(cfg)


@pytest.mark.parametrize('system', SYSTEMS)
def test_the_released_numbers_are_derived(toy_cfg, system):
    images, each, sides, background = SYSTEMS[system]
    derived = as_released(toy_cfg, system)
    assert derived.train_dataloader.batch_size == images
    pipeline = derived.train_dataloader.dataset.dataset.pipeline
    kinds = [step['type'].split('.')[-1] for step in pipeline]
    assert kinds == [
        'LoadImageFromFile', 'LoadAnnotations', 'CheckLabels', 'RandomCrop', 'RandomFlip',
        'SamplePatches', 'PackNodeInputs',
    ]  # fmt: skip
    assert dict(pipeline[5], type=None) == dict(
        type=None,
        num_patches=each,
        size_range=list(sides),
        patch_size=128,
        background_index=0 if background else None,
        background_ratio=0.1,
        max_overlap=0.6,
        balance='pixel',
        fill=[103.53, 116.28, 123.675],  # the mean, in the file's order: 0 once normalised
        num_classes=8,
        ignore_values=[255],
    )
    assert derived.model.embedding == dict(
        type='mm_tuning_plugin.PooledEmbedding', grid_size=4, projection_channels=0
    )
    assert derived.model.criterion == dict(type='mm_tuning_plugin.GraphTripletLoss', margin=2.1)
    assert derived.train_cfg.max_iters == 8000
    assert derived.optim_wrapper == dict(
        type='OptimWrapper',
        optimizer=dict(type='SGD', lr=RATE, momentum=MOMENTUM, weight_decay=DECAY),
    )


def test_the_recipe_s_own_defaults_are_those_of_vgg_on_one_gpu(toy_cfg):
    expected = as_released(toy_cfg)
    toy_cfg.mix_and_match = dict(recipe='paper', transforms=['RandomCrop', 'RandomFlip'])
    assert derive_tuning_config(toy_cfg).to_dict() == expected.to_dict()


class Net(nn.Module):
    """A convolution and a layer with biases, and a norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.last = nn.Linear(12, 2)
        self.double()

    def forward(self, images):
        return self.last(self.norm(self.conv(images)).relu().flatten(1)).square().mean()


def stepping(derived, model):
    """The wrapper and the schedulers of a derived config, as mmengine's Runner builds them."""
    wrapper = build_optim_wrapper(model, derived.optim_wrapper)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(scheduler, optimizer=wrapper))
        for scheduler in derived.param_scheduler
    ]
    return wrapper, schedulers


def test_the_rate_of_each_of_the_8000_steps(toy_cfg):
    wrapper, schedulers = stepping(as_released(toy_cfg), Net())
    rates = []
    for _ in range(8000):
        (rate,) = {group['lr'] for group in wrapper.param_groups}
        rates.append(rate)
        wrapper.step()  # without gradients: moves nothing
        for scheduler in schedulers:
            scheduler.step()
    assert np.allclose(rates, [RATE] * 6000 + [RATE / 10] * 2000, rtol=1e-12)


@pytest.mark.parametrize('biases', ['alike', 'twice as fast, not decayed'])
def test_steps_are_the_release_s(toy_cfg, biases):
    """v = 0.9 v + rate (gradient + decay w), w = w - v: Caffe's form, which keeps the rate in v.

    Torch multiplies it in afterwards. They are one as long as the rate is, and differ for some tens
    of steps behind its drop. mmengine's multipliers: a norm's bias is not decayed, but has the
    plain rate.
    """
    if biases != 'alike':
        toy_cfg.optim_wrapper.paramwise_cfg = dict(bias_lr_mult=2.0, bias_decay_mult=0.0)
    model = Net()
    wrapper, _ = stepping(as_released(toy_cfg), model)
    own = {}
    if biases != 'alike':
        own = dict.fromkeys(['conv.bias', 'last.bias'], (2 * RATE, 0.0))
        own['norm.bias'] = (RATE, 0.0)
    weights = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    velocity = {name: np.zeros_like(value) for name, value in weights.items()}
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        images = torch.randn(4, 2, 4, 4, generator=generator, dtype=torch.float64)
        loss = model(images)
        model.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            rate, decay = own.get(name, (RATE, DECAY))
            slope = parameter.grad.numpy() + decay * weights[name]
            velocity[name] = MOMENTUM * velocity[name] + rate * slope
            weights[name] -= velocity[name]
        wrapper.step()
        for name, parameter in model.named_parameters():
            assert np.allclose(parameter.detach().numpy(), weights[name], atol=1e-12), name
