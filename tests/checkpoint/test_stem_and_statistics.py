"""The stem between colour and grey, and what BatchNorm keeps beside its parameters."""

import copy

import pytest
import torch
import transformers
from loading import built, compare, saved, shallow, under
from mmcv.cnn import VGG
from mmseg.models.backbones import ResNet
from reference_cnns import TorchvisionVGG
from reference_networks import TorchvisionResNet, randomise

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint


@pytest.mark.parametrize('channels', [(3, 1), (1, 3)])
def test_grey_and_colour_stems(channels, tmp_path):
    """Colour kernels on equal channels and grey kernels on grey images: the same features."""
    found, wanted = channels
    source = randomise_source(found)
    torch.save(source.state_dict(), tmp_path / 'a.pth')
    backbone = ResNet(depth=18, in_channels=wanted)
    backbone.eval()
    report = load_backbone_checkpoint(backbone, tmp_path / 'a.pth')
    assert report.resized == {
        'conv1.weight': f'(64, {found}, 7, 7) -> (64, {wanted}, 7, 7)',
    }
    grey = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        expected = source.features(grey.expand(-1, found, -1, -1))
        for a, b in zip(backbone(grey.expand(-1, wanted, -1, -1)), expected):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_a_grey_vgg_sees_colours(tmp_path):
    """Of another family than ResNets: the stage that reads the image is found, not named."""
    source = built(lambda: TorchvisionVGG(True, channels=1))
    file = saved(source.published(), tmp_path / 'a.pth')
    backbone = VGG(11, with_bn=True, out_indices=(0, 1, 2, 3, 4))
    report = load_backbone_checkpoint(backbone, file)
    assert list(report.resized) == ['features.0.weight']
    backbone.eval()
    images = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        for a, b in zip(backbone(images), source.features(images.mean(1, keepdim=True))):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def randomise_source(channels):
    with torch.no_grad():
        return randomise(TorchvisionResNet(channels=channels), seed=3)


def test_missing_running_statistics_are_noted(tmp_path, resnet_source):
    weights = {k: v for k, v in resnet_source.state_dict().items() if 'running_mean' not in k}
    torch.save(weights, tmp_path / 'a.pth')
    report = load_backbone_checkpoint(ResNet(depth=18), tmp_path / 'a.pth')
    (note,) = report.notes
    assert note.startswith('20 of 40 running statistics')
    assert 'note: 20 of 40' in str(report)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float16, 1e-2), (torch.bfloat16, 8e-2)])
def test_half_precision_is_converted(dtype, tolerance, tmp_path, resnet_source):
    weights = {
        k: v.to(dtype) if v.is_floating_point() else v
        for k, v in resnet_source.state_dict().items()
    }
    torch.save(weights, tmp_path / 'a.pth')
    backbone = ResNet(depth=18)
    report = load_backbone_checkpoint(backbone, tmp_path / 'a.pth')
    assert any(str(dtype) in note for note in report.notes)
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    backbone.eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(backbone(images), resnet_source.features(images)):
            torch.testing.assert_close(a, b, atol=tolerance * b.abs().max().item(), rtol=0)


def test_old_files_without_counters(tmp_path):
    """``num_batches_tracked`` came with torch 0.4.1; evaluation does not read it."""
    source = built(lambda: TorchvisionResNet(width=8))
    weights = {k: v for k, v in source.state_dict().items() if 'num_batches' not in k}
    backbone = ResNet(depth=18, stem_channels=8, base_channels=8)
    report = load_backbone_checkpoint(backbone, saved(weights, tmp_path / 'a.pth'))
    assert report.missing and all(name.endswith('.num_batches_tracked') for name in report.missing)
    assert report.notes == ()
    compare(backbone, source.features)


def test_synchronised_norms(tmp_path):
    """Trained with SyncBatchNorm, loaded into SyncBN: names and function are BatchNorm's."""
    source = built(lambda: TorchvisionResNet(width=8))
    synchronised = torch.nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(source))
    file = saved({'model': under('module.', synchronised.state_dict())}, tmp_path / 'a.pth')
    narrow = dict(depth=18, stem_channels=8, base_channels=8)
    backbone = ResNet(**narrow, norm_cfg=dict(type='SyncBN'))
    assert isinstance(backbone.bn1, torch.nn.SyncBatchNorm)
    report = load_backbone_checkpoint(backbone, file)
    assert report.missing == () and report.share == 1
    compare(backbone, source.features)  # in evaluation mode, which needs no process group


def test_where_a_block_strides_is_noted(tmp_path):
    """Hugging Face's ``downsample_in_bottleneck`` is mmseg's ``style='caffe'``."""
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[32, 64, 128, 256],
        depths=[1, 1, 1, 1],
        downsample_in_bottleneck=True,
    )
    source = built(lambda: transformers.ResNetModel(config))
    file = saved(source.state_dict(), tmp_path / 'pytorch_model.bin')
    backbone = shallow(ResNet, stem_channels=8, base_channels=8, style='caffe')
    report = load_backbone_checkpoint(backbone, file)
    assert report.notes and "style='pytorch'" in report.notes[0]
    compare(backbone, lambda x: source(x, output_hidden_states=True).hidden_states[1:])
