"""Backbones around an encoder: the encoder's file fills the encoder, the whole's file the whole."""

import pytest
import torch
from mistakes import mistake
from mmseg.models.backbones import BiSeNetV1, ICNet, ResNet, STDCContextPathNet, STDCNet
from reference_hugging_face import published
from reference_networks import TorchvisionResNet, randomise
from torch import nn
from transformers import Dinov2Config, Dinov2Model, SwinConfig, SwinModel

from mm_tuning_plugin.checkpoint import hash_state_dict, load_backbone_checkpoint

RESNET = dict(
    type='ResNet',
    depth=18,
    stem_channels=8,
    base_channels=8,
    num_stages=4,
    out_indices=(0, 1, 2, 3),
    dilations=(1, 1, 1, 1),
    strides=(1, 2, 2, 2),
    norm_cfg=dict(type='BN'),
    norm_eval=False,
    style='pytorch',
    contract_dilation=True,
)
STDC = dict(
    type='STDCNet',
    stdc_type='STDCNet1',
    in_channels=3,
    channels=(8, 8, 16, 32, 64),
    bottleneck_type='cat',
    num_convs=4,
    norm_cfg=dict(type='BN'),
    act_cfg=dict(type='ReLU'),
)


def narrow(depth):
    return ResNet(depth=depth, stem_channels=8, base_channels=8)


def bisenet():
    return BiSeNetV1(
        backbone_cfg=RESNET,
        spatial_channels=(8, 8, 8, 16),
        context_channels=(16, 32, 64),
        out_channels=32,
    )


def icnet():
    return ICNet(
        backbone_cfg=RESNET,
        layer_channels=(16, 64),
        light_branch_middle_channels=8,
        psp_out_channels=16,
        out_channels=(8, 16, 16),
    )


def stdc():
    return STDCContextPathNet(
        backbone_cfg=STDC,
        last_in_channels=(64, 32),
        out_channels=16,
        ffm_cfg=dict(in_channels=32, out_channels=32, scale_factor=4),
    )


NESTED = {
    'bisenet': (bisenet, 'context_path.backbone'),
    'icnet': (icnet, 'backbone'),
    'stdc': (stdc, 'backbone'),
}


def encoder_source(kind):
    with torch.no_grad():
        if kind == 'stdc':
            options = {k: v for k, v in STDC.items() if k != 'type'}
            return randomise(STDCNet(**options), seed=3)
        return randomise(TorchvisionResNet(width=8), seed=3)


@pytest.mark.parametrize('kind', NESTED)
def test_the_encoders_file(kind, tmp_path):
    make, name = NESTED[kind]
    source = encoder_source(kind)
    torch.save(
        {'state_dict': {f'module.{k}': v for k, v in source.state_dict().items()}}, tmp_path / 'a'
    )
    backbone = make()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    report = load_backbone_checkpoint(backbone, tmp_path / 'a')
    for key, value in backbone.state_dict().items():
        if key.startswith(f'{name}.'):
            assert torch.equal(value, source.state_dict()[key[len(name) + 1 :]]), key
        else:
            assert torch.equal(value, before[key]), key
            assert key in report.missing
    assert all(stage.startswith(f'{name}.') for stage in report.stages)
    assert 0 < report.share < 1
    assert report.hash_after == hash_state_dict(backbone.state_dict()) != report.hash_before
    around = sum(v.numel() for k, v in backbone.named_parameters() if not k.startswith(f'{name}.'))
    (note,) = report.notes
    assert f"'{name}'" in note and f'{around:,} ' in note


@pytest.mark.parametrize('kind', NESTED)
def test_the_wholes_file(kind, tmp_path):
    make, _ = NESTED[kind]
    with torch.no_grad():
        source = randomise(make(), seed=4)
    torch.save(
        {'state_dict': {f'backbone.{k}': v for k, v in source.state_dict().items()}}, tmp_path / 'a'
    )
    backbone = make()
    report = load_backbone_checkpoint(backbone, tmp_path / 'a')
    assert hash_state_dict(backbone.state_dict()) == hash_state_dict(source.state_dict())
    assert report.share == 1 and report.missing == () and report.notes == ()


