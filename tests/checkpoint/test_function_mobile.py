"""MobileNetV3 of torchvision and the original STDC: the features of the source arrive."""

import pytest
import torch
from loading import built, check, saved
from mistakes import mistake
from mmseg.models.backbones import MobileNetV3, STDCContextPathNet, STDCNet
from reference_mobile import LARGE, SMALL, OriginalSTDC, TorchvisionMobileNetV3

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint

EPS = dict(type='BN', eps=1e-3)


@pytest.mark.parametrize(('arch', 'table'), [('small', SMALL), ('large', LARGE)])
def test_mobilenet_v3(arch, table, tmp_path):
    """On odd sides, where mmseg's padding and torchvision's are the same."""
    source = built(lambda: TorchvisionMobileNetV3(table))
    file = saved(source.published(), tmp_path / 'a.pth')
    backbone = MobileNetV3(arch, out_indices=tuple(range(len(table) + 2)), norm_cfg=EPS)
    report = check(backbone, source.features, file, 'torchvision MobileNetV3', sizes=(33, 65))
    assert 'classifier.0.weight' in report.dropped
    (note,) = report.notes
    assert 'MobileNetV3' in note


def test_the_epsilon_of_mobilenet_v3_is_noted(tmp_path):
    file = saved(TorchvisionMobileNetV3(SMALL).published(), tmp_path / 'a.pth')
    report = load_backbone_checkpoint(MobileNetV3(), file)
    for fact in ('1e-05', "norm_cfg=dict(type='BN', eps=0.001)"):
        assert fact in report.notes[-1]


def test_the_other_mobilenet_v3_is_refused(tmp_path):
    file = saved(TorchvisionMobileNetV3(LARGE).published(), tmp_path / 'a.pth')
    with mistake(str(file), 'MobileNetV3'):
        load_backbone_checkpoint(MobileNetV3('small'), file)


def stdc(kind, final=False):
    return STDCNet(
        kind,
        in_channels=3,
        channels=(8, 16, 64, 128, 256),
        bottleneck_type='cat',
        norm_cfg=dict(type='BN'),
        act_cfg=dict(type='ReLU'),
        with_final_conv=final,
    )


BLOCKS = {'STDCNet1': (2, 2, 2), 'STDCNet2': (4, 5, 3)}


@pytest.mark.parametrize('final', [False, True])
@pytest.mark.parametrize('kind', BLOCKS)
def test_stdc(kind, final, tmp_path):
    source = built(lambda: OriginalSTDC(blocks=BLOCKS[kind]))
    file = saved(source.published(), tmp_path / 'a.pth')

    def features(images):
        return source.features(images, last=final)

    report = check(stdc(kind, final), features, file, 'original STDC')
    for name in ('x8.0.2.conv_list.0.conv.weight', 'linear.weight'):
        assert f'state_dict.{name}' in report.dropped


@pytest.mark.parametrize(('found', 'wanted'), [('STDCNet1', 'STDCNet2'), ('STDCNet2', 'STDCNet1')])
def test_the_other_stdc_is_refused(found, wanted, tmp_path):
    file = saved(OriginalSTDC(blocks=BLOCKS[found]).published(), tmp_path / 'a.pth')
    with mistake(str(file), 'STDCNet'):
        load_backbone_checkpoint(stdc(wanted), file)


def test_stdc_inside_a_context_path(tmp_path):
    source = built(OriginalSTDC)
    file = saved(source.published(), tmp_path / 'a.pth')
    config = dict(
        type='STDCNet',
        stdc_type='STDCNet1',
        in_channels=3,
        channels=(8, 16, 64, 128, 256),
        bottleneck_type='cat',
        norm_cfg=dict(type='BN'),
        act_cfg=dict(type='ReLU'),
    )
    backbone = STDCContextPathNet(
        config,
        last_in_channels=(256, 128),
        out_channels=16,
        ffm_cfg=dict(in_channels=80, out_channels=32, scale_factor=4),
    )
    load_backbone_checkpoint(backbone, file)
    backbone.backbone.eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for a, b in zip(backbone.backbone(images), source.features(images)):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
