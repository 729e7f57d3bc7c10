"""Files in timm's, official and OpenMMLab's names: the function that arrives in mmseg's ViTs."""

import pytest
import torch
from reference_vits import (
    DEPTH,
    OfficialBeit,
    PlainViT,
    check_function,
    loaded,
    mmseg_backbone,
    resized_positions,
    resized_table,
    trained,
)

SIZES = [32, 48, (40, 64), 16]
FOLDED = {'patch_bias': False}


@pytest.fixture(scope='module')
def plain():
    return trained(PlainViT())


@pytest.fixture(scope='module')
def scaled():
    """DINOv2: LayerScale far from 1."""
    return trained(PlainViT(scaled=True))


def lacking(report):
    """Parameters that kept their start; index tables are the backbone's own."""
    return tuple(name for name in report.missing if not name.endswith('position_index'))


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('kind', ['VisionTransformer', 'MAE'])
@pytest.mark.parametrize('source', ['plain', 'scaled'])
def test_timm_file_at_any_size(kind, source, size, request, tmp_path):
    """The reference runs at that size, its positions interpolated as MAE's own script does."""
    reference = request.getfixturevalue(source)
    backbone = mmseg_backbone(kind, size)
    report = loaded(backbone, {'model': reference.state_dict()}, tmp_path)
    check_function(backbone, reference.features, size)
    assert lacking(report) == () == report.unexpected + report.notes
    assert report.share == 1


def test_a_backbone_of_the_files_size_runs_at_another(plain, tmp_path):
    backbone = mmseg_backbone('VisionTransformer', patch_bias=True)
    loaded(backbone, plain.state_dict(), tmp_path)
    check_function(backbone, plain.features, (64, 40))


@pytest.mark.parametrize('final_norm', [True, False])
@pytest.mark.parametrize('kind', ['VisionTransformer', 'MAE'])
def test_final_norm_follows_the_backbone(kind, final_norm, plain, tmp_path):
    backbone = mmseg_backbone(kind, final_norm=final_norm)
    loaded(backbone, plain.state_dict(), tmp_path)
    check_function(backbone, lambda images: plain.features(images, final_norm))


def test_equal_counts_of_another_grid_are_interpolated(plain, tmp_path):
    """4 x 4 positions of the file are not the 2 x 8 of the backbone, though both are 16."""
    backbone = mmseg_backbone('VisionTransformer', (16, 64), patch_bias=True)
    loaded(backbone, plain.state_dict(), tmp_path)
    check_function(backbone, plain.features, (16, 64))


def test_mmseg_file_of_a_grid_that_is_no_square_stays(tmp_path):
    """A file of mmseg's own may be of any grid: equal counts are taken as they are."""
    reference = trained(mmseg_backbone('VisionTransformer', (16, 64), patch_bias=True))
    backbone = mmseg_backbone('VisionTransformer', (16, 64), **FOLDED)
    loaded(backbone, {'state_dict': reference.state_dict()}, tmp_path)
    check_function(backbone, lambda images: reference(images)[-1], (16, 64))


@pytest.mark.parametrize('size', [32, 48])
def test_no_class_token(size, tmp_path):
    """I-JEPA: a backbone that leaves the class token out of attention computes the same."""
    reference = trained(PlainViT(class_token='none'))
    backbone = mmseg_backbone('VisionTransformer', size, with_cls_token=False)
    report = loaded(backbone, reference.state_dict(), tmp_path)
    assert report.missing == ('cls_token',)
    check_function(backbone, reference.features, size)


@pytest.mark.parametrize('size', [32, 48])
@pytest.mark.parametrize('kind', ['VisionTransformer', 'MAE'])
def test_class_token_without_position(kind, size, tmp_path):
    """DeiT III adds positions before the class token comes: its position is zero."""
    reference = trained(PlainViT(class_token='free', scaled=True))
    backbone = mmseg_backbone(kind, size)
    loaded(backbone, {'model': reference.state_dict()}, tmp_path)
    check_function(backbone, reference.features, size)


def test_norm_before_the_blocks(tmp_path):
    """CLIP in timm's names; its patch embedding has no bias, the backbone's becomes zero."""
    reference = trained(PlainViT(pre_norm=True))
    backbone = trained(mmseg_backbone('VisionTransformer', pre_norm=True, patch_bias=True), 1)
    report = loaded(backbone, reference.state_dict(), tmp_path)
    assert report.filled == ('patch_embed.projection.bias',)
    assert (backbone.patch_embed.projection.bias == 0).all()
    check_function(backbone, reference.features)


