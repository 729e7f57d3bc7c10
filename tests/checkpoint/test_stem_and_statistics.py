"""The stem between colour and grey, and what BatchNorm keeps beside its parameters."""

import pytest
import torch
from mmseg.models.backbones import ResNet
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


def randomise_source(channels):
    with torch.no_grad():
        return randomise(TorchvisionResNet(channels=channels), seed=3)


def test_missing_running_statistics_are_noted(tmp_path, resnet_source):
    weights = {k: v for k, v in resnet_source.state_dict().items() if 'running_mean' not in k}
    torch.save(weights, tmp_path / 'a.pth')
    report = load_backbone_checkpoint(ResNet(depth=18), tmp_path / 'a.pth')
    (note,) = report.notes
    assert note.startswith('20 of 40 running statistics are not in the file')
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
