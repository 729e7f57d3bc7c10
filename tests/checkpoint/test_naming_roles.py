"""A convention changes only the tensors that it was made for, by their role and shape.

Each case is a neighbour of such a tensor that must pass unchanged: of the same name elsewhere, or
in the same place with another shape.
"""

import pytest
import torch

from mm_tuning_plugin.checkpoint.naming import NAMINGS
from mm_tuning_plugin.checkpoint.naming.rules import rename_all

RENAME = {naming.title: naming.rename for naming in NAMINGS}


def numbers(*shape):
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape)


def targets(**shapes):
    return {name.replace('__', '.'): torch.zeros(shape) for name, shape in shapes.items()}


def test_no_tensor_takes_the_place_of_another():
    tensors = {'a': 1, 'b': 2, 'c': 3, 'd': 4, 'e': 5}
    to = {'a': 'x', 'b': 'x', 'c': 'a', 'd': 'c', 'e': 'y'}
    # a and b would be one; c would be a, which stays; d would be c, which stays
    assert rename_all(tensors, to.get) == {'a': 1, 'b': 2, 'c': 3, 'd': 4, 'y': 5}
    assert rename_all({'a': 1, 'b': 2}, {'a': 'b', 'b': 'a'}.get) == {'b': 1, 'a': 2}
    assert rename_all({'a': 1, 'b': 2}, {'a': 'b', 'b': 'b'}.get) == {'a': 1, 'b': 2}


@pytest.mark.parametrize('title', RENAME)
def test_a_collision_loses_nothing(title):
    """Two projects' names for one tensor in one file: each tensor is still there."""
    tensors = {
        name: numbers(4)
        for name in (
            'blocks.0.norm1.weight', 'layers.0.norm1.weight', 'layers.0.ln1.weight', 'bn1.weight',
            'stem.7.weight', 'conv1.0.weight', 'patch_embed.proj.bias', 'norm.weight', 'ln1.weight',
            'patch_embed.projection.bias', 'norm3.weight', 'stem.0.weight', 'features.0.0.weight',
            'downsample_layers.0.0.weight', 'encoder.layers.0.norm1.weight', '0.weight',
            'conv1.weight', 'stages.0.downsample.0.bias', 'downsample_layers.0.0.bias',
            'embeddings.patch_embeddings.x', 'block1.0.attn.q.weight', 'layers.0.1.0.x',
            'stem.conv1.weight', 'res2.0.conv1.weight', 'layer1.0.conv1.weight',
        )
    }  # fmt: skip
    named = RENAME[title](tensors, targets(norm3__weight=4, stages__3__x=4))
    assert {id(t) for t in named.values()} == {id(t) for t in tensors.values()}


def test_merged_patches():
    """SwinV2's norm stands behind the reduction, other layers in the module see no patches."""
    norm_1, norm_2 = numbers(8), numbers(4)
    reduction = numbers(4, 8)
    order = [0, 4, 2, 6, 1, 5, 3, 7]  # neighbours (0,0) (0,1) (1,0) (1,1) of each of two channels
    place, to = 'layers.0.downsample', 'stages.0.downsample'
    for norm, changed in ((norm_1, norm_1[order]), (norm_2, norm_2)):
        tensors = {
            f'{place}.reduction.weight': reduction,
            f'{place}.norm.weight': norm,
            f'{place}.norm.bias': norm + 1,
            f'{place}.reduction.bias': numbers(4),
            f'{place}.adapter.weight': numbers(4, 8),
            'downsample.reduction.weight': reduction,
        }
        named = RENAME['official Swin'](tensors, targets(stages__0__downsample__norm__weight=8))
        assert torch.equal(named[f'{to}.reduction.weight'], reduction[:, order])
        assert torch.equal(named[f'{to}.norm.weight'], changed)
        assert torch.equal(named[f'{to}.norm.bias'], changed + 1)
        assert torch.equal(named[f'{to}.reduction.bias'], numbers(4))
        assert torch.equal(named[f'{to}.adapter.weight'], numbers(4, 8))
        assert torch.equal(named['downsample.reduction.weight'], reduction)


def test_sparse_kernels():
    """A kernel of 1 x 1 is a matrix, as is that of a depthwise convolution."""
    tensors = {
        'stages.0.0.dwconv.kernel': numbers(9, 4),
        'stages.0.0.dwconv.bias': numbers(1, 4),
        'downsample_layers.1.1.kernel': numbers(4, 2, 3),
        'downsample_layers.1.0.kernel': numbers(4, 4),
        'stages.0.0.pwconv1.bias': numbers(1, 4),
        'adapter.kernel': numbers(9, 4),
    }
    named = RENAME['sparse ConvNeXt'](tensors, {})
    shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
    assert shapes == {
        'stages.0.0.depthwise_conv.weight': (4, 1, 3, 3),
        'stages.0.0.depthwise_conv.bias': (4,),
        'downsample_layers.1.1.weight': (3, 2, 2, 2),
        'downsample_layers.1.0.weight': (4, 4),
        'stages.0.0.pointwise_conv1.bias': (1, 4),
        'adapter.kernel': (9, 4),
    }


def test_response_normalisation():
    name = 'stages.0.0.grn.gamma'
    wanted = targets(stages__0__0__grn__gamma=4)
    for shape, flat in (((1, 1, 1, 4), (4,)), ((2, 2), (2, 2)), ((4, 1), (4, 1))):
        named = RENAME['official ConvNeXt']({name: numbers(*shape)}, wanted)
        assert tuple(named[name].shape) == flat


