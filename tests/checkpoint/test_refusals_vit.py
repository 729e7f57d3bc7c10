"""Plain ViTs: what is refused, and that the comparison of features notices each way to be wrong."""

import pytest
import torch
from mistakes import mistake
from reference_vits import (
    DIM,
    OfficialBeit,
    PlainViT,
    check_function,
    loaded,
    mmseg_backbone,
    trained,
)

from mm_tuning_plugin.checkpoint import hash_state_dict
from mm_tuning_plugin.checkpoint.naming import NAMINGS


@pytest.fixture(scope='module')
def plain():
    return trained(PlainViT())


def refused(backbone, weights, tmp_path, problem=(), remedy=()):
    """The backbone stays as it was; the error names it and holds these facts."""
    before = hash_state_dict(backbone.state_dict())
    with mistake(str(tmp_path / 'a.pth'), problem, remedy) as error:
        loaded(backbone, weights, tmp_path)
    assert type(backbone).__name__ in error.value.problem
    assert hash_state_dict(backbone.state_dict()) == before


@pytest.mark.parametrize('kind', ['VisionTransformer', 'MAE'])
@pytest.mark.parametrize('name', ['register_tokens', 'reg_token', 'storage_tokens'])
def test_register_tokens(name, kind, plain, tmp_path):
    """DINOv2's, timm's and DINOv3's names: every token attends to them."""
    weights = {**plain.state_dict(), name: torch.ones(1, 4, DIM)}
    refused(mmseg_backbone(kind), weights, tmp_path, 'register tokens', 'registers')
    backbone = mmseg_backbone(kind)
    report = loaded(backbone, weights, tmp_path, min_matched=0)
    assert name in report.dropped + report.unexpected


@pytest.mark.parametrize('kind', ['VisionTransformer', 'MAE'])
@pytest.mark.parametrize('names', [('w12', 'w3'), ('fc1', 'fc2')])
def test_swiglu(names, kind, plain, tmp_path):
    """DINOv2-giant, in its own names and in timm's (one packed layer): the MLP has a gate."""
    weights = {k: v for k, v in plain.state_dict().items() if '.mlp.' not in k}
    for block in range(3):
        for name, shape in zip(names, ((88, DIM), (DIM, 44))):
            weights[f'blocks.{block}.mlp.{name}.weight'] = torch.ones(shape)
            weights[f'blocks.{block}.mlp.{name}.bias'] = torch.ones(shape[0])
    refused(mmseg_backbone(kind), weights, tmp_path, 'SwiGLU')


def test_norms_of_query_and_key(plain, tmp_path):
    weights = {**plain.state_dict(), 'blocks.0.attn.q_norm.weight': torch.ones(8)}
    refused(mmseg_backbone('VisionTransformer'), weights, tmp_path, ('norms', 'queries', 'keys'))


@pytest.mark.parametrize('shared', [True, False])
def test_relative_positions_into_a_backbone_without(shared, tmp_path):
    weights = trained(OfficialBeit(shared=shared, absolute=True)).state_dict()
    backbone = mmseg_backbone('VisionTransformer')
    refused(backbone, weights, tmp_path, 'relative positions', ('BEiT', 'MAE'))


def test_absolute_positions_into_a_backbone_without(plain, tmp_path):
    refused(mmseg_backbone('BEiT'), plain.state_dict(), tmp_path, 'absolute positions', 'MAE')


@pytest.mark.parametrize(
    ('options', 'facts'),
    [
        ({'pre_norm': True}, ('norm before its first block', 'pre_norm=False')),
        ({'qkv_bias': False}, ('biases of query, key and value', 'qkv_bias=True')),
        ({'patch_size': 16}, (('patches of 8', ' 16'),)),
        ({'patch_norm': True}, ('patch_embed',)),
        ({'embed_dims': 32}, (('16 channels', ' 32'),)),
        ({'mlp_ratio': 2}, ('layers.0',)),
        ({'num_layers': 2}, (('3 layers', ' 2'),)),
        ({'num_layers': 4}, (('3 layers', ' 4'),)),
    ],
)
def test_other_options_of_the_backbone(options, facts, plain, tmp_path):
    refused(mmseg_backbone('VisionTransformer', **options), plain.state_dict(), tmp_path, *facts)


