"""Names of modules that only wrap another one mean nothing, wherever they stand in a name."""

import pytest
import torch
from loading import refuse
from mmseg.models.backbones import ResNet
from reference_vits import check_function, loaded, mmseg_backbone

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint, read_tensors
from mm_tuning_plugin.checkpoint.match.wrappers import WRAPPERS, plain_names


@pytest.mark.parametrize(
    ('name', 'plain'),
    [
        ('blocks.0._fsdp_wrapped_module.attn.qkv.weight', 'blocks.0.attn.qkv.weight'),
        ('_orig_mod.blocks.0._checkpoint_wrapped_module.norm.bias', 'blocks.0.norm.bias'),
        ('blocks.0.attn.qkv.base_layer.weight', 'blocks.0.attn.qkv.weight'),
        ('layers.0.ffn.original_layer.bias', 'layers.0.ffn.bias'),
        ('_fsdp_wrapped_module._fpw_module.a.weight', 'a.weight'),
        ('blocks.0.module.attn.weight', 'blocks.0.attn.weight'),
        # a prefix, which the search finds; a network's own name; not a whole component
        ('state_dict.module.encoder_q.conv1.weight', 'state_dict.module.encoder_q.conv1.weight'),
        ('neck.module.weight', 'neck.module.weight'),
        ('my_base_layer.weight', 'my_base_layer.weight'),
        ('a._orig_mod', 'a._orig_mod'),
    ],
)
def test_plain_names(name, plain):
    assert plain_names([name, 'other']) == {name: plain, 'other': 'other'}


@pytest.mark.parametrize(
    'names',
    [
        ('a.weight', 'a.base_layer.weight'),
        ('a._orig_mod.weight', 'a.base_layer.weight'),
        ('blocks.0.module.weight', 'blocks.0.weight'),
    ],
)
def test_names_that_would_become_one_stay(names):
    assert plain_names(names) == {name: name for name in names}


def test_no_name_is_lost():
    """Of any names: as many plain ones, and none is another's."""
    parts = ('a', '0', 'module', *sorted(WRAPPERS))
    generator = torch.Generator().manual_seed(0)
    names = {
        '.'.join(parts[i] for i in torch.randint(len(parts), (4,), generator=generator)) + '.weight'
        for _ in range(2000)
    }
    plain = plain_names(names)
    assert plain.keys() == names and len(set(plain.values())) == len(names)


def wrapped(weights, wrapper, part=''):
    """Every block, or a part of every block, in a wrapper."""

    def renamed(name):
        block, _, rest = name.partition('.attn.qkv.' if part else '.')
        if not name.startswith('blocks.') or not rest:
            return name
        if part:
            return f'{block}.attn.qkv.{wrapper}.{rest}'
        index, _, rest = rest.partition('.')
        return f'blocks.{index}.{wrapper}.{rest}'

    return {renamed(name): value for name, value in weights.items()}


@pytest.mark.parametrize(
    'wrapper', ['_fsdp_wrapped_module', '_checkpoint_wrapped_module', 'module']
)
def test_wrapped_blocks(wrapper, vit_source, tmp_path):
    weights = wrapped(vit_source.state_dict(), wrapper)
    backbone = mmseg_backbone('VisionTransformer')
    report = loaded(backbone, {'model': weights}, tmp_path)
    assert report.layout.container == 'model' and report.layout.renaming == 'timm ViT'
    assert report.unexpected == () and report.missing == ()
    check_function(backbone, vit_source.features)
    assert f'model.blocks.0.{wrapper}.attn.qkv.weight' in read_tensors(tmp_path / 'a.pth')


@pytest.mark.parametrize('wrapper', ['base_layer', 'original_layer'])
def test_layers_with_adapters(wrapper, vit_source, tmp_path):
    """The layer beneath is found; adapters of the file are no part that may be left out."""
    weights = wrapped(vit_source.state_dict(), wrapper, part='qkv')
    backbone = mmseg_backbone('VisionTransformer')
    loaded(backbone, weights, tmp_path)
    check_function(backbone, vit_source.features)
    name = 'blocks.0.attn.qkv.lora_A.default.weight'
    weights[name] = torch.ones(2, 16)
    torch.save(weights, tmp_path / 'b.pth')
    refuse(mmseg_backbone('VisionTransformer'), tmp_path / 'b.pth', name, 'VisionTransformer')


def test_a_compiled_network(resnet_source, tmp_path):
    """The report speaks of the names in the file; a prefix may be given in these, too."""
    weights = {f'net._orig_mod.{k}': v for k, v in resnet_source.state_dict().items()}
    torch.save(weights, tmp_path / 'a.pth')
    for prefix in (None, 'net', 'net._orig_mod', 'net._orig_mod.'):
        backbone = ResNet(depth=18)
        report = load_backbone_checkpoint(backbone, tmp_path / 'a.pth', prefix=prefix)
        assert report.layout.prefix == 'net.'
        assert report.dropped == ('net._orig_mod.fc.weight', 'net._orig_mod.fc.bias')
        assert torch.equal(backbone.conv1.weight, resnet_source.conv1.weight)


def test_a_file_that_holds_both(resnet_source, tmp_path):
    """A wrapped layer beside an unwrapped one of its name: neither is loaded over the other."""
    weights = resnet_source.state_dict()
    weights['layer1.0.conv1.base_layer.weight'] = weights['layer1.0.conv1.weight'] + 1
    torch.save(weights, tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', "'layer1'", 'ResNet', remedy='10%')


def test_a_backbone_that_is_wrapped(resnet_source, tmp_path):
    """By activation checkpointing, say: its names mean nothing either."""
    torch.save(resnet_source.state_dict(), tmp_path / 'a.pth')
    backbone = ResNet(depth=18)

    class Wrapped(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self._checkpoint_wrapped_module = inner

    backbone.layer2[0] = Wrapped(backbone.layer2[0])
    report = load_backbone_checkpoint(backbone, tmp_path / 'a.pth')
    assert report.share == 1 and report.missing == () and report.stages['layer2'][0] > 0
    inner = backbone.layer2[0]._checkpoint_wrapped_module
    assert torch.equal(inner.conv1.weight, resnet_source.layer2[0].conv1.weight)
    weights = resnet_source.state_dict()
    del weights['layer2.0.conv1.weight']
    torch.save(weights, tmp_path / 'b.pth')
    report = load_backbone_checkpoint(backbone, tmp_path / 'b.pth', min_matched=0.7)
    assert report.missing == ('layer2.0._checkpoint_wrapped_module.conv1.weight',)
