"""SegFormer's encoder, in two projects' names: mmseg's MixVisionTransformer computes the same."""

import re

import pytest
import torch
from mistakes import mistake
from mmseg.models.backbones import MixVisionTransformer
from reference_hugging_face import check_levels, loaded, outputs_of, published, renamed, trained
from transformers import SegformerConfig, SegformerModel

WIDTHS, HEADS, DEPTHS, RATIOS = [8, 16, 40, 64], [1, 2, 5, 8], [1, 2, 1, 2], [8, 4, 2, 1]


def backbone(**options):
    """With the epsilon of the reference, 1e-5; that of the original is 1e-6 in its blocks."""
    options = {
        'embed_dims': 8,
        'num_layers': DEPTHS,
        'num_heads': HEADS,
        'sr_ratios': RATIOS,
        'norm_cfg': {'type': 'LN', 'eps': 1e-5},
        **options,
    }
    return MixVisionTransformer(**options)


@pytest.fixture(scope='module')
def source():
    config = SegformerConfig(
        depths=DEPTHS,
        hidden_sizes=WIDTHS,
        num_attention_heads=HEADS,
        sr_ratios=RATIOS,
        mlp_ratios=[4] * 4,
    )
    return trained(SegformerModel(config))


@pytest.fixture
def weights(source, tmp_path):
    return published(source, tmp_path)


def levels(source):
    return lambda images: outputs_of(source.stages, lambda: source(images))


def official(weights):
    """The hub's names in those of NVlabs/SegFormer: q beside kv, counted from one."""
    named = {}
    for name, value in weights.items():
        if '.self.key.' in name:
            other = weights[name.replace('.key.', '.value.')]
            named[name.replace('self.key', 'kv')] = torch.cat((value, other))
        elif '.self.value.' not in name:
            named[name] = value
    for index in (3, 2, 1, 0):
        rules = (
            (f'encoder.patch_embeddings.{index}.', f'patch_embed{index + 1}.'),
            (f'encoder.block.{index}.', f'block{index + 1}.'),
            (f'encoder.layer_norm.{index}.', f'norm{index + 1}.'),
        )
        named = renamed(named, rules)
    rules = (
        ('attention.self.query', 'attn.q'),
        ('attention.self.sr', 'attn.sr'),
        ('attention.self.layer_norm', 'attn.norm'),
        ('attention.kv', 'attn.kv'),
        ('attention.output.dense', 'attn.proj'),
        ('mlp.dense', 'mlp.fc'),
        ('layer_norm_', 'norm'),
        ('layer_norm', 'norm'),
    )
    return {**renamed(named, rules), 'head.weight': torch.ones(3, 64)}


def under(prefix, weights):
    return {f'{prefix}{name}': value for name, value in weights.items()}


LAYOUTS = {
    'official': (official, 'official MiT', ''),
    'official, segmentor': (
        lambda w: {'state_dict': under('backbone.', official(w))},
        'official MiT',
        'backbone.',
    ),
    'hub': (dict, 'Hugging Face MiT', ''),
    'hub, classifier': (
        lambda w: {**under('segformer.', w), 'classifier.weight': torch.ones(3, 64)},
        'Hugging Face MiT',
        'segformer.',
    ),
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_the_function_arrives(layout, source, weights, tmp_path):
    write, title, prefix = LAYOUTS[layout]
    network = backbone()
    report = loaded(network, write(weights), tmp_path)
    assert (report.layout.renaming, report.layout.prefix) == (title, prefix)
    assert report.missing == () and report.unexpected == () and report.filled == ()
    assert report.share == 1
    check_levels(network, levels(source), sizes=((64, 64), (96, 128)))


def test_names_of_transformers_5(source, tmp_path):
    """The state dict as it is in memory; in transformers 4 it has the hub's names."""
    network = backbone()
    report = loaded(network, source.state_dict(), tmp_path)
    assert report.layout.renaming == 'Hugging Face MiT'
    assert report.missing == () and report.unexpected == ()
    check_levels(network, levels(source))


def test_stages(weights, tmp_path):
    """Each level's patch embedding, blocks and norm are judged apart."""
    report = loaded(backbone(), official(weights), tmp_path)
    assert list(report.stages) == [f'layers.{i}.{part}' for i in range(4) for part in range(3)]


@pytest.mark.parametrize('lost', ['patch_embed2.', 'norm3.', 'block1.'])
def test_a_lost_part_is_refused(lost, weights, tmp_path):
    kept = {name: value for name, value in official(weights).items() if not name.startswith(lost)}
    with mistake(str(tmp_path / 'a.pth'), re.compile(r"'layers\.\d\.\d'.* 0 of "), '90%'):
        loaded(backbone(), kept, tmp_path)


def test_a_grey_stem(source, weights, tmp_path):
    """Repeated over the channels: the function of the mean of the three."""
    key = 'patch_embed1.proj.weight'
    file = official(weights)
    file[key] = file[key][:, :1]
    network = backbone()
    report = loaded(network, file, tmp_path)
    assert report.resized == {'layers.0.0.projection.weight': '(8, 1, 7, 7) -> (8, 3, 7, 7)'}
    expected = file[key].repeat(1, 3, 1, 1) / 3
    assert torch.equal(network.layers[0][0].projection.weight.detach(), expected)


@pytest.mark.parametrize('write', [official, dict])
@pytest.mark.parametrize(
    'options', [{'embed_dims': 16}, {'num_layers': [2, 2, 1, 2]}, {'num_layers': [1, 1, 1, 2]}]
)
def test_another_network_is_refused(write, options, weights, tmp_path):
    with mistake(str(tmp_path / 'a.pth'), 'MixVisionTransformer'):
        loaded(backbone(**options), write(weights), tmp_path)
