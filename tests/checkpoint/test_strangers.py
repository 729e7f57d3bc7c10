"""Nothing inside a stage of the file is left out, however small: the function would be another."""

import pytest
import torch
from mistakes import mistake
from mmseg.models.backbones import PCPVT, ResNet, SwinTransformer

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint

SWIN = dict(pretrain_img_size=32, embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))


def pcpvt(qkv_bias):
    return PCPVT(
        embed_dims=[8] * 4, num_heads=[1] * 4, mlp_ratios=[2] * 4, depths=[1] * 4, qkv_bias=qkv_bias
    )


CASES = {
    'a bias': (lambda: pcpvt(True), lambda: pcpvt(False), 'attn.attn.in_proj_bias'),
    'a norm': (
        lambda: SwinTransformer(**SWIN, patch_norm=True),
        lambda: SwinTransformer(**SWIN, patch_norm=False),
        'patch_embed.norm.weight',
    ),
    'positions': (
        lambda: SwinTransformer(**SWIN, use_abs_pos_embed=True),
        lambda: SwinTransformer(**SWIN),
        'absolute_pos_embed',
    ),
}


@pytest.mark.parametrize('case', CASES)
def test_small_parts_are_not_dropped(case, tmp_path):
    source, backbone, name = CASES[case]
    weights = {
        f'backbone.{k}': torch.rand_like(v.float()) for k, v in source().state_dict().items()
    }
    torch.save({'state_dict': weights}, tmp_path / 'a.pth')
    with mistake(str(tmp_path / 'a.pth'), (type(backbone()).__name__, name)):
        load_backbone_checkpoint(backbone(), tmp_path / 'a.pth')
    report = load_backbone_checkpoint(backbone(), tmp_path / 'a.pth', min_matched=0)
    assert any(name in unexpected for unexpected in report.unexpected)


def narrow(depth):
    return ResNet(depth=depth, stem_channels=8, base_channels=8)


def test_counters_of_profilers_are_no_part(tmp_path):
    weights = narrow(18).state_dict()
    weights['layer1.0.total_ops'] = torch.ones(1)
    weights['layer1.0.conv1.total_params'] = torch.ones(1)
    torch.save(weights, tmp_path / 'a.pth')
    report = load_backbone_checkpoint(narrow(18), tmp_path / 'a.pth')
    assert report.unexpected == () and len(report.dropped) == 2


@pytest.mark.parametrize('kind', ['downsample.1.', 'bn2.bias'])
def test_a_kind_that_every_block_lacks_is_another_network(kind, tmp_path):
    """Few parameters, which the share of a stage does not notice."""
    weights = {k: v for k, v in narrow(50).state_dict().items() if kind not in k}
    torch.save(weights, tmp_path / 'a.pth')
    with mistake(str(tmp_path / 'a.pth'), ('ResNet', kind)):
        load_backbone_checkpoint(narrow(50), tmp_path / 'a.pth')


def test_one_of_a_kind_may_be_lacking_and_is_told(tmp_path):
    weights = narrow(50).state_dict()
    del weights['layer3.2.bn2.bias']
    torch.save(weights, tmp_path / 'a.pth')
    report = load_backbone_checkpoint(narrow(50), tmp_path / 'a.pth')
    assert report.missing == ('layer3.2.bn2.bias',)
    (note,) = report.notes
    assert note.startswith('1 ') and 'layer3.2.bn2.bias' in note


def test_a_message_speaks_the_files_names(tmp_path):
    weights = {f'model.{k}': v for k, v in narrow(18).state_dict().items()}
    torch.save({**weights, 'model.gate': torch.ones(1)}, tmp_path / 'a.pth')
    with mistake(str(tmp_path / 'a.pth'), ('ResNet', "'model.gate'")):
        load_backbone_checkpoint(narrow(18), tmp_path / 'a.pth')
    report = load_backbone_checkpoint(narrow(18), tmp_path / 'a.pth', min_matched=0)
    assert report.unexpected == ('model.gate',)
