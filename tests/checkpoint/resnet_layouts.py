"""How self-supervised projects write their ResNets to disk: one function a project.

Each takes a state dict in torchvision's names, without the classifier, and returns what the project
gives to ``torch.save``: the containers, prefixes, heads and further networks that lie beside it.
"""

import argparse
import collections
from typing import Callable, NamedTuple

import torch
from loading import shifted, under

SAME = 'same names'


class Layout(NamedTuple):
    """A project's file: what is written, and where the loader must find the network."""

    write: Callable
    container: str = ''
    prefix: str = ''
    naming: str = SAME


def linear(name, out=4, inner=8):
    return {f'{name}.weight': torch.randn(out, inner), f'{name}.bias': torch.randn(out)}


def sgd(**more):
    state = {0: {'momentum_buffer': torch.randn(3)}}
    return {'optimizer': {'state': state, 'param_groups': [{'lr': 0.03}]}, 'epoch': 200, **more}


def moco_v1(w):
    q, k = {**w, **linear('fc')}, {**shifted(w), **linear('fc')}
    queue = {'module.queue': torch.randn(8, 32), 'module.queue_ptr': torch.zeros(1).long()}
    weights = {**under('module.encoder_q.', q), **under('module.encoder_k.', k), **queue}
    return sgd(arch='resnet50', state_dict=weights)


def moco_v2(w):
    content = moco_v1(w)
    weights = content['state_dict']
    for encoder in ('encoder_q', 'encoder_k'):
        for leaf in ('weight', 'bias'):
            del weights[f'module.{encoder}.fc.{leaf}']
        weights.update(linear(f'module.{encoder}.fc.0') | linear(f'module.{encoder}.fc.2'))
    return content


def moco_v3(w):
    weights = {
        **under('module.base_encoder.', {**w, **linear('fc.0'), **linear('fc.3')}),
        **under('module.momentum_encoder.', {**shifted(w), **linear('fc.0')}),
        **linear('module.predictor.0'),
    }
    return sgd(arch='resnet50', state_dict=weights, scaler={'scale': 65536.0})


def simsiam(w):
    encoder = {**w, **linear('fc.0'), **linear('fc.6')}
    weights = {**under('module.encoder.', encoder), **linear('module.predictor.0')}
    return sgd(arch='resnet50', state_dict=weights)


def swav(w):
    heads = {**linear('module.projection_head.0'), 'module.prototypes.weight': torch.randn(30, 8)}
    return {**under('module.', w), **heads}


def barlow_twins(w):
    heads = {**linear('module.projector.0'), 'module.bn.running_mean': torch.randn(8)}
    return sgd(model={**under('module.backbone.', w), **heads})


def vicreg(w):
    return sgd(model={**under('module.backbone.', w), **linear('module.projector.3')})


def pixpro(w):
    weights = {
        **under('module.encoder.', w),
        **linear('module.projector.linear1'),
        **under('module.encoder_k.', shifted(w)),
        'module.value_transform.weight': torch.randn(8, 8, 1, 1),
    }
    return sgd(opt=argparse.Namespace(arch='resnet50', lr=1.0), model=weights)


def densecl_extracted(w):
    return {'state_dict': w, 'author': 'DenseCL'}


def densecl(w):
    """OpenSelfSup's model registers its backbone a second time as the query encoder's first."""
    weights = {
        'queue': torch.randn(8, 16),
        **under('encoder_q.0.', w),
        **linear('encoder_q.1.mlp.0'),
        **under('encoder_k.0.', shifted(w)),
        **under('backbone.', w),
    }
    return sgd(meta={'epoch': 200}, state_dict=weights)


def openmmlab(w):
    weights = {**under('backbone.', w), **linear('neck.mlp.0'), **linear('head.fc')}
    return {'meta': {'epoch': 1}, 'state_dict': weights}


def vissl(w):
    trunk = under('_feature_blocks.', w)
    model = {'model': {'trunk': trunk, 'heads': linear('0.clf.0')}}
    return {'phase_idx': 1, 'classy_state_dict': {'base_model': model}}


def spark_pretraining(w):
    weights = {
        **under('sparse_encoder.sp_cnn.', w),
        'dense_decoder.dec.0.up_sample.weight': torch.randn(8, 8, 4, 4),
        'mask_tokens.0': torch.randn(1, 8, 1, 1),
    }
    return {'args': 'resnet50', 'arch': 'resnet50', 'module': weights}


def leopart(w):
    weights = {**under('model.', w), 'model.prototypes.weight': torch.randn(30, 8)}
    return {'epoch': 9, 'global_step': 100, 'state_dict': weights}


