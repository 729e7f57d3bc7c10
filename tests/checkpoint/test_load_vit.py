"""Transformers: timm's names, the function that arrives in mmseg's, resizing, folding, refusals."""

import pytest
import torch
import torch.nn.functional as F
from mistakes import mistake
from mmseg.models.backbones import MAE, BEiT, ResNet, SwinTransformer, VisionTransformer
from reference_networks import TimmViT, randomise

from mm_tuning_plugin.checkpoint import hash_state_dict, load_backbone_checkpoint

EPS = {'type': 'LN', 'eps': 1e-6}


def vit(**options):
    options = {
        'img_size': 32,
        'patch_size': 8,
        'embed_dims': 16,
        'num_layers': 3,
        'num_heads': 2,
        'norm_cfg': EPS,
        'final_norm': True,
        **options,
    }
    return VisionTransformer(**options)


def source(**options):
    with torch.no_grad():
        return randomise(TimmViT(**options), seed=7)


def loaded(backbone, weights, tmp_path, **options):
    torch.save(weights, tmp_path / 'a.pth')
    report = load_backbone_checkpoint(backbone, tmp_path / 'a.pth', **options)
    backbone.eval()
    return report


def check_function(backbone, reference, size=32, **options):
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = reference.features(images, **options)
        assert expected.std() > 0.1
        torch.testing.assert_close(backbone(images)[-1], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('patch_bias', [True, False])
@pytest.mark.parametrize('scaled', [True, False])
def test_the_function_arrives(patch_bias, scaled, tmp_path):
    """Without a patch bias or LayerScale in the backbone they are folded into their neighbours."""
    reference = source(scaled=scaled)
    backbone = vit(patch_bias=patch_bias)
    report = loaded(backbone, {'teacher': reference.state_dict()}, tmp_path)
    check_function(backbone, reference)
    assert report.layout[:4] == ('teacher', '', 'timm ViT', ())
    assert report.missing == () and report.unexpected == () and report.notes == ()
    assert sorted(report.dropped) == ['teacher.head.bias', 'teacher.head.weight']
    assert list(report.stages) == [
        'tokens',
        'patch_embed',
        'layers.0',
        'layers.1',
        'layers.2',
        'ln1',
    ]
    assert report.share == 1


def test_dino_file(tmp_path, vit_source):
    weights = {f'module.backbone.{k}': v for k, v in vit_source.state_dict().items()}
    other = {k: v + 1 for k, v in weights.items()}
    heads = {'module.head.mlp.0.weight': torch.ones(4, 16)}
    backbone = vit()
    report = loaded(backbone, {'student': {**other, **heads}, 'teacher': weights}, tmp_path)
    assert report.layout[:2] == ('teacher', 'module.backbone.')
    assert report.layout.equals == ('student.module.backbone.',)
    check_function(backbone, vit_source)


def test_moco_v3_file(tmp_path, vit_source):
    fast = {f'module.base_encoder.{k}': v for k, v in vit_source.state_dict().items()}
    slow = {f'module.momentum_encoder.{k}': v + 1 for k, v in vit_source.state_dict().items()}
    backbone = vit()
    report = loaded(backbone, {'state_dict': {**slow, **fast}}, tmp_path)
    assert report.layout.prefix == 'module.base_encoder.'
    check_function(backbone, vit_source)


def mae_file(reference):
    extra = {
        'mask_token': torch.ones(1, 1, 8),
        'decoder_pos_embed': torch.ones(1, 17, 8),
        'decoder_embed.weight': torch.ones(8, 16),
        'decoder_blocks.0.attn.qkv.weight': torch.ones(24, 8),
    }
    weights = {k: v for k, v in reference.state_dict().items() if not k.startswith('head')}
    return {'model': {**weights, **extra}, 'epoch': 1}


def test_mae_file_into_vit(tmp_path, vit_source):
    backbone = vit()
    report = loaded(backbone, mae_file(vit_source), tmp_path)
    assert report.layout[:4] == ('model', '', 'timm ViT', ())
    assert 'model.decoder_blocks.0.attn.qkv.weight' in report.dropped
    assert 'model.mask_token' in report.dropped
    check_function(backbone, vit_source)


@pytest.mark.parametrize('init_values', [1.0, 0.1])
def test_mae_file_into_mmseg_mae(init_values, tmp_path, vit_source):
    """LayerScale, which the file lacks, must not stay at mmseg's 0.1."""
    backbone = MAE(
        img_size=32,
        patch_size=8,
        embed_dims=16,
        num_layers=3,
        num_heads=2,
        norm_cfg=EPS,
        init_values=init_values,
    )
    report = loaded(backbone, mae_file(vit_source), tmp_path)
    check_function(backbone, vit_source, final_norm=False)
    assert 'layers.2.gamma_1' in report.filled
    assert 'layers.0.attn.relative_position_bias_table' in report.filled
    assert len(report.filled) == 3 * 3


def test_mmpretrain_names(tmp_path, vit_source):
    """OpenMMLab's classifiers call the blocks as mmseg does and the attention as timm does."""
    weights = {}
    for name, value in vit_source.state_dict().items():
        for old, new in (
            ('blocks.', 'layers.'),
            ('patch_embed.proj.', 'patch_embed.projection.'),
            ('.norm1.', '.ln1.'),
            ('.norm2.', '.ln2.'),
            ('.mlp.fc1.', '.ffn.layers.0.0.'),
            ('.mlp.fc2.', '.ffn.layers.1.'),
        ):
            name = name.replace(old, new)
        name = name.replace('norm.', 'ln1.') if name.startswith('norm.') else name
        weights[f'backbone.{name}'] = value
    backbone = vit()
    loaded(backbone, {'state_dict': weights}, tmp_path)
    check_function(backbone, vit_source)


def test_plain_mmseg_names_are_taken_as_they_are(tmp_path):
    with torch.no_grad():
        reference = randomise(vit(), seed=3)
    backbone = vit()
    report = loaded(backbone, {'state_dict': reference.state_dict(), 'meta': {}}, tmp_path)
    assert report.layout.renaming == 'same names'
    assert hash_state_dict(backbone.state_dict()) == hash_state_dict(reference.state_dict())


def test_patch_bias_of_an_mmseg_file_is_folded_too(tmp_path):
    with torch.no_grad():
        reference = randomise(vit(patch_bias=True), seed=3)
    backbone = vit(patch_bias=False)
    loaded(backbone, {'state_dict': reference.state_dict()}, tmp_path)
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images)[0], reference(images)[0], atol=1e-4, rtol=1e-4)