def test_norm_before_the_blocks(tmp_path):
    weights = trained(PlainViT(pre_norm=True)).state_dict()
    backbone = mmseg_backbone('VisionTransformer')
    refused(backbone, weights, tmp_path, 'norm before its first block', 'pre_norm=True')


@pytest.mark.parametrize('kind', ['VisionTransformer', 'MAE'])
def test_norm_of_the_mean_is_no_final_norm(kind, plain, tmp_path):
    """fc_norm acts on the mean of all tokens: it must not become the norm of each."""
    names = {'norm.weight': 'fc_norm.weight', 'norm.bias': 'fc_norm.bias'}
    weights = {names.get(k, k): v for k, v in plain.state_dict().items()}
    facts = 'norm behind its last block', 'final_norm=False'
    refused(mmseg_backbone(kind), weights, tmp_path, *facts)
    backbone = mmseg_backbone(kind, final_norm=False)
    report = loaded(backbone, weights, tmp_path)
    assert 'fc_norm.weight' in report.dropped
    check_function(backbone, lambda images: plain.features(images, final_norm=False))


@pytest.mark.parametrize('kind', ['VisionTransformer', 'MAE'])
def test_no_class_token(kind, tmp_path):
    weights = trained(PlainViT(class_token='none')).state_dict()
    refused(mmseg_backbone(kind), weights, tmp_path, 'class token', 'with_cls_token=False')


def test_class_token_that_the_backbone_leaves_out_is_noted(plain, tmp_path):
    backbone = mmseg_backbone('VisionTransformer', with_cls_token=False)
    (note,) = loaded(backbone, plain.state_dict(), tmp_path).notes
    assert 'with_cls_token=False' in note


def test_other_number_of_heads_shows_in_the_tables(tmp_path):
    weights = trained(OfficialBeit()).state_dict()
    found = "'layers.0.attn.relative_position_bias_table'", '(52, 2)'
    refused(mmseg_backbone('BEiT', num_heads=4), weights, tmp_path, found, '(52, 4)')


@pytest.mark.parametrize('size', [32, 48])
def test_table_that_is_no_square(size, tmp_path):
    weights = trained(OfficialBeit(window=(3, 5))).state_dict()
    refused(mmseg_backbone('BEiT', size), weights, tmp_path, '(48, 2)')


@pytest.mark.parametrize(
    'lost', ['blocks.1.gamma_2', 'blocks.2.norm1.bias', 'blocks.0.attn.proj.bias', 'cls_token']
)
def test_one_small_tensor_is_lacking(lost, tmp_path):
    weights = trained(OfficialBeit()).state_dict()
    del weights[lost]
    if lost == 'cls_token':
        refused(mmseg_backbone('BEiT'), weights, tmp_path, 'class token', 'with_cls_token=False')
        return
    with mistake(str(tmp_path / 'a.pth'), 'BEiT', '100%'):
        loaded(mmseg_backbone('BEiT'), weights, tmp_path, min_matched=1)
    report = loaded(mmseg_backbone('BEiT'), weights, tmp_path)
    (note,) = report.notes
    assert note.startswith('1 ') and 'layers.' in note


@pytest.mark.parametrize(
    ('name', 'told'),
    [
        ('blocks.1.attn.scale', 'blocks.1.attn.scale'),
        ('patch_embed.norm.weight', 'patch_embed.proj.bias'),  # not folded behind a norm
    ],
)
def test_one_small_tensor_is_left_over(name, told, plain, tmp_path):
    weights = {**plain.state_dict(), name: torch.ones(DIM)}
    refused(mmseg_backbone('VisionTransformer'), weights, tmp_path, f"'{told}'")


def test_chunks_that_count_from_zero_each(plain, tmp_path):
    """Which block is which is not known: not loaded one over the other."""
    weights = {}
    for name, value in plain.state_dict().items():
        weights[name.replace('blocks.', 'blocks.0.')] = value
        weights[name.replace('blocks.', 'blocks.1.')] = value
    for depth in (3, 6):
        refused(mmseg_backbone('VisionTransformer', num_layers=depth), weights, tmp_path)