def solo_learn(w):
    return {
        'pytorch-lightning_version': '2.0.0',
        'epoch': 399,
        'callbacks': {"ModelCheckpoint{'monitor': None}": {'best_model_path': '', 'dirpath': 'a'}},
        'loops': {'fit_loop': {'state_dict': {}}},
        'hyper_parameters': collections.defaultdict(list, a=[1]),
        'state_dict': {
            **under('backbone.', w),
            **under('momentum_backbone.', shifted(w)),
            **linear('projector.0'),
            **linear('classifier'),
        },
    }


def lightly(w):
    """Lightly wraps the children of a ResNet into a Sequential."""
    numbers = {'conv1': '0', 'bn1': '1', **{f'layer{i}': f'{i + 3}' for i in range(1, 5)}}
    named = {}
    for name, value in w.items():
        first, rest = name.split('.', 1)
        named[f'{numbers[first]}.{rest}'] = value
    weights = {**under('backbone.', named), **linear('projection_head.layers.0')}
    return {'state_dict': weights, 'hyper_parameters': {}}


def lightly_dino(w):
    student, teacher = under('student_backbone.', shifted(w)), under('teacher_backbone.', w)
    return {'state_dict': {**student, **teacher, **linear('student_head.layers.0')}}


def dino(w):
    return {
        'student': under('module.backbone.', shifted(w)),
        'teacher': {**under('backbone.', w), 'head.mlp.0.weight': torch.randn(4, 512)},
        'args': argparse.Namespace(arch='resnet50', lr=0.1, betas=[0.9, 0.99]),
        'epoch': 3,
    }


def segmentor(w):
    return {'state_dict': {**under('backbone.', w), **linear('decode_head.conv_seg')}}


LAYOUTS = {
    'torchvision.pth': Layout(lambda w: {**w, **linear('fc')}),
    'moco_v1.pth.tar': Layout(moco_v1, 'state_dict', 'module.encoder_q.'),
    'moco_v2.pth.tar': Layout(moco_v2, 'state_dict', 'module.encoder_q.'),
    'moco_v3.pth.tar': Layout(moco_v3, 'state_dict', 'module.base_encoder.'),
    'simsiam.pth.tar': Layout(simsiam, 'state_dict', 'module.encoder.'),
    'swav.pth': Layout(swav, '', 'module.'),
    'swav_ckp.pth.tar': Layout(lambda w: sgd(state_dict=swav(w)), 'state_dict', 'module.'),
    'barlow_bare.pth': Layout(lambda w: w),
    'barlow.pth': Layout(barlow_twins, 'model', 'module.backbone.'),
    'vicreg_bare.pth': Layout(lambda w: w),
    'vicreg.pth': Layout(vicreg, 'model', 'module.backbone.'),
    'pixpro.pth': Layout(pixpro, 'model', 'module.encoder.'),
    'densecl_extracted.pth': Layout(densecl_extracted, 'state_dict'),
    'densecl.pth': Layout(densecl, 'state_dict', 'backbone.'),
    'openmmlab.pth': Layout(openmmlab, 'state_dict', 'backbone.'),
    'vissl.torch': Layout(vissl, 'classy_state_dict.base_model.model.trunk', '_feature_blocks.'),
    'vissl_state.torch': Layout(
        lambda w: {'model_state_dict': under('_feature_blocks.', w)},
        'model_state_dict',
        '_feature_blocks.',
    ),
    'vissl_bare.torch': Layout(lambda w: under('_feature_blocks.', w), '', '_feature_blocks.'),
    'spark.pth': Layout(lambda w: {'module': w}, 'module'),
    'spark_bare.pth': Layout(lambda w: w),
    'spark_pretraining.pth': Layout(spark_pretraining, 'module', 'sparse_encoder.sp_cnn.'),
    'leopart.ckpt': Layout(leopart, 'state_dict', 'model.'),
    'solo_learn.ckpt': Layout(solo_learn, 'state_dict', 'backbone.'),
    'encoder.ckpt': Layout(
        lambda w: {'state_dict': under('encoder.', w)}, 'state_dict', 'encoder.'
    ),
    'lightly.ckpt': Layout(lightly, 'state_dict', 'backbone.', 'Sequential ResNet'),
    'lightly_dino.ckpt': Layout(lightly_dino, 'state_dict', 'teacher_backbone.'),
    'dino.pth': Layout(dino, 'teacher', 'backbone.'),
    'model_state.bin': Layout(lambda w: {'model_state_dict': w}, 'model_state_dict'),
    'segmentor.pt': Layout(segmentor, 'state_dict', 'backbone.'),
    'encoder.safetensors': Layout(lambda w: under('encoder.', w), '', 'encoder.'),
}