def test_the_epsilon_that_weights_cannot_carry_is_noted(tmp_path, vit_source):
    report = loaded(vit(norm_cfg={'type': 'LN'}), vit_source.state_dict(), tmp_path)
    (note,) = report.notes
    assert '1e-05' in note and "norm_cfg=dict(type='LN', eps=1e-06)" in note


@pytest.mark.parametrize('shape', [(16, 16), (64, 64), (32, 64), (24, 40)])
def test_positions_are_interpolated(shape, tmp_path, vit_source):
    """As timm's resample: the class token kept, the grid bicubic, also to a grid not square."""
    backbone = vit(img_size=shape, patch_bias=True)
    report = loaded(backbone, vit_source.state_dict(), tmp_path)
    h, w = shape[0] // 8, shape[1] // 8
    old = vit_source.pos_embed.detach()
    grid = old[:, 1:].reshape(1, 4, 4, 16).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(h, w), mode='bicubic', align_corners=False)
    expected = torch.cat((old[:, :1], grid.permute(0, 2, 3, 1).reshape(1, h * w, 16)), dim=1)
    torch.testing.assert_close(backbone.pos_embed.detach(), expected)
    assert report.resized == {'pos_embed': f'(1, 17, 16) -> (1, {h * w + 1}, 16)'}


def test_distillation_token_is_dropped(tmp_path, vit_source):
    """DeiT has a second extra token; its position is not one of the grid's."""
    weights = dict(vit_source.state_dict())
    old = weights['pos_embed']
    weights['dist_token'] = torch.ones(1, 1, 16)
    weights['pos_embed'] = torch.cat((old[:, :1], torch.full((1, 1, 16), 9.0), old[:, 1:]), dim=1)
    backbone = vit(patch_bias=True)
    report = loaded(backbone, weights, tmp_path)
    torch.testing.assert_close(backbone.pos_embed.detach(), old)
    assert 'dist_token' in report.dropped


@pytest.mark.parametrize(
    ('options', 'facts'),
    [
        ({'patch_size': 16, 'img_size': 64}, ('patches of 8', ' 16')),
        ({'embed_dims': 32}, ('16 channels', ' 32')),
        ({'num_layers': 5}, ('3 layers', ' 5')),
        ({'num_layers': 2}, ('3 layers', ' 2')),
    ],
)
def test_refusals(options, facts, tmp_path, vit_source):
    torch.save({'model': vit_source.state_dict()}, tmp_path / 'a.pth')
    backbone = vit(**options)
    before = hash_state_dict(backbone.state_dict())
    with mistake(str(tmp_path / 'a.pth'), ('VisionTransformer', *facts)):
        load_backbone_checkpoint(backbone, tmp_path / 'a.pth')
    assert hash_state_dict(backbone.state_dict()) == before


def test_vit_file_into_resnet(tmp_path, vit_source):
    torch.save({'model': vit_source.state_dict()}, tmp_path / 'a.pth')
    with mistake(str(tmp_path / 'a.pth'), (' ViT', ' ResNet')):
        load_backbone_checkpoint(ResNet(depth=18), tmp_path / 'a.pth')


