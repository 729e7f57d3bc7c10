"""Hugging Face's plain vision transformers: the function that arrives in mmseg's.

Each network is written in both generations of names: those that ``save_pretrained`` writes, which
are those of the files on the hub, and those of ``state_dict()`` in transformers 5.
"""

import pytest
import torch
import transformers
from mistakes import mistake
from reference_vits import (
    DEPTH,
    DIM,
    HEADS,
    PATCH,
    check_function,
    mmseg_backbone,
    resized_table,
    trained,
)

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint

OPTIONS = {
    'hidden_size': DIM,
    'num_hidden_layers': DEPTH,
    'num_attention_heads': HEADS,
    'intermediate_size': 4 * DIM,
    'image_size': 32,
    'patch_size': PATCH,
}
GENERATIONS = ['file', 'state_dict']


def hugging_face(kind, suffix='Model', **options):
    """A small network of transformers, e.g. ``ViTForImageClassification``, trained-looking."""
    config = getattr(transformers, f'{kind}Config')(**{**OPTIONS, **options})
    return trained(getattr(transformers, f'{kind}{suffix}')(config))


def written(model, generation, folder):
    """The path of a file of the model's weights in one of the two generations of names."""
    if generation == 'file':
        model.save_pretrained(folder)
        return folder / 'model.safetensors'
    torch.save(model.state_dict(), folder / 'pytorch_model.bin')
    return folder / 'pytorch_model.bin'


def load(backbone, model, tmp_path, generation='file'):
    report = load_backbone_checkpoint(backbone, written(model, generation, tmp_path))
    backbone.eval()
    lacking = [name for name in report.missing if not name.endswith('position_index')]
    assert lacking == []
    return report


