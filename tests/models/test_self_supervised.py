"""``init_cfg`` of type SelfSupervised in every backbone of mmseg's, in plain runs of mmseg."""

import re
import subprocess
import sys

import pytest
import torch
from mistakes import mistake
from mmengine.model import BaseModule
from mmseg_backbones import (
    BACKBONES,
    as_trained,
    build,
    different,
    initialise,
    own_backbones,
    segmentor,
)
from torch import nn

from mm_tuning_plugin.models import SelfSupervised

TYPE = 'mm_tuning_plugin.SelfSupervised'
# Take `checkpoint` out of any init_cfg and read the file by themselves, not strictly.
DEAF = ['PIDNet', 'SwinTransformer']


@pytest.fixture
def file(tmp_path):
    """Writes weights as a self-supervised method does; returns the file's name."""

    def write(weights):
        encoder = {f'module.encoder_q.{name}': value for name, value in weights.items()}
        torch.save({'epoch': 3, 'state_dict': encoder}, tmp_path / 'moco.pth.tar')
        return str(tmp_path / 'moco.pth.tar')

    return write


def test_all_backbones_are_here():
    assert own_backbones() == sorted(BACKBONES)


# Every backbone meets both forms, one on the model and one on itself; these four both on both.
BOTH = ('ResNet', 'VisionTransformer', 'SwinTransformer', 'BiSeNetV1')


@pytest.mark.parametrize(
    ('name', 'form'), [*((name, dict) for name in BACKBONES), *((name, list) for name in BOTH)]
)
def test_on_the_model_it_works_for_every_backbone(name, form, file):
    weights = as_trained(BACKBONES[name])
    init_cfg = dict(type=TYPE, checkpoint=file(weights))
    model = segmentor(BACKBONES[name], init_cfg=init_cfg if form is dict else [init_cfg])
    assert not different(initialise(model).backbone.state_dict(), weights)


@pytest.mark.parametrize(
    ('name', 'form'),
    [
        (name, form)
        for form, names in ((list, BACKBONES), (dict, BOTH))
        for name in names
        if name not in DEAF
    ],
)
def test_on_the_backbone(name, form, file):
    weights = as_trained(BACKBONES[name])
    init_cfg = dict(type=TYPE, checkpoint=file(weights))
    model = segmentor(dict(BACKBONES[name], init_cfg=init_cfg if form is dict else [init_cfg]))
    assert not different(initialise(model).backbone.state_dict(), weights)


@pytest.mark.parametrize('name', DEAF)
def test_backbones_that_never_ask(name, file, monkeypatch):
    """What the class's docstring says of them: not heard as a dict, mmseg's own error as a list."""
    init_cfg = dict(type=TYPE, checkpoint=file(as_trained(BACKBONES[name])))
    monkeypatch.setattr(SelfSupervised, '__call__', lambda self, module: pytest.fail('was asked'))
    initialise(build(BACKBONES[name], init_cfg=init_cfg))
    with pytest.raises(AssertionError, match='Only support'):
        initialise(build(BACKBONES[name], init_cfg=[init_cfg]))


def test_a_file_that_does_not_fit_is_one_line(file):
    path = file(as_trained(BACKBONES['ResNet']))
    init_cfg = dict(type=TYPE, checkpoint=path)
    with mistake(str(path), ['ResNetV1c', 'stem']):
        initialise(segmentor(BACKBONES['ResNetV1c'], init_cfg=init_cfg))
    with mistake('nowhere.pth', remedy='checkpoint'):
        initialise(build(BACKBONES['ResNet'], init_cfg=dict(type=TYPE, checkpoint='nowhere.pth')))


def test_options_are_passed_on(tmp_path):
    weights = as_trained(BACKBONES['ResNet'])
    torch.save({'a': as_trained(BACKBONES['ResNet'], seed=4), 'b': weights}, tmp_path / 'two.pth')
    init_cfg = dict(type=TYPE, checkpoint=str(tmp_path / 'two.pth'), prefix='b')
    assert not different(
        initialise(build(BACKBONES['ResNet'], init_cfg=init_cfg)).state_dict(), weights
    )
    part = {name: value for name, value in weights.items() if not name.startswith('layer4')}
    torch.save(part, tmp_path / 'part.pth')
    init_cfg = dict(type=TYPE, checkpoint=str(tmp_path / 'part.pth'))
    with mistake(str(tmp_path / 'part.pth'), ['ResNet', "'layer4'"], '90%'):
        initialise(build(BACKBONES['ResNet'], init_cfg=init_cfg))
    initialise(build(BACKBONES['ResNet'], init_cfg=dict(init_cfg, min_matched=0)))