@pytest.mark.parametrize('kind', ['VisionTransformer', 'MAE'])
def test_no_biases_of_query_key_value(kind, tmp_path):
    """The backbone has them: they become zero, not its own start."""
    reference = trained(PlainViT(qkv_bias=False))
    backbone = trained(mmseg_backbone(kind), 1)
    report = loaded(backbone, reference.state_dict(), tmp_path)
    assert sum('bias' in name and 'table' not in name for name in report.filled) == DEPTH
    check_function(backbone, reference.features)


def test_dinov2_blocks_in_chunks(scaled, tmp_path):
    """``block_chunks=2``: blocks.0.0, blocks.0.1, blocks.1.2; a mask token beside them."""
    weights = {'teacher.backbone.mask_token': torch.ones(1, 16)}
    for name, value in scaled.state_dict().items():
        parts = name.split('.')
        if parts[0] == 'blocks':
            parts.insert(1, str(int(parts[1]) // 2))
        weights['teacher.backbone.' + '.'.join(parts)] = value
    weights['teacher.dino_head.last_layer.weight'] = torch.ones(4, 4)
    assert 'teacher.backbone.blocks.1.2.norm1.weight' in weights
    for kind in ('VisionTransformer', 'MAE'):
        backbone = mmseg_backbone(kind)
        loaded(backbone, weights, tmp_path)
        check_function(backbone, scaled.features)


def openmmlab_names(weights, scale):
    """mmpretrain's names; `scale`: its module of the second LayerScale keeps weight or scale."""
    named = {}
    for name, value in weights.items():
        for old, new in (
            ('blocks.', 'layers.'),
            ('patch_embed.proj.', 'patch_embed.projection.'),
            ('.norm1.', '.ln1.'),
            ('.norm2.', '.ln2.'),
            ('.mlp.fc1.', '.ffn.layers.0.0.'),
            ('.mlp.fc2.', '.ffn.layers.1.'),
            ('.ls1.gamma', '.attn.gamma1.weight'),
            ('.ls2.gamma', f'.ffn.gamma2.{scale}'),
        ):
            name = name.replace(old, new)
        name = name.replace('norm.', 'ln1.') if name.startswith('norm.') else name
        named[f'backbone.{name}'] = value
    return named


@pytest.mark.parametrize('scale', ['weight', 'scale'])
@pytest.mark.parametrize('kind', ['VisionTransformer', 'MAE'])
def test_mmpretrain_file(kind, scale, scaled, tmp_path):
    backbone = mmseg_backbone(kind, 48)
    weights = openmmlab_names(scaled.state_dict(), scale)
    report = loaded(backbone, {'state_dict': weights}, tmp_path)
    assert report.layout[1:3] == ('backbone.', 'mmpretrain ViT')
    check_function(backbone, scaled.features, 48)


@pytest.mark.parametrize('size', [32, 48, (24, 40)])
@pytest.mark.parametrize('shared', [True, False])
@pytest.mark.parametrize('kind', ['BEiT', 'MAE'])
def test_official_beit(kind, shared, size, tmp_path):
    """Its tables interpolated bicubically; MAE's absolute positions become zero."""
    reference = trained(OfficialBeit(shared=shared))
    weights = reference.state_dict()
    for block in range(DEPTH if not shared else 0):  # a buffer of the file's own window
        name = f'blocks.{block}.attn.relative_position_index'
        weights[name] = torch.zeros(17, 17, dtype=torch.long)
    backbone = trained(mmseg_backbone(kind, size), 1)
    report = loaded(backbone, {'model': weights}, tmp_path)
    assert report.layout.renaming == 'timm ViT' and lacking(report) == ()
    height, width = size if isinstance(size, tuple) else (size, size)
    window = (height // 8, width // 8)
    check_function(backbone, reference.at(window).features, size)
    assert ('pos_embed' in report.filled) == (kind == 'MAE')
    old = reference.state_dict()
    name = 'rel_pos_bias' if shared else 'blocks.1.attn'
    expected = resized_table(old[f'{name}.relative_position_bias_table'], window)
    own = backbone.state_dict()['layers.1.attn.relative_position_bias_table']
    torch.testing.assert_close(own, expected)


@pytest.mark.parametrize('kind', ['VisionTransformer', 'MAE'])
def test_official_beit_with_absolute_positions_only(kind, tmp_path):
    """Packs q_bias and v_bias, with zero for the key, into mmseg's own biases."""
    reference = trained(OfficialBeit(relative=False, absolute=True))
    backbone = trained(mmseg_backbone(kind), 1)
    report = loaded(backbone, {'model': reference.state_dict()}, tmp_path)
    check_function(backbone, reference.features)
    name = 'attn.qkv.bias' if kind == 'MAE' else 'attn.attn.in_proj_bias'
    query, key, value = backbone.state_dict()[f'layers.1.{name}'].chunk(3)
    assert query.any() and value.any() and not key.any()  # a key's bias, no feature would show
    assert lacking(report) == ()
    # the tokens and the head of pre-training
    assert set(report.unexpected + report.dropped) == {
        'model.mask_token',
        'model.lm_head.weight',
        'model.lm_head.bias',
    }


def test_both_kinds_of_positions(tmp_path):
    reference = trained(OfficialBeit(absolute=True))
    backbone = mmseg_backbone('MAE')
    report = loaded(backbone, {'model': reference.state_dict()}, tmp_path)
    assert report.filled == ()
    check_function(backbone, reference.features)


@pytest.mark.parametrize(
    ('source', 'kind', 'neutral'),
    [
        ('BEiT', 'MAE', {}),
        ('MAE', 'BEiT', {'pos_embed': 0}),
        ('MAE', 'VisionTransformer', {'relative_position_bias_table': 0}),
        ('VisionTransformer', 'MAE', {}),
    ],
)
def test_from_one_of_mmsegs_transformers_to_another(source, kind, neutral, tmp_path):
    """Packed biases are split, split ones packed, LayerScale folded: where nothing is lost."""
    options = {'patch_bias': True} if source == 'VisionTransformer' else {}
    reference = trained(mmseg_backbone(source, **options))
    weights = reference.state_dict()
    with torch.no_grad():
        for name in list(weights):
            if any(name.endswith(part) for part in neutral):
                weights[name].zero_()
                del weights[name]
    backbone = trained(mmseg_backbone(kind), 1)
    loaded(backbone, {'state_dict': weights}, tmp_path)
    check_function(backbone, lambda images: reference(images)[-1])


def dino_positions(positions, grid):
    """DINO's and DINOv2's own interpolation: by a scale, with 0.1 added against rounding."""
    side = int((positions.shape[1] - 1) ** 0.5)
    maps = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = tuple((new + 0.1) / side for new in grid)
    maps = torch.nn.functional.interpolate(maps, scale_factor=scale, mode='bicubic')
    return torch.cat((positions[:, :1], maps.flatten(2).transpose(1, 2)), dim=1)


def timm_positions(positions, grid):
    """timm's own interpolation: smoothed where it shrinks."""
    side = int((positions.shape[1] - 1) ** 0.5)
    maps = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    maps = torch.nn.functional.interpolate(maps, grid, mode='bicubic', antialias=True)
    return torch.cat((positions[:, :1], maps.flatten(2).transpose(1, 2)), dim=1)


@pytest.mark.parametrize(
    ('other', 'side', 'tolerance'),
    [(dino_positions, 20, 0.06), (timm_positions, 20, 0.04), (timm_positions, 10, 0.3)],
)
def test_how_far_other_definitions_of_interpolation_are(other, side, tolerance, tmp_path):
    """On smooth positions of unit size, as training leaves them; 14 x 14 in the file."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 14)] * 2, indexing='ij')
    waves = torch.arange(1, 9).reshape(-1, 1, 1) / 2
    maps = torch.cat((torch.sin(waves * y), torch.cos(waves * x)))  # (16, 14, 14)
    reference = trained(PlainViT(size=112))
    with torch.no_grad():
        reference.pos_embed[0, 1:] = maps.flatten(1).T
    backbone = mmseg_backbone('VisionTransformer', side * 8, patch_bias=True)
    loaded(backbone, reference.state_dict(), tmp_path)
    own = backbone.pos_embed.detach()
    old = reference.pos_embed.detach()
    torch.testing.assert_close(own, resized_positions(old, (side, side)))
    distance = (own - other(old, (side, side))).abs().max()
    assert tolerance / 10 < distance < tolerance