def test_only_a_key_may_lack_its_bias():
    """Of Hugging Face's three projections; a query or value that lacks one lost it."""
    place = 'encoder.layer.0.attention.attention'
    parts = ('query', 'key', 'value')
    weights = {f'{place}.{part}.weight': numbers(2, 2) for part in parts}
    weights['embeddings.patch_embeddings.projection.weight'] = numbers(2, 2)
    for lacking in parts:
        biases = {f'{place}.{part}.bias': numbers(2) for part in parts if part != lacking}
        named = RENAME['Hugging Face ViT']({**weights, **biases}, {})
        assert ('layers.0.attn.qkv.bias' in named) is (lacking == 'key')
    assert named['layers.0.attn.qkv.weight'].shape == (6, 2)


def test_beits_biases():
    """A query's and a value's make one; one alone, beside a whole one or elsewhere, stays."""
    base = {'blocks.0.attn.qkv.weight': numbers(6, 2)}
    query, value = 'layers.0.attn.q_bias', 'layers.0.attn.v_bias'

    def named(*names):
        given = {name.replace('layers', 'blocks'): numbers(2) for name in names}
        return RENAME['timm ViT']({**base, **given}, targets(layers__0__attn__qkv__weight=(6, 2)))

    whole = named(query, value)['layers.0.attn.qkv.bias']
    assert whole.tolist() == [0, 1, 0, 0, 0, 1]
    assert query in named(query) and 'layers.0.attn.qkv.bias' not in named(query)
    assert {query, value} <= named(query, value, 'layers.0.attn.qkv.bias').keys()
    assert 'pool.attn.q_bias' in named('pool.attn.q_bias', 'pool.attn.v_bias')


def test_a_bias_is_split_for_a_backbone_that_has_its_parts():
    bias = {'layers.0.attn.qkv.weight': numbers(6, 2), 'layers.0.attn.qkv.bias': numbers(6)}
    parts = targets(layers__0__attn__q_bias=2, layers__0__attn__v_bias=2)
    rename = RENAME['mmpretrain ViT']
    named = rename(bias, parts)
    assert named['layers.0.attn.q_bias'].tolist() == [0, 1]
    assert named['layers.0.attn.v_bias'].tolist() == [4, 5]
    query = {'layers.0.attn.q_bias': parts['layers.0.attn.q_bias']}
    assert 'layers.0.attn.qkv.bias' in rename(bias, query)


def test_a_patch_bias_is_no_position_where_a_norm_follows():
    tensors = {
        'blocks.0.attn.qkv.weight': numbers(6, 2),
        'patch_embed.proj.bias': numbers(2) + 1,
        'pos_embed': torch.zeros(1, 5, 2),
        'cls_token': torch.zeros(1, 1, 2),
    }
    wanted = targets(pos_embed=(1, 5, 2))
    named = RENAME['timm ViT'](tensors, wanted)
    assert named['pos_embed'][0, 1].tolist() == [1, 2] and not named['pos_embed'][0, 0].any()
    named = RENAME['timm ViT']({**tensors, 'patch_embed.norm.weight': numbers(2)}, wanted)
    assert not named['pos_embed'].any() and 'patch_embed.projection.bias' in named


def test_numbered_layers_of_vgg():
    """The layer behind a convolution is its norm only if it has its channels."""
    tensors = {
        'features.0.weight': numbers(2, 3, 3, 3),
        'features.1.weight': numbers(2),
        'features.3.weight': numbers(4, 2, 3, 3),
        'features.4.weight': numbers(8, 4),
    }
    wanted = targets(features__0__conv__weight=(2, 3, 3, 3), features__5__conv__weight=(4, 2, 3, 3))
    named = RENAME['torchvision VGG'](tensors, wanted)
    assert list(named) == [
        'features.0.conv.weight', 'features.0.bn.weight', 'features.5.conv.weight',
        'features.4.weight',
    ]  # fmt: skip


def test_inner_products_of_caffe():
    """A matrix is a kernel over the whole map: with the same outputs, and as many inputs."""
    rename, wanted = RENAME['Caffe'], targets(fc6__weight=(4, 2, 3, 3), fc6__bias=(4, 1))
    shapes = (
        ((4, 18), True),
        ((18, 4), False),
        ((8, 9), False),
        ((72,), False),
        ((4, 2, 9), False),
    )
    for shape, taken in shapes:
        found = rename({'fc6.weight': numbers(*shape)}, wanted)['fc6.weight']
        assert (found.shape == (4, 2, 3, 3)) is taken
    assert rename({'fc6.bias': numbers(4)}, wanted)['fc6.bias'].shape == (4,)


def test_packed_parts_take_no_ones_place():
    """Query, key and value of MiT beside a matrix that is packed already."""
    place = 'block1.0.attn'
    parts = {f'{place}.q.weight': numbers(2, 2), f'{place}.kv.weight': numbers(4, 2)}
    named = RENAME['official MiT'](parts, {})
    assert named['layers.0.1.0.attn.attn.in_proj_weight'].shape == (6, 2)
    whole = {f'{place}.attn.in_proj_weight': numbers(6, 2)}
    named = RENAME['official MiT']({**parts, **whole}, {})
    assert len(named) == 3


def test_matrices_are_kernels_of_one_pixel_only():
    name = 'block1.0.mlp.fc1.weight'
    for shape, wanted in (((4, 2, 1, 1), (4, 2, 1, 1)), ((4, 2, 3, 3), (4, 2))):
        found = RENAME['official MiT'](
            {name: numbers(4, 2)}, targets(layers__0__1__0__ffn__layers__0__weight=shape)
        )
        assert tuple(found['layers.0.1.0.ffn.layers.0.weight'].shape) == wanted