def features(model, extra=1, **options):
    """images -> (B, D, h, w): the last hidden state without the `extra` tokens in front."""

    def run(images):
        state = model(images, **options).last_hidden_state[:, extra:]
        grid = (images.shape[-2] // PATCH, images.shape[-1] // PATCH)
        return state.transpose(1, 2).unflatten(2, grid)

    return run


def mae_features(model):
    """Nothing masked, nothing shuffled."""

    def run(images):
        count = images.shape[-2] * images.shape[-1] // PATCH**2
        noise = torch.arange(count).repeat(len(images), 1)
        return features(model, noise=noise, interpolate_pos_encoding=True)(images)

    return run


def backbone_like(kind, eps, size=32, **options):
    return mmseg_backbone(kind, size, norm_cfg={'type': 'LN', 'eps': eps}, **options)


@pytest.mark.parametrize('size', [32, (48, 40), 16])
@pytest.mark.parametrize('generation', GENERATIONS)
@pytest.mark.parametrize('kind', ['VisionTransformer', 'MAE'])
@pytest.mark.parametrize(
    ('source', 'suffix', 'title'),
    [
        ('ViT', 'Model', 'Hugging Face ViT'),
        ('ViT', 'ForImageClassification', 'Hugging Face ViT'),
        ('ViTMSN', 'Model', 'Hugging Face ViT'),
        ('Dinov2', 'Model', 'Hugging Face DINOv2'),
        ('Dinov2', 'ForImageClassification', 'Hugging Face DINOv2'),
    ],
)
def test_vit_and_dinov2(source, suffix, title, kind, generation, size, tmp_path):
    """At another size the reference interpolates itself (interpolate_pos_encoding=True)."""
    model = hugging_face(source, suffix)
    network = getattr(model, model.base_model_prefix, model)
    options = {} if source == 'Dinov2' else {'interpolate_pos_encoding': True}
    backbone = backbone_like(kind, network.config.layer_norm_eps, size)
    report = load(backbone, model, tmp_path, generation)
    assert report.layout.renaming == title
    assert len(report.notes) == (source == 'ViTMSN')  # its names are ViT's, its epsilon is not
    assert report.layout.prefix == ('' if suffix == 'Model' else f'{model.base_model_prefix}.')
    check_function(backbone, features(network, **options), size)


@pytest.mark.parametrize('size', [32, 48])
@pytest.mark.parametrize('generation', GENERATIONS)
@pytest.mark.parametrize('suffix', ['Model', 'ForPreTraining'])
@pytest.mark.parametrize('kind', ['VisionTransformer', 'MAE'])
def test_mae(kind, suffix, generation, size, tmp_path):
    """The decoder, a transformer too, is dropped."""
    decoder = {'decoder_hidden_size': DIM, 'decoder_num_hidden_layers': DEPTH}
    options = {'decoder_num_attention_heads': HEADS, 'decoder_intermediate_size': 4 * DIM}
    model = hugging_face('ViTMAE', suffix, mask_ratio=0.0, **decoder, **options)
    network = model.vit if suffix == 'ForPreTraining' else model
    backbone = backbone_like(kind, 1e-12, size)
    report = load(backbone, model, tmp_path, generation)
    assert report.layout.prefix == ('vit.' if suffix == 'ForPreTraining' else '')
    assert report.notes == report.unexpected == ()
    check_function(backbone, mae_features(network), size)


@pytest.mark.parametrize('generation', GENERATIONS)
def test_ijepa(generation, tmp_path):
    model = hugging_face('IJepa')
    backbone = backbone_like('VisionTransformer', 1e-12, 48, with_cls_token=False)
    path = written(model, generation, tmp_path)
    report = load_backbone_checkpoint(backbone, path)
    backbone.eval()
    assert report.missing == ('cls_token',)
    check_function(backbone, features(model, 0, interpolate_pos_encoding=True), 48)


BEITS = {
    'per block': {'use_relative_position_bias': True},
    'shared': {'use_shared_relative_position_bias': True},
    'absolute': {'use_absolute_position_embeddings': True},
    'none': {},
}


@pytest.mark.parametrize('generation', GENERATIONS)
@pytest.mark.parametrize('positions', ['per block', 'shared'])
@pytest.mark.parametrize('source', ['Beit', 'Data2VecVision'])
@pytest.mark.parametrize('kind', ['BEiT', 'MAE'])
def test_beit(kind, source, positions, generation, tmp_path):
    """Query, key without a bias and value are merged; LayerScale is lambda_1 and lambda_2."""
    model = hugging_face(source, **BEITS[positions])
    backbone = trained(backbone_like(kind, 1e-12, final_norm=False), 1)
    report = load(backbone, model, tmp_path, generation)
    assert report.notes == ()
    check_function(backbone, features(model))


@pytest.mark.parametrize('suffix', ['ForMaskedImageModeling', 'ForImageClassification'])
def test_beit_with_heads(suffix, tmp_path):
    model = hugging_face('Beit', suffix, **BEITS['shared'])
    backbone = backbone_like('BEiT', 1e-12, final_norm=False)
    assert load(backbone, model, tmp_path).layout.prefix == 'beit.'
    check_function(backbone, features(model.beit))


@pytest.mark.parametrize('generation', GENERATIONS)
@pytest.mark.parametrize('kind', ['VisionTransformer', 'MAE'])
def test_beit_with_absolute_positions_only(kind, generation, tmp_path):
    model = hugging_face('Beit', **BEITS['absolute'], use_mean_pooling=False)
    backbone = backbone_like(kind, 1e-12)
    load(backbone, model, tmp_path, generation)
    check_function(backbone, features(model))
    name = 'attn.qkv.bias' if kind == 'MAE' else 'attn.attn.in_proj_bias'
    assert not backbone.state_dict()[f'layers.1.{name}'].chunk(3)[1].any()


@pytest.mark.parametrize('positions', ['per block', 'shared'])
def test_beit_at_another_size(positions, tmp_path):
    """transformers interpolates the tables bilinearly, this package bicubically (as Swin, timm).

    So the reference is the same network with its tables interpolated bicubically; on smooth tables,
    which training leaves, transformers' own features are near.
    """
    model = hugging_face('Beit', **BEITS[positions])
    line = torch.linspace(-1, 1, 7)
    smooth = torch.stack((line[:, None] * line, torch.cos(2 * line)[:, None] + line), dim=-1)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith('bias_table'):
                value[:-3] = smooth.reshape(49, HEADS)
    backbone = backbone_like('BEiT', 1e-12, 48, final_norm=False)
    load(backbone, model, tmp_path)
    larger = hugging_face('Beit', **BEITS[positions], image_size=48)
    larger.load_state_dict(
        {
            name: resized_table(value, (6, 6)) if name.endswith('bias_table') else value
            for name, value in model.state_dict().items()
        }
    )
    check_function(backbone, features(larger), 48)
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        found, own = backbone(images)[-1], features(model, interpolate_pos_encoding=True)(images)
    assert 1e-4 < (found - own).abs().max() < 0.05


@pytest.mark.parametrize('generation', GENERATIONS)
def test_deit(generation, tmp_path):
    """Without the distillation token, which is noted: as ViT with DeiT's other weights."""
    model = hugging_face('DeiT')
    backbone = backbone_like('VisionTransformer', 1e-12, 48)
    report = load(backbone, model, tmp_path, generation)
    assert len(report.notes) == 1 and 'distillation token' in report.notes[0]
    weights = {k: v for k, v in model.state_dict().items() if 'distillation' not in k}
    old = weights['embeddings.position_embeddings']
    weights['embeddings.position_embeddings'] = torch.cat((old[:, :1], old[:, 2:]), dim=1)
    plain = hugging_face('ViT')
    plain.load_state_dict(weights)
    check_function(backbone, features(plain, interpolate_pos_encoding=True), 48)


@pytest.mark.parametrize(
    ('source', 'eps'),
    [('ViT', 1e-12), ('ViTMAE', 1e-12), ('Beit', 1e-12), ('Dinov2', 1e-6)],
)
def test_the_epsilon_that_weights_cannot_carry_is_noted(source, eps, tmp_path):
    options = BEITS['per block'] if source == 'Beit' else {}
    kind = 'BEiT' if source == 'Beit' else 'VisionTransformer'
    backbone = backbone_like(kind, 1e-5, final_norm=False)
    report = load(backbone, hugging_face(source, **options), tmp_path)
    assert any(f'{eps:g}' in note for note in report.notes)


REFUSALS = [
    ('Dinov2WithRegisters', 'VisionTransformer', {}, 'register tokens'),
    ('Dinov2', 'VisionTransformer', {'use_swiglu_ffn': True}, 'SwiGLU'),
    ('Beit', 'VisionTransformer', BEITS['per block'], 'relative positions'),
    ('Beit', 'VisionTransformer', BEITS['shared'], 'relative positions'),
    ('Beit', 'VisionTransformer', BEITS['none'], "'tokens'"),
    ('Beit', 'BEiT', BEITS['absolute'], 'absolute positions'),
    ('ViT', 'BEiT', {}, 'absolute positions'),
    ('IJepa', 'VisionTransformer', {}, 'class token'),
    ('ViT', 'VisionTransformer', {'patch_size': 16}, (' 16', ' 8')),
    ('ViT', 'VisionTransformer', {'hidden_size': 32}, ('32 channels', ' 16')),
    ('ViT', 'VisionTransformer', {'num_hidden_layers': 4}, ('4 layers', ' 3')),
    ('ViT', 'VisionTransformer', {'num_hidden_layers': 2}, ('2 layers', ' 3')),
]


@pytest.mark.parametrize('generation', GENERATIONS)
@pytest.mark.parametrize(('source', 'kind', 'options', 'facts'), REFUSALS)
def test_refusals(source, kind, options, facts, generation, tmp_path):
    path = written(hugging_face(source, **options), generation, tmp_path)
    remedy = 'with_cls_token=False' if source == 'IJepa' else ()
    with mistake(str(path), facts, remedy) as error:
        load_backbone_checkpoint(backbone_like(kind, 1e-12, final_norm=False), path)
    assert kind in error.value.problem


@pytest.mark.parametrize('kind', ['VisionTransformer', 'MAE', 'BEiT'])
@pytest.mark.parametrize('generation', GENERATIONS)
def test_language_model(generation, kind, tmp_path):
    """Its blocks are of the same width and number, and named much alike."""
    model = hugging_face('Bert', image_size=None, patch_size=None, vocab_size=17)
    path = written(model, generation, tmp_path)
    with mistake(str(path), ('language model', 'ViT')):
        load_backbone_checkpoint(mmseg_backbone(kind), path)
