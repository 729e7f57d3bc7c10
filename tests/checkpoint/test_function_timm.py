"""timm's convolutional networks into mmseg's: what they compute arrives, at several sizes."""

import pytest
import torch
from loading import shallow
from mmcv.cnn import VGG
from mmseg.models.backbones import (
    HRNet,
    MobileNetV2,
    MobileNetV3,
    ResNeSt,
    ResNet,
    ResNetV1d,
    ResNeXt,
)
from timm_networks import dilated, stage_maps, stubbed_torchvision, timm_network
from torch import nn

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint

LAYERS = tuple(f'layer{i}' for i in range(1, 5))
RATES = {  # mmseg's, of the small and the large MobileNetV3, by timm's (stage, block)
    'small': {
        **{(2, i): 2 for i in range(3)},
        **{(3, i): 2 for i in range(2)},
        **{(4, i): 4 for i in range(3)},
    },
    'large': {
        **{(3, i): 2 for i in range(4)},
        **{(4, i): 2 for i in range(2)},
        **{(5, i): 4 for i in range(3)},
    },
}


def check(source, modules, backbone, path, *, naming, sizes=((64, 96), (96, 64)), dropped=()):
    """Saves timm's network as timm does, loads it, compares the outputs of its modules."""
    torch.save(source.state_dict(), path)
    report = load_backbone_checkpoint(backbone, path)
    assert report.layout.renaming == naming
    assert report.missing == () and report.unexpected == () and report.share == 1
    assert all(any(part in name for name in report.dropped) for part in dropped)
    backbone.eval()
    for size in sizes:
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            found = backbone(images)
        expected = stage_maps(source, images, modules)
        assert len(found) == len(expected)
        for a, b in zip(found, expected):
            assert b.std() > 1e-3
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    return report


@pytest.mark.parametrize(
    ('name', 'options', 'backbone', 'naming'),
    [
        ('resnet18', {}, lambda: ResNet(depth=18), 'same names'),
        ('resnet50', {'layers': (1, 1, 1, 1)}, lambda: shallow(ResNet), 'same names'),
        ('resnet18d', {}, lambda: ResNetV1d(depth=18), 'timm deep-stem ResNet'),
        (
            'resnet50d',
            {'layers': (1, 1, 1, 1)},
            lambda: shallow(ResNetV1d),
            'timm deep-stem ResNet',
        ),
        (
            'resnext50_32x4d',
            {'layers': (1, 1, 1, 1)},
            lambda: shallow(ResNeXt, groups=32, base_width=4),
            'same names',
        ),
        ('resnest14d', {}, lambda: shallow(ResNeSt, stem_channels=64), 'timm deep-stem ResNet'),
    ],
)
def test_residual(name, options, backbone, naming, tmp_path):
    source = timm_network(name, **options)
    check(source, LAYERS, backbone(), tmp_path / 'a.pth', naming=naming, dropped=('fc.weight',))


def test_mobilenet_v2(tmp_path):
    source = timm_network('mobilenetv2_100')
    modules = [f'blocks.{i}' for i in range(7)]
    backbone = MobileNetV2(out_indices=tuple(range(7)))
    check(
        source,
        modules,
        backbone,
        tmp_path / 'a.pth',
        naming='timm MobileNet',
        dropped=('conv_head.weight', 'bn2.weight', 'classifier.weight'),
    )


@pytest.mark.parametrize('arch', ['small', 'large'])
@pytest.mark.parametrize('tf', [True, False])
def test_mobilenet_v3(arch, tf, tmp_path):
    """TensorFlow's padding is mmseg's at every size; equal padding agrees where sides are odd."""
    name = f'mobilenetv3_{arch}_100'
    source = dilated(timm_network(f'tf_{name}' if tf else name), RATES[arch])
    blocks = [(s, b) for s, stage in enumerate(source.blocks) for b in range(len(stage))]
    backbone = MobileNetV3(
        arch,
        out_indices=tuple(range(1, len(blocks) + 1)),
        norm_cfg=dict(type='BN', eps=1e-3 if tf else 1e-5),
    )
    report = check(
        source,
        [f'blocks.{s}.{b}' for s, b in blocks],
        backbone,
        tmp_path / 'a.pth',
        naming='timm MobileNet',
        sizes=((64, 96), (33, 65)) if tf else ((33, 65), (65, 97)),
        dropped=('conv_head.weight', 'classifier.weight'),
    )
    assert 'MobileNetV3' in report.notes[0] and len(report.notes) == (1 if tf else 2)


def test_hrnet(tmp_path):
    """timm's enlarges by the nearest value, which the report says; else it is mmseg's."""
    source = timm_network('hrnet_w18_small')
    for module in source.modules():
        if isinstance(module, nn.Upsample):
            module.mode, module.align_corners = 'bilinear', False
    stage = dict(num_modules=1, block='BASIC')
    extra = {
        'stage1': dict(
            num_modules=1, num_branches=1, block='BOTTLENECK', num_blocks=(1,), num_channels=(32,)
        ),
        **{
            f'stage{i}': dict(
                **stage, num_branches=i, num_blocks=(2,) * i, num_channels=(16, 32, 64, 128)[:i]
            )
            for i in (2, 3, 4)
        },
    }
    torch.save(source.state_dict(), tmp_path / 'a.pth')
    backbone = HRNet(extra=extra)
    report = load_backbone_checkpoint(backbone, tmp_path / 'a.pth')
    assert report.missing == () and report.unexpected == ()
    assert report.layout.renaming == 'same names'
    assert 'HRNet' in report.notes[0]
    assert list(report.stages) == [
        'stem', 'layer1', 'transition1', 'stage2', 'transition2', 'stage3', 'transition3', 'stage4',
    ]  # fmt: skip
    backbone.eval()
    for size in ((64, 96), (96, 64)):
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            x = source.act2(source.bn2(source.conv2(source.act1(source.bn1(source.conv1(images))))))
            for a, b in zip(backbone(images), source.stages(x)):
                assert b.std() > 1e-3
                torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('norm', [True, False])
def test_vgg(norm, tmp_path, monkeypatch):
    with stubbed_torchvision():
        vgg = pytest.importorskip('timm.models.vgg')
    # what is behind the last pooling has 120 million numbers and no part in this
    monkeypatch.setattr(vgg, 'ConvMlp', lambda *args, **options: nn.Identity())
    source = timm_network('vgg11_bn' if norm else 'vgg11', num_classes=0)
    pools = [f'features.{i}' for i, m in enumerate(source.features) if isinstance(m, nn.MaxPool2d)]
    backbone = VGG(11, with_bn=norm, out_indices=(0, 1, 2, 3, 4))
    check(source, pools, backbone, tmp_path / 'a.pth', naming='same names', sizes=((32, 64),))
