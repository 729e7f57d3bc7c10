"""ConvNeXt files of all layouts, V1 and V2: mmpretrain's ConvNeXt computes what the source does."""

import re

import pytest
import torch
import torch.nn.functional as F
from mistakes import mistake
from reference_convnext import ConvNeXt
from reference_hugging_face import (
    channels_first_norm,
    check_levels,
    loaded,
    outputs_of,
    published,
    renamed,
    trained,
)
from transformers import ConvNextConfig, ConvNextModel, ConvNextV2Config, ConvNextV2Model

SHAPE = {'hidden_sizes': [8, 16, 24, 32], 'depths': [1, 2, 1, 2]}
V1 = {'scaled': True, 'grn': False}
V2 = {'scaled': False, 'grn': True}


@pytest.fixture(scope='module')
def first():
    return trained(ConvNextModel(ConvNextConfig(**SHAPE)))


@pytest.fixture(scope='module')
def second():
    return trained(ConvNextV2Model(ConvNextV2Config(**SHAPE)))


@pytest.fixture(params=['first', 'second'])
def source(request):
    """V1 and V2 in turn, with the options of the backbone that is meant for them."""
    model = request.getfixturevalue(request.param)
    return model, V1 if request.param == 'first' else V2


def levels(model, last=True):
    """New norms neutral on every output; on the last one the file's, if it has one."""

    def run(images):
        outs = outputs_of(model.encoder.stages, lambda: model(images))
        normed = [
            F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], eps=1e-6).permute(0, 3, 1, 2)
            for x in outs
        ]
        if last:
            normed[3] = channels_first_norm(model.layernorm, outs[3]).detach()
        return normed

    return run


def official(weights):
    """The hub's names in those of facebookresearch/ConvNeXt and ConvNeXt-V2."""
    rules = (
        ('embeddings.patch_embeddings.', 'downsample_layers.0.0.'),
        ('embeddings.layernorm.', 'downsample_layers.0.1.'),
        *(
            (f'encoder.stages.{i}.downsampling_layer.', f'downsample_layers.{i}.')
            for i in (1, 2, 3)
        ),
        ('encoder.', ''),
        ('.layers.', '.'),
        ('layernorm.', 'norm.'),
        ('layer_scale_parameter', 'gamma'),
        ('grn.weight', 'grn.gamma'),
        ('grn.bias', 'grn.beta'),
    )
    return {**renamed(weights, rules), 'head.weight': torch.ones(3, 32)}


def timm(weights):
    named = {}
    for name, value in official(weights).items():
        parts = name.split('.')
        if parts[0] == 'downsample_layers':
            level = 'stem' if parts[1] == '0' else f'stages.{parts[1]}.downsample'
            name = '.'.join([level, *parts[2:]])
        elif parts[0] == 'stages':
            name = '.'.join([*parts[:2], 'blocks', *parts[2:]])
        if '.grn.' in name:
            value = value.flatten()
        named[name] = value
    rules = (
        ('.dwconv.', '.conv_dw.'),
        ('.pwconv', '.mlp.fc'),
        ('.grn.gamma', '.mlp.grn.weight'),
        ('.grn.beta', '.mlp.grn.bias'),
        ('head.', 'head.fc.'),
    )
    named = renamed(named, rules)
    return {
        k.replace('norm.', 'head.norm.') if k.startswith('norm.') else k: v
        for k, v in named.items()
    }


def openmmlab(weights):
    named = renamed(
        official(weights),
        (('dwconv', 'depthwise_conv'), ('pwconv', 'pointwise_conv')),
    )
    named = {
        k.replace('norm.', 'norm3.') if k.startswith('norm.') else k: v for k, v in named.items()
    }
    return {
        'state_dict': {f'backbone.{k}': v.flatten() if 'grn' in k else v for k, v in named.items()}
    }


def spark(weights):
    """The official names of the encoder alone, which pre-training has no head for."""
    named = {k: v for k, v in official(weights).items() if not k.startswith(('head.', 'norm.'))}
    return {'module': named}


LAYOUTS = {
    'official': (lambda w: {'model': official(w)}, 'official ConvNeXt'),
    'timm': (timm, 'timm ConvNeXt'),
    'hub': (dict, 'Hugging Face ConvNeXt'),
    'hub, classifier': (
        lambda w: {**{f'convnext.{k}': v for k, v in w.items()}, 'classifier.bias': torch.ones(3)},
        'Hugging Face ConvNeXt',
    ),
}


@pytest.mark.parametrize('linear', [True, False])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_the_function_arrives(layout, linear, source, tmp_path):
    model, options = source
    write, title = LAYOUTS[layout]
    network = ConvNeXt(linear=linear, **options)
    report = loaded(network, write(published(model, tmp_path)), tmp_path)
    assert report.layout.renaming == title
    assert report.missing == () and report.unexpected == () and report.notes == ()
    assert report.share == 1 and len(report.filled) == 6  # norm0, norm1, norm2
    stages = [f'{part}.{i}' for part in ('downsample_layers', 'stages') for i in range(4)]
    assert list(report.stages) == stages + [f'norm{i}' for i in range(4)]
    check_levels(network, levels(model), sizes=((64, 64), (96, 160)))