def test_what_the_file_lacks_is_initialised_as_ever(tmp_path):
    weights = as_trained(BACKBONES['SwinTransformer'])
    lost = 'stages.0.blocks.0.ffn.layers.1.weight'
    torch.save({k: v for k, v in weights.items() if k != lost}, tmp_path / 'part.pth')
    init_cfg = dict(type=TYPE, checkpoint=str(tmp_path / 'part.pth'), min_matched=0)
    model = initialise(segmentor(BACKBONES['SwinTransformer'], init_cfg=init_cfg))
    found = model.backbone.state_dict()
    assert different(found, weights) == [lost]
    assert 0.015 < found[lost].std() < 0.025  # Swin's own; a new Linear's is 0.1


@pytest.mark.parametrize(
    'company',
    [
        lambda own: [own, dict(type='Kaiming', layer='Conv2d')],
        lambda own: [own, dict(type='Pretrained', checkpoint='x.pth')],
        lambda own: [dict(type='Pretrained', checkpoint='x.pth'), own],
    ],
)
def test_what_would_overwrite_it_is_refused(company, file):
    own = dict(type=TYPE, checkpoint=file(as_trained(BACKBONES['ResNet'])))
    with mistake('init_cfg', ['ResNet', 'SelfSupervised'], ['SelfSupervised', 'Pretrained']):
        initialise(build(BACKBONES['ResNet'], init_cfg=company(own)))


def test_an_initializer_before_it_may_stay(file):
    weights = as_trained(BACKBONES['ResNet'])
    both = [dict(type='Kaiming', layer='Conv2d'), dict(type=TYPE, checkpoint=file(weights))]
    backbone = initialise(build(BACKBONES['ResNet'], init_cfg=both))
    assert not different(backbone.state_dict(), weights)


def test_two_starts_or_no_backbone_are_refused(file):
    own = dict(type=TYPE, checkpoint=file(as_trained(BACKBONES['ResNet'])))
    named = dict(BACKBONES['ResNet'], init_cfg=dict(type='Pretrained', checkpoint='other.pth'))
    with mistake('model.init_cfg', ['SelfSupervised', 'EncoderDecoder', 'other.pth']):
        initialise(segmentor(named, init_cfg=own))
    model = segmentor(BACKBONES['ResNet'], init_cfg=own)
    del model.backbone
    with mistake('model.init_cfg', ['SelfSupervised', 'EncoderDecoder', 'backbone']):
        initialise(model)


class DrawsAfterwards(BaseModule):
    """As mmpretrain's vision transformers: random positions after any init but 'Pretrained'."""

    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)

    def init_weights(self):
        super().init_weights()
        nn.init.normal_(self.conv.weight, std=0.02)

    def forward(self, images):
        return self.bn(self.conv(images))


@pytest.fixture
def overwritten(tmp_path):
    torch.manual_seed(0)
    torch.save(DrawsAfterwards().state_dict(), tmp_path / 'file.pth')
    own = dict(type=TYPE, checkpoint=str(tmp_path / 'file.pth'))
    return lambda: initialise(DrawsAfterwards(init_cfg=own))


def test_a_backbone_that_draws_afterwards_is_told_of(overwritten):
    problem = ['DrawsAfterwards', 'conv.weight']
    remedy = ['model.init_cfg', 'tools/convert_checkpoint.py']
    with mistake(re.compile(r'file\.pth$'), problem, remedy):
        overwritten()(torch.rand(1, 3, 8, 8))


def test_a_loaded_state_dict_ends_the_watch(overwritten):
    from mmengine.runner.checkpoint import load_state_dict

    for load in (nn.Module.load_state_dict, load_state_dict):
        backbone = overwritten()
        load(backbone, DrawsAfterwards().state_dict())
        assert not backbone._forward_pre_hooks and not backbone._load_state_dict_pre_hooks
        backbone(torch.rand(1, 3, 8, 8))


def test_the_watch_ends_with_the_first_forward_pass(file):
    own = dict(type=TYPE, checkpoint=file(as_trained(BACKBONES['ResNet'])))
    backbone = initialise(build(BACKBONES['ResNet'], init_cfg=own)).bfloat16()
    images = torch.rand(2, 3, 64, 64, dtype=torch.bfloat16)
    backbone(images)
    assert not backbone._forward_pre_hooks and not backbone._load_state_dict_pre_hooks
    nn.init.zeros_(backbone.conv1.weight)
    backbone(images)


PLAIN_RUN = f"""
import sys, torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
import mmseg.models
assert not any(name.startswith('mm_tuning_plugin') for name in sys.modules)
init_default_scope('mmseg')
cfg = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
torch.save({{'model': MODELS.build(cfg).state_dict()}}, sys.argv[1])
MODELS.build(dict(cfg, init_cfg=dict(type={TYPE!r}, checkpoint=sys.argv[1]))).init_weights()
"""


def test_the_name_resolves_in_a_process_that_imports_nothing_of_ours(tmp_path):
    argv = [sys.executable, '-c', PLAIN_RUN, str(tmp_path / 'file.pth')]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
