"""Convolutional networks: the features of the source arrive, level by level, at several sizes."""

import pytest
import torch
import transformers
from loading import built, check, saved, shallow, under
from mistakes import mistake
from mmcv.cnn import VGG
from mmseg.models.backbones import (
    MobileNetV2,
    ResNeSt,
    ResNet,
    ResNetV1c,
    ResNetV1d,
    ResNeXt,
)
from reference_cnns import (
    Bottleneck,
    DeepStemResNet,
    MmpretrainVGG,
    SplitBottleneck,
    TorchvisionMobileNetV2,
    TorchvisionVGG,
)
from safetensors.torch import save_file

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint


@pytest.mark.parametrize('ending', ['bin', 'safetensors', 'pretrained', 'backbone'])
@pytest.mark.parametrize('kind', ['basic', 'bottleneck'])
def test_hugging_face_resnet(kind, ending, tmp_path):
    basic = kind == 'basic'
    options = dict(
        embedding_size=8,
        hidden_sizes=[8, 16, 32, 64] if basic else [32, 64, 128, 256],
        depths=[2, 2, 2, 2] if basic else [3, 4, 6, 3],
        layer_type=kind,
    )
    config = transformers.ResNetConfig(**options)
    source = built(lambda: transformers.ResNetForImageClassification(config))
    file = tmp_path / f'model.{ending}'
    if ending == 'bin':
        torch.save(source.state_dict(), file)
    elif ending == 'safetensors':
        save_file(source.resnet.state_dict(), file)
    elif ending == 'pretrained':
        source.save_pretrained(tmp_path)
        file = tmp_path / 'model.safetensors'
    else:
        backbone = transformers.ResNetBackbone(config)
        backbone.load_state_dict(source.resnet.state_dict())
        torch.save({'state_dict': under('backbone.', backbone.state_dict())}, file)

    def features(images):
        return source.resnet(images, output_hidden_states=True).hidden_states[1:]

    backbone = ResNet(depth=18 if basic else 50, stem_channels=8, base_channels=8)
    report = check(backbone, features, file, 'Hugging Face ResNet')
    if ending in ('bin', 'pretrained'):
        assert any('classifier' in name for name in report.dropped)


def test_resnext(tmp_path):
    source = built(lambda: DeepStemResNet(Bottleneck, deep=0, groups=32, base_width=4))
    file = saved({'state_dict': source.state_dict()}, tmp_path / 'a.pth')
    check(shallow(ResNeXt, groups=32, base_width=4), source.features, file, 'same names')


def test_timm_resnet_d(tmp_path):
    """The stem's and the shortcut's layers are counted with the pooling before them."""
    source = built(lambda: DeepStemResNet(Bottleneck, pooled=True))
    file = saved(source.state_dict(), tmp_path / 'a.pth')
    check(shallow(ResNetV1d), source.features, file, 'timm deep-stem ResNet')


def test_deep_stem_alone(tmp_path):
    source = built(lambda: DeepStemResNet(Bottleneck))
    file = saved({'model': source.state_dict()}, tmp_path / 'a.pth')
    check(shallow(ResNetV1c), source.features, file, 'timm deep-stem ResNet')


def test_resnest(tmp_path):
    source = built(lambda: DeepStemResNet(SplitBottleneck))
    file = saved(source.state_dict(), tmp_path / 'a.pth')
    backbone = shallow(ResNeSt, stem_channels=64, radix=2, reduction_factor=4, avg_down_stride=True)
    check(backbone, source.features, file, 'timm deep-stem ResNet')


def test_mobilenet_v2(tmp_path):
    source = built(TorchvisionMobileNetV2)
    file = saved(source.published(), tmp_path / 'a.pth')
    backbone = MobileNetV2(
        strides=(1, 2, 2, 2, 1, 2, 1), dilations=(1,) * 7, out_indices=tuple(range(7))
    )
    report = check(backbone, source.features, file, 'torchvision MobileNetV2')
    assert 'features.18.0.weight' in report.dropped


@pytest.mark.parametrize('norm', [True, False])
def test_vgg_of_mmcv(norm, tmp_path):
    source = built(lambda: TorchvisionVGG(norm))
    file = saved(source.published(), tmp_path / 'a.pth')
    backbone = VGG(11, with_bn=norm, out_indices=(0, 1, 2, 3, 4))
    report = check(backbone, source.features, file, 'same names', sizes=(32,))
    assert 'classifier.0.weight' in report.dropped


@pytest.mark.parametrize('norm', [True, False])
def test_vgg_of_mmpretrain(norm, tmp_path):
    source = built(lambda: TorchvisionVGG(norm))
    file = saved({'state_dict': source.published()}, tmp_path / 'a.pth')
    check(MmpretrainVGG(norm), source.features, file, 'torchvision VGG', sizes=(32,))


def test_vgg_with_norms_is_no_vgg_without(tmp_path):
    file = saved(TorchvisionVGG(True).published(), tmp_path / 'a.pth')
    with mistake(str(file), ('MmpretrainVGG', 'features.')):
        load_backbone_checkpoint(MmpretrainVGG(False), file)