def test_names_in_memory(source, tmp_path):
    """The hub's names are those of the module in transformers 4 and 5 alike."""
    model, _ = source
    assert model.state_dict().keys() == published(model, tmp_path).keys()


def test_openmmlab_file(source, tmp_path):
    """1x1 convolutions where the file has linear layers, under the backbone's own names."""
    model, options = source
    for linear in (True, False):
        network = ConvNeXt(linear=linear, **options)
        report = loaded(network, openmmlab(published(model, tmp_path)), tmp_path)
        assert report.missing == () and report.unexpected == ()
        check_levels(network, levels(model))


def test_spark_file(first, tmp_path):
    """No norm behind the last stage: all four of the backbone's are neutral."""
    network = ConvNeXt()
    report = loaded(network, spark(published(first, tmp_path)), tmp_path)
    assert len(report.filled) == 8 and report.layout.container == 'module'
    check_levels(network, levels(first, last=False))


@pytest.mark.parametrize('linear', [True, False])
def test_layer_scale_is_folded_where_the_backbone_has_none(linear, first, tmp_path):
    network = ConvNeXt(linear=linear, scaled=False)
    report = loaded(network, official(published(first, tmp_path)), tmp_path)
    assert report.unexpected == () and report.share == 1
    check_levels(network, levels(first))


def test_layer_scale_is_one_where_the_file_has_none(second, tmp_path):
    """Not the 1e-6 that a new backbone starts with, which would switch all blocks off."""
    network = ConvNeXt(scaled=True, grn=True)
    report = loaded(network, official(published(second, tmp_path)), tmp_path)
    assert len([name for name in report.filled if name.endswith('gamma')]) == 6
    check_levels(network, levels(second))


def test_grn_is_the_identity_where_the_file_has_none(first, tmp_path):
    network = ConvNeXt(scaled=True, grn=True)
    report = loaded(network, official(published(first, tmp_path)), tmp_path)
    assert len([name for name in report.filled if '.grn.' in name]) == 12
    check_levels(network, levels(first))


@pytest.mark.parametrize('write', [official, timm, dict, openmmlab])
def test_grn_is_never_dropped(write, second, tmp_path):
    """It is a hundredth of the parameters, and the function is another without it."""
    with mistake(str(tmp_path / 'a.pth'), re.compile(r"ConvNeXt.*\.grn\.\w+'")):
        loaded(ConvNeXt(**V1), write(published(second, tmp_path)), tmp_path)


def sparse(weights):
    """Pre-training of V2: kernels (k*k, C[, D]), columns first; wrapped norms; leading ones."""
    named = {}
    for name, value in official(weights).items():
        module, _, kind = name.rpartition('.')
        dense = module.startswith('downsample_layers.0')
        if not dense and kind == 'weight' and value.ndim == 4:
            value = value.permute(3, 2, 1, 0).flatten(0, 1)  # (k*k, C or 1, D)
            value = value[:, 0] if module.endswith('dwconv') else value
            name = f'{module}.kernel'
        elif not dense and kind == 'bias' and (module.endswith('dwconv') or value.ndim == 4):
            value = value[None]
        elif '.pwconv' in name:
            name = f'{module}.linear.{kind}'
        elif not dense and module.endswith(('.norm', '.0')) and '.grn' not in module:
            name = f'{module}.ln.{kind}'
        named[f'encoder.{name}'] = value.flatten(0, 2) if '.grn.' in name else value
    return {k: v for k, v in named.items() if not k.startswith(('encoder.head', 'encoder.norm'))}


def test_sparse_pretraining_of_v2(second, tmp_path):
    """FCMAE's own files, with its decoder beside the encoder."""
    network = ConvNeXt(**V2)
    extra = {
        'mask_token': torch.ones(1, 8, 1, 1),
        'decoder.0.dwconv.weight': torch.ones(8, 1, 7, 7),
    }
    file = {'model': {**sparse(published(second, tmp_path)), **extra}}
    assert 'encoder.stages.0.0.norm.ln.weight' in file['model']
    report = loaded(network, file, tmp_path)
    assert report.layout.renaming == 'sparse ConvNeXt' and report.layout.prefix == 'encoder.'
    assert report.unexpected == () and len(report.filled) == 8
    check_levels(network, levels(second, last=False))


@pytest.mark.parametrize('write', [official, timm, dict])
@pytest.mark.parametrize('depths', [(1, 1, 1, 2), (1, 2, 2, 2)])
def test_another_depth_is_refused(write, depths, first, tmp_path):
    with mistake(str(tmp_path / 'a.pth'), 'ConvNeXt'):
        loaded(ConvNeXt(depths=depths), write(published(first, tmp_path)), tmp_path)