def test_an_encoder_of_another_depth_is_refused(tmp_path):
    torch.save(narrow(34).state_dict(), tmp_path / 'a')
    backbone = bisenet()
    before = hash_state_dict(backbone.state_dict())
    with mistake(str(tmp_path / 'a'), ('ResNet-34', 'ResNet-18')):
        load_backbone_checkpoint(backbone, tmp_path / 'a')
    assert hash_state_dict(backbone.state_dict()) == before


def test_an_incomplete_encoder_is_refused(tmp_path):
    weights = {k: v for k, v in narrow(18).state_dict().items() if not k.startswith('conv1')}
    torch.save(weights, tmp_path / 'a')
    with mistake(str(tmp_path / 'a'), ("'stem'", '16 of 1,192'), '90%'):
        load_backbone_checkpoint(icnet(), tmp_path / 'a')


@pytest.mark.parametrize('kind', NESTED)
def test_the_encoders_file_under_the_name_of_the_encoder(kind, tmp_path):
    """mmpretrain's files say `backbone.`, which is also what the encoder is called inside."""
    make, name = NESTED[kind]
    source = encoder_source(kind)
    weights = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    torch.save({'state_dict': {**weights, 'head.fc.weight': torch.ones(2)}}, tmp_path / 'a')
    backbone = make()
    report = load_backbone_checkpoint(backbone, tmp_path / 'a')
    assert all(stage.startswith(f'{name}.') for stage in report.stages)
    inner = backbone.get_submodule(name).state_dict()
    assert all(torch.equal(inner[k], v) for k, v in source.state_dict().items() if k in inner)


class Wrapper(nn.Module):
    """What a user writes around a network of another project."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images).last_hidden_state


class WithNeck(Wrapper):
    def __init__(self, model):
        super().__init__(model)
        self.neck = nn.Linear(4, 4)


HUGGING_FACE = {
    'DINOv2': (
        Dinov2Model,
        Dinov2Config(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=28,
            patch_size=14,
        ),
    ),
    'Swin': (
        SwinModel,
        SwinConfig(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2),
    ),
}
WRAPPERS = {
    'one': Wrapper,
    'two': lambda model: Wrapper(Wrapper(model)),
    'beside a neck': WithNeck,
}


def hugging_face(kind, seed):
    cls, config = HUGGING_FACE[kind]
    with torch.no_grad():
        return randomise(cls(config), seed=seed).eval()


@pytest.mark.parametrize('kind', HUGGING_FACE)
@pytest.mark.parametrize('wrapper', WRAPPERS)
@pytest.mark.parametrize('names', ['hub', 'state dict'])
def test_a_users_class_around_hugging_faces(kind, wrapper, names, tmp_path):
    """Its own file, in the names of the hub and in those of its modules."""
    source = hugging_face(kind, seed=5)
    weights = published(source, tmp_path) if names == 'hub' else source.state_dict()
    torch.save(weights, tmp_path / 'a.bin')
    backbone = WRAPPERS[wrapper](hugging_face(kind, seed=6)).eval()
    report = load_backbone_checkpoint(backbone, tmp_path / 'a.bin')
    assert [name for name in report.missing if 'neck' not in name] == []
    assert report.unexpected == ()
    assert len(report.notes) == (wrapper == 'beside a neck')
    images = torch.randn(2, 3, source.config.image_size, source.config.image_size)
    inner = backbone.model if wrapper != 'two' else backbone.model.model
    with torch.no_grad():
        found, expected = inner(images), source(images)
    assert expected.last_hidden_state.std() > 1e-3
    assert torch.equal(found.last_hidden_state, expected.last_hidden_state)


def test_a_part_of_a_users_network_is_no_encoder_of_its_own(tmp_path):
    """Where the patches differ, the blocks alone are not loaded."""
    cls, config = HUGGING_FACE['DINOv2']
    other = Dinov2Config(**{**config.to_dict(), 'patch_size': 7})
    torch.save(cls(other).state_dict(), tmp_path / 'a.bin')
    with mistake(str(tmp_path / 'a.bin'), 'Dinov2Model'):
        load_backbone_checkpoint(WithNeck(cls(config)), tmp_path / 'a.bin')