def test_beit_shared_bias_is_given_to_every_block(tmp_path):
    """Official BEiT pre-training shares one table; mmseg's BEiT has one a block."""
    options = {'patch_size': 8, 'embed_dims': 16, 'num_layers': 2, 'num_heads': 2}
    with torch.no_grad():
        reference = randomise(BEiT(img_size=32, **options), seed=4)
    weights = {}
    for name, value in reference.state_dict().items():
        for old, new in (
            ('layers.', 'blocks.'),
            ('patch_embed.projection.', 'patch_embed.proj.'),
            ('.ln1.', '.norm1.'),
            ('.ln2.', '.norm2.'),
            ('.ffn.blocks.0.0.', '.mlp.fc1.'),
            ('.ffn.blocks.1.', '.mlp.fc2.'),
        ):
            name = name.replace(old, new)
        weights[name] = value
    table = weights['blocks.0.attn.relative_position_bias_table']
    weights = {k: v for k, v in weights.items() if 'relative_position' not in k}
    weights['rel_pos_bias.relative_position_bias_table'] = table
    # the backbone's own index table stays, whatever the file says
    weights['blocks.0.attn.relative_position_index'] = torch.zeros(17, 17, dtype=torch.long)
    backbone = BEiT(img_size=32, **options)
    report = loaded(backbone, {'model': weights}, tmp_path)
    assert report.share == 1
    own = dict(reference.state_dict())
    own['layers.1.attn.relative_position_bias_table'] = table
    assert hash_state_dict(backbone.state_dict()) == hash_state_dict(own)
    larger = BEiT(img_size=64, **options)
    index = larger.layers[0].attn.relative_position_index.clone()
    report = loaded(larger, {'model': weights}, tmp_path)
    assert report.resized['layers.0.attn.relative_position_bias_table'] == '(52, 2) -> (228, 2)'
    assert torch.equal(larger.layers[0].attn.relative_position_index, index)


def official_merging(x, norm, reduction):
    """PatchMerging.forward of microsoft/Swin-Transformer. x: (B, H, W, C)."""
    x0 = x[:, 0::2, 0::2, :]
    x1 = x[:, 1::2, 0::2, :]
    x2 = x[:, 0::2, 1::2, :]
    x3 = x[:, 1::2, 1::2, :]
    x = torch.cat([x0, x1, x2, x3], -1)
    x = F.layer_norm(x.flatten(1, 2), (x.shape[-1],), norm['weight'], norm['bias'])
    return F.linear(x, reduction)


def test_official_swin(tmp_path):
    """Names, the order of merged patches, and the output norms that no classifier has."""
    options = {
        'pretrain_img_size': 32,
        'embed_dims': 8,
        'depths': (1, 1, 1, 1),
        'num_heads': (1, 1, 1, 1),
        'window_size': 2,
    }
    with torch.no_grad():
        reference = randomise(SwinTransformer(**options), seed=6)
    weights = {}
    for name, value in reference.state_dict().items():
        for old, new in (
            ('patch_embed.projection.', 'patch_embed.proj.'),
            ('stages.', 'levels.'),
            ('.attn.w_msa.', '.attn.'),
            ('.ffn.layers.0.0.', '.mlp.fc1.'),
            ('.ffn.layers.1.', '.mlp.fc2.'),
            ('levels.', 'layers.'),
        ):
            name = name.replace(old, new)
        if name.startswith('norm'):
            if name[4] != '3':
                continue
            name = name.replace('norm3.', 'norm.')
        weights[name] = value
    weights['head.weight'] = torch.ones(3, 64)
    backbone = SwinTransformer(**options)
    report = loaded(backbone, {'model': weights}, tmp_path)
    assert report.layout.renaming == 'official Swin'
    assert report.missing == () and report.unexpected == ()
    assert sorted(report.filled) == sorted(
        f'norm{i}.{kind}' for i in range(3) for kind in ('weight', 'bias')
    )
    assert torch.equal(backbone.norm3.weight, reference.norm3.weight)
    assert (backbone.norm0.weight == 1).all() and (backbone.norm0.bias == 0).all()
    own = backbone.state_dict()
    for name, value in reference.state_dict().items():
        if '.downsample.' not in name and not name.startswith('norm'):
            assert torch.equal(own[name], value), name

    x = torch.randn(2, 4, 4, 8)
    prefix = 'layers.0.downsample.'
    norm = {kind: weights[f'{prefix}norm.{kind}'] for kind in ('weight', 'bias')}
    expected = official_merging(x, norm, weights[f'{prefix}reduction.weight'])
    found, _ = backbone.stages[0].downsample(x.flatten(1, 2), (4, 4))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_openmmlab_swin_with_the_last_norm_only(tmp_path):
    options = {
        'pretrain_img_size': 32,
        'embed_dims': 8,
        'depths': (1, 1, 1, 1),
        'num_heads': (1, 1, 1, 1),
        'window_size': 2,
    }
    with torch.no_grad():
        reference = randomise(SwinTransformer(**options), seed=6)
    kept = {k: v for k, v in reference.state_dict().items() if not k.startswith(('norm0', 'norm1'))}
    weights = {f'backbone.{k}': v for k, v in kept.items() if not k.startswith('norm2')}
    backbone = SwinTransformer(**options)
    report = loaded(backbone, {'state_dict': weights}, tmp_path)
    assert report.layout.renaming == 'same names' and len(report.filled) == 6
    assert torch.equal(backbone.norm3.weight, reference.norm3.weight)