def test_namings_need_no_values(plain):
    """On the 'meta' device they give the names and shapes that they give with values."""
    sources = [
        trained(PlainViT(scaled=True, class_token='free')).state_dict(),
        trained(OfficialBeit(shared=True)).state_dict(),
        trained(mmseg_backbone('BEiT')).state_dict(),
        trained(mmseg_backbone('VisionTransformer', patch_bias=True)).state_dict(),
    ]
    for kind in ('VisionTransformer', 'MAE', 'BEiT'):
        targets = mmseg_backbone(kind).state_dict()
        for naming in NAMINGS:
            for source in sources:
                meta = {name: value.to('meta') for name, value in source.items()}
                found = naming.rename(meta, targets)
                assert all(value.is_meta for value in found.values())
                shapes = {name: value.shape for name, value in found.items()}
                expected = naming.rename(source, targets)
                assert shapes == {name: value.shape for name, value in expected.items()}


def roll_projection(weights):
    weights['layers.1.attn.attn.in_proj_weight'].copy_(
        weights['layers.1.attn.attn.in_proj_weight'].roll(DIM, 0)
    )


def transpose_positions(weights):
    grid = weights['pos_embed'][0, 1:].reshape(4, 4, DIM)
    weights['pos_embed'][0, 1:] = grid.transpose(0, 1).flatten(0, 1).clone()


def swap_tables(weights):
    table = weights['layers.0.attn.relative_position_bias_table']
    table[:-3] = table[:-3].reshape(7, 7, -1).transpose(0, 1).flatten(0, 1).clone()


FAULTS = {
    'order of query, key, value': ('VisionTransformer', roll_projection),
    'order of positions': ('VisionTransformer', transpose_positions),
    'order of a table': ('BEiT', swap_tables),
    'class token in the table': (
        'BEiT',
        lambda weights: weights['layers.0.attn.relative_position_bias_table'][-3:].zero_(),
    ),
    'class token': ('VisionTransformer', lambda weights: weights['cls_token'].zero_()),
    'its position': ('VisionTransformer', lambda weights: weights['pos_embed'][:, 0].zero_()),
    'patch bias': (
        'VisionTransformer',
        lambda weights: weights['patch_embed.projection.bias'].zero_(),
    ),
    'final norm': ('VisionTransformer', lambda weights: weights['ln1.weight'].fill_(1)),
    'LayerScale at its start': ('MAE', lambda weights: weights['layers.2.gamma_1'].fill_(0.1)),
    'LayerScale not folded': (
        'VisionTransformer',
        lambda weights: weights['layers.0.ffn.layers.1.bias'].mul_(1.1),
    ),
    'value bias': ('BEiT', lambda weights: weights['layers.0.attn.v_bias'].zero_()),
    'query bias': ('BEiT', lambda weights: weights['layers.0.attn.q_bias'].zero_()),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_the_comparison_notices(fault, plain, tmp_path):
    """Each fault of a renaming that loads everything is seen in the features."""
    kind, spoil = FAULTS[fault]
    reference = trained(OfficialBeit()) if kind == 'BEiT' else plain
    options = {'patch_bias': True} if kind == 'VisionTransformer' else {}
    backbone = mmseg_backbone(kind, **options)
    loaded(backbone, reference.state_dict(), tmp_path)
    check_function(backbone, reference.features)
    with torch.no_grad():
        spoil(backbone.state_dict())
    with pytest.raises(AssertionError):
        check_function(backbone, reference.features)


def test_the_comparison_notices_epsilon(tmp_path):
    """On a faint residual stream, where the epsilon of a norm matters."""
    reference = trained(PlainViT())
    with torch.no_grad():
        for name, value in reference.state_dict().items():
            if name in ('cls_token', 'pos_embed') or 'patch_embed' in name:
                value.mul_(0.01)
    for eps in (1e-6, 1e-5):
        backbone = mmseg_backbone('VisionTransformer', norm_cfg={'type': 'LN', 'eps': eps})
        report = loaded(backbone, reference.state_dict(), tmp_path)
        if eps == 1e-6:
            check_function(backbone, reference.features)
        else:
            assert 'eps' in report.notes[0]
            with pytest.raises(AssertionError):
                check_function(backbone, reference.features)
