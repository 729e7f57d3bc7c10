"""Classes of mmpretrain that need another rule than mmseg's: SwinV2, and LoRA around a network."""

import pytest
import torch
import torch.nn.functional as F
from reference_networks import randomise
from timm_networks import timm_network

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint

DEPTHS, HEADS, WIDTH, SIZE = (2, 2, 1), (1, 2, 2), 8, 64


@pytest.fixture(scope='module')
def backbones():
    pytest.importorskip('mmpretrain')
    from stubbed import import_further

    import_further()
    from mmpretrain.models import backbones

    return backbones


@pytest.fixture(scope='module')
def source():
    """Its window is smaller than its maps but for the last, where neither class shifts."""
    return timm_network(
        'swinv2_tiny_window8_256',
        img_size=SIZE,
        window_size=4,
        embed_dim=WIDTH,
        depths=DEPTHS,
        num_heads=HEADS,
    ).eval()


def swin_v2(backbones):
    arch = dict(embed_dims=WIDTH, depths=DEPTHS, num_heads=HEADS, extra_norm_every_n_blocks=0)
    return backbones.SwinTransformerV2(
        arch=arch, img_size=SIZE, window_size=[4, 4, 4], out_indices=(0, 1, 2)
    )


def official(weights):
    """Stages end with the merging, as in the original project."""

    def moved(name):
        parts = name.split('.')
        if 'downsample' in parts:
            parts[1] = str(int(parts[1]) - 1)
        return '.'.join(parts)

    return {moved(name): value for name, value in weights.items()}


@pytest.mark.parametrize('write', [dict, official])
def test_swin_v2(write, source, backbones, tmp_path):
    """Its norm stands behind the reduction of merged patches, whose order it does not see."""
    torch.save(write(source.state_dict()), tmp_path / 'a.pth')
    backbone = swin_v2(backbones)
    report = load_backbone_checkpoint(backbone, tmp_path / 'a.pth')
    assert report.share == 1 and report.unexpected == ()
    assert all(n.endswith(('coords_table', 'position_index')) for n in report.missing)
    backbone.eval()
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        found = backbone(images)
        expected = source.forward_intermediates(images, indices=3, intermediates_only=True)
    for index, (level, other) in enumerate(zip(found, expected)):
        tokens = other.permute(0, 2, 3, 1)
        # the norms on outputs are new, but for the last, which is the file's
        tokens = source.norm(tokens) if index == 2 else F.layer_norm(tokens, tokens.shape[-1:])
        assert other.std() > 1e-2
        torch.testing.assert_close(level, tokens.permute(0, 3, 1, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('names', ['plain', 'of the adapted layers'])
def test_lora(names, backbones, tmp_path):
    """A network's own file, where each adapted layer is one level deeper; adapters are new."""
    from mmpretrain.models import LoRAModel

    vit = dict(
        arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
        img_size=32,
        out_type='featmap',
    )
    with torch.no_grad():
        source = randomise(backbones.VisionTransformer(**vit), seed=3)
    weights = source.state_dict()
    if names != 'plain':
        weights = {k.replace('qkv.', 'qkv.original_layer.'): v for k, v in weights.items()}
    torch.save({f'backbone.{k}': v for k, v in weights.items()}, tmp_path / 'a.pth')
    options = dict(alpha=1, rank=2, drop_rate=0.0, targets=[dict(type='.*qkv')])
    backbone = LoRAModel(dict(vit, type='VisionTransformer'), **options)
    report = load_backbone_checkpoint(backbone, tmp_path / 'a.pth')
    assert len(report.missing) == 4 and all('.lora_' in name for name in report.missing)
    assert report.unexpected == () and any(n.startswith('4 ') for n in report.notes)
    backbone.eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        (found,), (expected,) = backbone(images), source(images)
    assert expected.std() > 1e-2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
