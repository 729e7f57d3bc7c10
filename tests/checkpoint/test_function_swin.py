"""Swin files of three projects: mmseg's SwinTransformer computes what the source computes."""

import math

import pytest
import torch
import torch.nn.functional as F
from mistakes import mistake
from mmseg.models.backbones import SwinTransformer
from reference_hugging_face import (
    check_levels,
    loaded,
    outputs_of,
    published,
    renamed,
    to_grid,
    trained,
)
from transformers import SwinConfig, SwinModel

DEPTHS, HEADS = (2, 2, 2, 1), (1, 2, 2, 4)
LEARNT = ('weight', 'bias')


def backbone(**options):
    options = {
        'pretrain_img_size': 64,
        'embed_dims': 8,
        'depths': DEPTHS,
        'num_heads': HEADS,
        'window_size': 2,
        **options,
    }
    return SwinTransformer(**options)


@pytest.fixture(scope='module')
def source():
    """Its last stage has one block: with a map as small as the window the original never shifts."""
    config = SwinConfig(
        image_size=64, embed_dim=8, depths=list(DEPTHS), num_heads=list(HEADS), window_size=2
    )
    return trained(SwinModel(config, add_pooling_layer=False))


def levels(source):
    """Levels before each merging, the backbone's new norms neutral, the last norm the file's."""

    def run(images):
        blocks = [layer.blocks[-1] for layer in source.encoder.layers]
        tokens = outputs_of(blocks, lambda: source(images))
        outs = []
        for index, x in enumerate(tokens):
            height, width = (math.ceil(side / 4 / 2**index) for side in images.shape[-2:])
            last = index == len(tokens) - 1
            x = source.layernorm(x) if last else F.layer_norm(x, x.shape[-1:])
            outs.append(to_grid(x.detach(), height, width))
        return outs

    return run


def official(weights):
    """The hub's names in those of the original project, whose qkv is one matrix."""
    named = {}
    for name, value in weights.items():
        if '.query.' in name:
            rest = [weights[name.replace('.query.', f'.{part}.')] for part in ('key', 'value')]
            named[name.replace('attention.self.query', 'attn.qkv')] = torch.cat((value, *rest))
        elif '.key.' not in name and '.value.' not in name:
            named[name] = value
    rules = (
        ('embeddings.patch_embeddings.projection', 'patch_embed.proj'),
        ('embeddings.norm', 'patch_embed.norm'),
        ('encoder.', ''),
        ('attention.self.', 'attn.'),
        ('attention.output.dense', 'attn.proj'),
        ('intermediate.dense', 'mlp.fc1'),
        ('output.dense', 'mlp.fc2'),
        ('layernorm_before', 'norm1'),
        ('layernorm_after', 'norm2'),
        ('layernorm', 'norm'),
    )
    return {**renamed(named, rules), 'head.weight': torch.ones(3, 64)}


def timm(weights):
    """Since 0.9: the merging stands at the start of the next stage; the head is `head.fc`."""
    named = {}
    for name, value in official(weights).items():
        parts = name.split('.')
        if 'downsample' in parts:
            parts[1] = str(int(parts[1]) + 1)
        named['.'.join(parts).replace('head.', 'head.fc.')] = value
    return named


def simmim(weights):
    """Under 'model', the encoder beside its decoder, with a mask token and index tables."""
    named = {f'encoder.{name}': value for name, value in official(weights).items()}
    tables = {
        name.replace('bias_table', 'index'): torch.zeros(4, 4, dtype=torch.long)
        for name in named
        if name.endswith('bias_table')
    }
    extra = {'encoder.mask_token': torch.ones(1, 1, 8), 'decoder.0.weight': torch.ones(4, 64, 1, 1)}
    return {'model': {**named, **tables, **extra}}


LAYOUTS = {
    'official': (official, 'official Swin'),
    'timm': (timm, 'timm Swin'),
    'SimMIM': (simmim, 'official Swin'),
    'hub': (dict, 'Hugging Face Swin'),
    'hub, classifier': (
        lambda w: {
            **{f'swin.{k}': v for k, v in w.items()},
            'classifier.weight': torch.ones(3, 64),
        },
        'Hugging Face Swin',
    ),
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_the_function_arrives(layout, source, tmp_path):
    write, title = LAYOUTS[layout]
    network = backbone()
    report = loaded(network, write(published(source, tmp_path)), tmp_path)
    assert report.layout.renaming == title
    assert report.notes == () and report.share == 1
    assert all(name.endswith('_index') for name in report.missing)  # computed by the backbone
    assert report.unexpected == ()
    assert sorted(report.filled) == sorted(f'norm{i}.{k}' for i in range(3) for k in LEARNT)
    check_levels(network, levels(source))


def test_names_of_transformers_5(source, tmp_path):
    """The state dict as it is in memory; in transformers 4 it has the hub's names."""
    network = backbone()
    report = loaded(network, source.state_dict(), tmp_path)
    assert report.layout.renaming == 'Hugging Face Swin'
    assert report.unexpected == () and report.share == 1
    check_levels(network, levels(source))


@pytest.mark.parametrize('write', [official, timm, dict])
def test_another_window_resizes_the_tables(write, source, tmp_path):
    """Bicubically on the square of offsets, in every block; all else as it was."""
    weights = published(source, tmp_path)
    network = backbone(window_size=4)
    report = loaded(network, write(weights), tmp_path)
    assert len(report.resized) == sum(DEPTHS)
    assert set(report.resized.values()) == {f'(9, {h}) -> (49, {h})' for h in (1, 2, 4)}
    old = weights['encoder.layers.1.blocks.1.attention.self.relative_position_bias_table']
    expected = F.interpolate(old.T.reshape(1, 2, 3, 3), size=(7, 7), mode='bicubic')
    found = network.stages[1].blocks[1].attn.w_msa.relative_position_bias_table
    torch.testing.assert_close(found.detach(), expected.reshape(2, 49).T)


def test_fewer_outputs_leave_the_last_norm_aside(source, tmp_path):
    """The file's norm is the fourth level's; a backbone without this level has no place for it."""
    network = backbone(out_indices=(0, 1))
    report = loaded(network, official(published(source, tmp_path)), tmp_path)
    assert 'norm.weight' in report.dropped
    check_levels(network, lambda images: levels(source)(images)[:2])


@pytest.mark.parametrize('write', [official, timm, dict])
@pytest.mark.parametrize(
    'options', [{'embed_dims': 16}, {'depths': (2, 2, 2, 2)}, {'depths': (2, 2, 1, 1)}]
)
def test_another_network_is_refused(write, options, source, tmp_path):
    with mistake(str(tmp_path / 'a.pth'), 'SwinTransformer'):
        loaded(backbone(**options), write(published(source, tmp_path)), tmp_path)
