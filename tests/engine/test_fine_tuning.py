"""The look at fine-tuning: each mistake that only it would meet, and that nothing is left of it."""

import logging
import os
import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mistakes import check_mistake, mistake
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import HOOKS, METRICS, MODELS, VISBACKENDS, DefaultScope
from mmengine.utils import ManagerMixin
from mmengine.visualization import BaseVisBackend, Visualizer
from mmseg.models.data_preprocessor import SegDataPreProcessor
from torch import nn

from mm_tuning_plugin.engine import MixAndMatchRunner
from mm_tuning_plugin.engine.preflight.fine_tuning import (
    look_at_fine_tuning,
    look_at_first_batch,
    shapes,
)
from mm_tuning_plugin.engine.resume.rng_states import capture

HEAD = dict(
    type='FCNHead', in_channels=32, in_index=2, channels=8, num_convs=1, concat_input=False,
    num_classes=8, norm_cfg=dict(type='BN'), align_corners=False,
    loss_decode=dict(type='CrossEntropyLoss'),
)  # fmt: skip
POOLING = {**HEAD, 'type': 'PSPHead', 'in_channels': 64, 'in_index': 3, 'pool_scales': (1, 2)}
for unwanted in ('num_convs', 'concat_input'):
    POOLING.pop(unwanted)
FPN = dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=64, num_outs=4)
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
PIPELINE = 'train_dataloader.dataset.pipeline'


def look(cfg):
    found = look_at_fine_tuning(cfg)
    look_at_first_batch(found)
    return found


def changed(cfg, change):
    """A config with entries, by dotted names, set: a dict in the place of another, not into it."""
    for name, value in change.items():
        *above, last = name.split('.')
        part = cfg
        for key in above:
            if part.get(key) is None:
                part[key] = {}
            part = part[key]
        part[last] = value
    return cfg


# What is changed; where the mistake is, and names and values of the problem and of the remedy.
def wrong_count(key, count):
    """The fork's preprocessor refuses the count itself; the original's fails on images."""
    try:
        SegDataPreProcessor(**{'mean': [1.0], 'std': [1.0], key: [1.0, 2.0]})
    except AssertionError:
        return 'model.data_preprocessor', ['SegDataPreProcessor', key, count], ()
    return f'model.data_preprocessor.{key}', count, '3'


MISTAKES = {
    'a hook': ({'custom_hooks': [dict(type='EMAHok')]}, 'custom_hooks.0', "'EMAHok'", 'EMAHook'),
    'a value of a hook': (
        {'custom_hooks': [dict(type='EMAHook', begin_iter=-1)]},
        'custom_hooks.0', ['EMAHook', 'begin_iter', '-1'], (),
    ),
    'an argument of a hook': (
        {'default_hooks.timer': dict(type='IterTimerHook', x=1)},
        'default_hooks.timer', ['IterTimerHook', "'x'"], (),
    ),
    'an average': (
        {'custom_hooks': [dict(type='EMAHook', ema_type='EMA')]},
        'custom_hooks.0.ema_type', "'EMA'", 'model',
    ),
    'its momentum': (
        {'custom_hooks': [dict(type='EMAHook', momentum=7)]},
        'custom_hooks.0', ['ExponentialMovingAverage', 'momentum', '7'], (),
    ),
    'its beginning': (
        {'custom_hooks': [dict(type='EMAHook', begin_iter=9)]},
        'custom_hooks.0.begin_iter', '9', '4',
    ),
    'a priority': (
        {'custom_hooks': [dict(type='EmptyCacheHook', priority='TOP')]},
        'custom_hooks.0.priority', "'TOP'", ['0 to 100', 'HIGHEST', 'LOWEST'],
    ),
    'the best': (
        {'default_hooks.checkpoint.save_best': 'mIou'},
        'default_hooks.checkpoint.save_best', "'mIou'", 'aAcc, mAcc, mIoU',
    ),
    'an argument of the head': (
        {'model.decode_head.chanels': 3}, 'model.decode_head', ['FCNHead', "'chanels'"], (),
    ),
    'the head': (
        {'model.decode_head.type': 'FCNHed'}, 'model.decode_head', "'FCNHed'", 'FCNHead',
    ),
    'a loss': ({'model.decode_head.loss_decode.type': 'No'}, 'model.decode_head', "'No'", 'model'),
    'weights of classes': (
        {'model.decode_head.loss_decode.class_weight': [1.0] * 3},
        'model.decode_head', 'weight', 'class_weight',
    ),
    'channels of the head': (
        {'model.decode_head.in_channels': 65},
        'model.decode_head', 'in_channels=65', ['64', 'in_index=3'],
    ),
    'a level of the head': (
        {'model.decode_head.in_index': 4}, 'model.decode_head', 'in_index=4', '4',
    ),
    'channels of a second head': (
        {'model.auxiliary_head': [HEAD, {**HEAD, 'in_channels': 64}]},
        'model.auxiliary_head.1', 'in_channels=64', ['32', 'in_index=2'],
    ),
    'channels of the neck': (
        {'model.neck': {**FPN, 'in_channels': [8, 16, 32, 65]}}, 'model.neck', '65', '64',
    ),
    'channels of the backbone': (
        {'model.backbone.in_channels': 1}, 'model.backbone', '1 input channels', '3',
    ),
    'an initialisation': (
        {'model.decode_head.init_cfg': dict(type='Norm')}, 'model', "'Norm'", 'Normal',
    ),
    'an override of it': (
        {'model.decode_head.init_cfg': dict(type='Normal', override=dict(name='conv'))},
        'model', ['init_cfg', 'conv', "'Normal'"], (),
    ),
    'weights of the head': (
        {'model.decode_head.init_cfg': dict(type='Pretrained', checkpoint='/no.pth')},
        'model.decode_head.init_cfg', "'/no.pth'", 'file',
    ),
    'thirteen means': (
        {'model.data_preprocessor.mean': [1.0] * 13, 'model.data_preprocessor.std': [1.0] * 13},
        *wrong_count('mean', '13 values'),
    ),
    'two of std': (
        {'model.data_preprocessor.std': [1.0, 2.0]},
        *wrong_count('std', '2 values'),
    ),
    'one image, one value': (
        {'model.decode_head': POOLING, 'train_dataloader.batch_size': 1},
        'model.decode_head', ['BatchNorm', '[1, 8, 1, 1]'], ['batch_size', 'SyncBN'],
    ),
    'an optimizer': (
        {'optim_wrapper.optimizer.type': 'SDG'}, 'optim_wrapper.optimizer', "'SDG'", 'SGD',
    ),
    'its argument': ({'optim_wrapper.optimizer.speed': 3}, 'optim_wrapper', ['SGD', "'speed'"], ()),
    'a constructor': (
        {'optim_wrapper.constructor': 'No'}, 'optim_wrapper.constructor', "'No'", 'constructor',
    ),
    'a constructor for others': (
        {
            'optim_wrapper.constructor': 'LearningRateDecayOptimizerConstructor',
            'optim_wrapper.paramwise_cfg': dict(
                num_layers=2, decay_rate=1, decay_type='layer_wise'
            ),
        },
        'optim_wrapper', 'NotImplementedError', (),
    ),
    'a schedule': (
        {'param_scheduler': [dict(type='Poly')]}, 'param_scheduler.0', "'Poly'", 'PolyLR',
    ),
    'a schedule behind the end': (
        {'param_scheduler': dict(type='PolyLR', begin=9, by_epoch=False)},
        'param_scheduler', ['PolyLR', 'begin=9', 'end=4'], (),
    ),
    'a metric': ({'val_evaluator.type': 'IoUMetrc'}, 'val_evaluator', "'IoUMetrc'", 'IoUMetric'),
    'what it computes': (
        {'val_evaluator.iou_metrics': ['mIou']}, 'val_evaluator.iou_metrics', 'mIou', (),
    ),
    'a loop': (
        {'train_cfg.max_iter': 3}, 'train_cfg', ['IterBasedTrainLoop', "'max_iter'"], 'max_iters',
    ),
    'no length': (
        {'train_cfg': dict(type='IterBasedTrainLoop')},
        'train_cfg', ['IterBasedTrainLoop', "'max_iters'"], 'max_iters',
    ),
    'two kinds of loop': ({'train_cfg.by_epoch': False}, 'train_cfg', ['type', 'by_epoch'], ()),
    'an interval of none': ({'train_cfg.val_interval': 0}, 'train_cfg.val_interval', '0', '1'),
    'half a validation': (
        {'val_cfg': None}, 'val_cfg', ['None', 'val_dataloader', 'val_evaluator'], 'val_cfg',
    ),
    'half a test': (
        {'test_cfg': None}, 'test_cfg', ['None', 'test_dataloader', 'test_evaluator'], 'test_cfg',
    ),
    'a log': (
        {'log_processor.by_epoc': 1}, 'log_processor', ['LogProcessor', "'by_epoc'"], 'by_epoch',
    ),
    'a backend': (
        {'visualizer.vis_backends': [dict(type='WandbBackend')]},
        'visualizer.vis_backends.0', "'WandbBackend'", 'WandbVisBackend',
    ),
    'its package': (
        {'visualizer.vis_backends': [dict(type='NeptuneVisBackend')]},
        'visualizer.vis_backends.0', ['NeptuneVisBackend', 'neptune'], 'pip install neptune',
    ),
    'a visualizer': (
        {'visualizer.dir': 'x'}, 'visualizer', ['SegLocalVisualizer', "'dir'"], (),
    ),
    'a sampler': (
        {'train_dataloader.sampler.shufle': 1},
        'train_dataloader.sampler', ['InfiniteSampler', "'shufle'"], 'shuffle',
    ),
    'a loader': (
        {'train_dataloader.batch': 1}, 'train_dataloader', ['DataLoader', "'batch'"], (),
    ),
    'a collation': (
        {'train_dataloader.collate_fn': dict(type='no')},
        'train_dataloader.collate_fn', "'no'", 'function',
    ),
    'a transform': (
        {PIPELINE: [*LOAD, dict(type='Pack')]}, f'{PIPELINE}.2', "'Pack'", 'transform',
    ),
    'an argument of a transform': (
        {PIPELINE: [*LOAD, dict(type='RandomCrop', size=3)]},
        f'{PIPELINE}.2', ['RandomCrop', "'crop_size'"], 'crop_size',
    ),
    'no packing': (
        {PIPELINE: LOAD}, 'model.data_preprocessor', ['SegDataPreProcessor', "'inputs'"], (),
    ),
    'a transform that fails': (
        {PIPELINE: [*LOAD, dict(type='RandomCrop', crop_size=(8, 8)), dict(type='Resize')]},
        f'{PIPELINE}.3', ['Resize', 'scale'], (),
    ),
    'no labels': (
        {PIPELINE: [*LOAD[:1], dict(type='PackSegInputs')]},
        'model.decode_head', ['SegDataSample', 'gt_sem_seg'], (),
    ),
    'validation': (
        {'val_dataloader.dataset.pipeline': [*LOAD, dict(type='Pack')]},
        'val_dataloader.dataset.pipeline.2', "'Pack'", 'transform',
    ),
    'windows': (
        {'model.test_cfg': dict(mode='slide')},
        'model.test_cfg', "mode='slide'", ['crop_size', 'stride'],
    ),
    'scaling': (
        {'auto_scale_lr': dict(enable=True)}, 'auto_scale_lr', 'enable=True', 'base_batch_size',
    ),
    'a switch': (
        {'activation_checkpointing': ['backbone.no']},
        'activation_checkpointing', "'backbone.no'", 'model',
    ),
    'a package': (
        {'model.neck': dict(type='mmnothing.Neck')},
        'model.neck', 'mmnothing', 'pip install mmnothing',
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', MISTAKES)
def test_a_mistake_is_one_line_with_its_place(toy_cfg, name):
    change, where, problem, remedy = MISTAKES[name]
    with mistake(where, problem, remedy):
        look(changed(toy_cfg, change))


def classy(cfg):
    """Types that are classes and partial functions."""
    from mmengine.dataset import InfiniteSampler, pseudo_collate
    from mmseg.datasets import PackSegInputs
    from mmseg.models import FCNHead

    cfg.custom_hooks = [dict(type=EMAHook, begin_iter=1)]
    cfg.model.decode_head.type = FCNHead
    cfg.train_dataloader.collate_fn = dict(type=partial(pseudo_collate))
    cfg.train_dataloader.sampler.type = InfiniteSampler
    cfg.train_dataloader.dataset.pipeline[-1] = dict(type=partial(PackSegInputs))
    return cfg


# What mmseg runs: nothing of it is refused.
SOUND = {
    'as it is': {},
    'heads and a neck': {'model.neck': FPN, 'model.auxiliary_head': [
        {**HEAD, 'in_channels': 64}, {**HEAD, 'in_channels': 64, 'in_index': 0}]},
    'losses that ask for values': {
        'model.decode_head.loss_decode': [
            dict(type='CrossEntropyLoss', avg_non_ignore=True), dict(type='DiceLoss'),
            dict(type='FocalLoss'), dict(type='LovaszLoss', reduction='none'),
        ],
        'model.decode_head.sampler': dict(type='OHEMPixelSampler', thresh=0.7, min_kept=99),
    },
    'by epochs': {
        'train_cfg': dict(by_epoch=True, max_epochs=3),
        'custom_hooks': [dict(type='EMAHook', begin_epoch=2)],
        'param_scheduler': [dict(type='PolyLR', convert_to_iter_based=True)],
        'train_dataloader.sampler': dict(type='DefaultSampler', shuffle=True),
    },
    'no validation': dict.fromkeys(('val_cfg', 'val_dataloader', 'val_evaluator')),
    'only testing': {'test_evaluator': dict(type='NoMetric')},
    'pictures': {'default_hooks.visualization': dict(type='SegVisualizationHook', draw=True)},
    'no seed': {'randomness': {}},
    'one mean': {'model.data_preprocessor.mean': [1.0], 'model.data_preprocessor.std': [1.0]},
    'a preprocessor beside the model': {
        'data_preprocessor': dict(type='SegDataPreProcessor', size=(48, 48)),
        'model.data_preprocessor': None,
    },
    'a single image over ranks': {
        'model.decode_head': {**POOLING, 'norm_cfg': dict(type='SyncBN')},
        'train_dataloader.batch_size': 1,
    },
    'the best of all': {'default_hooks.checkpoint.save_best': ['mIoU', 'aAcc']},
    'weights on another machine': {
        'model.decode_head.init_cfg': dict(type='Pretrained', checkpoint='https://no.where/a.pth'),
        'model.backbone.init_cfg': dict(type='Pretrained', checkpoint='torchvision://resnet18'),
    },
    'layers that decay': {
        'model.backbone': dict(type='MAE', img_size=48, patch_size=16, embed_dims=8, num_layers=2,
                               num_heads=2, out_indices=(1,)),
        'model.decode_head': {**HEAD, 'in_channels': 8, 'in_index': 0},
        'optim_wrapper.constructor': 'LayerDecayOptimizerConstructor',
        'optim_wrapper.paramwise_cfg': dict(num_layers=2, layer_decay_rate=0.9),
    },
}  # fmt: skip


@pytest.mark.parametrize('name', [*SOUND, 'classes'])
def test_what_mmseg_runs_is_not_refused(toy_cfg, name):
    cfg = classy(toy_cfg) if name == 'classes' else changed(toy_cfg, SOUND[name])
    if name == 'a preprocessor beside the model':
        del cfg.model['data_preprocessor']
    before = repr(cfg.to_dict())
    found = look(cfg)
    assert repr(cfg.to_dict()) == before
    assert next(found.network.seen.parameters()).is_meta and found.network._real is None


@MODELS.register_module()
class ReadingHead(nn.Module):
    """An outline of it cannot be built, or takes no step, as some networks' cannot."""

    align_corners, num_classes, out_channels = False, 8, 8

    def __init__(self, at):
        super().__init__()
        self.at, self.scale = at, nn.Parameter(torch.empty(1))
        if at == 'constructor':
            float(torch.empty(2).fill_(3.0).sum())

    def loss(self, maps, data_samples, train_cfg):
        if self.at == 'numpy':
            self.scale.detach().numpy()
        if self.at == 'shapes' and self.scale.is_meta:
            raise RuntimeError("shape '[2]' is invalid for input of size 3")
        if self.at == 'gpu':
            raise RuntimeError('no kernel for this device')
        return dict(loss=self.scale * 0)


@pytest.mark.parametrize('at', ['constructor', 'numpy', 'shapes', 'gpu'])
def test_what_an_outline_alone_cannot_do_is_no_mistake(toy_cfg, at):
    toy_cfg.model.decode_head = dict(type='mmengine.ReadingHead', at=at)
    found = look(toy_cfg)
    assert (found.network._real is not None) == (at in ('constructor', 'shapes'))


@VISBACKENDS.register_module()
class LoudBackend(BaseVisBackend):
    """It tells the world of a run as soon as it is built."""

    def __init__(self, save_dir, project):
        raise AssertionError('a run was started')

    experiment = None


@HOOKS.register_module()
class AskingHook(Hook):
    """It asks for what a run alone has, and draws."""

    def __init__(self, out_dir):
        os.makedirs(out_dir)
        random.random(), np.random.rand(), torch.rand(1)
        Visualizer.get_current_instance().get_backend('LoudBackend').run()


@METRICS.register_module()
class ClearingMetric:
    """As mmseg's CityscapesMetric: it makes a folder and clears it in the end."""

    def __init__(self, output_dir):
        self.output_dir = output_dir
        os.makedirs(output_dir, exist_ok=True)

    def __del__(self):
        import shutil

        shutil.rmtree(self.output_dir)


def test_nothing_is_written_and_nothing_started(toy_cfg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = tmp_path / 'results'
    results.mkdir()
    (results / 'kept.txt').touch()
    toy_cfg.visualizer.vis_backends = [dict(type='mmengine.LoudBackend', project='x')]
    toy_cfg.custom_hooks = [dict(type='mmengine.AskingHook', out_dir=str(tmp_path / 'made'))]
    toy_cfg.val_evaluator = [
        dict(type='mmengine.ClearingMetric', output_dir=str(results)),
        dict(type='IoUMetric', output_dir=str(tmp_path / 'formatted')),
    ]
    before = sorted(path for path in tmp_path.rglob('*'))
    look(toy_cfg)
    assert sorted(path for path in tmp_path.rglob('*')) == before
    assert not Path(toy_cfg.work_dir).exists()


@MODELS.register_module()
class DrawingNeck(nn.Module):
    def __init__(self):
        super().__init__()
        random.random(), np.random.rand(), torch.rand(1)
        self.layer = nn.Conv2d(64, 64, 1)

    def forward(self, maps):
        random.random(), np.random.rand(), torch.rand(1)
        return maps


@pytest.mark.parametrize('at', [None, 'constructor'])
def test_no_random_state_moves_and_mmengine_forgets_it(toy_cfg, at, capsys):
    MessageHub.get_instance('mine').update_info('key', 1)
    logger = MMLogger.get_instance('mine')
    DefaultScope.get_instance('mine', scope_name='mmengine')
    toy_cfg.model.neck = dict(type='mmengine.DrawingNeck')
    if at is not None:
        toy_cfg.model.decode_head = dict(type='mmengine.ReadingHead', at=at)
    toy_cfg.default_hooks.visualization = dict(type='SegVisualizationHook')
    kinds = [ManagerMixin, Visualizer, MessageHub, MMLogger, DefaultScope]
    instances = [dict(kind._instance_dict) for kind in kinds]
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    states = capture()
    look(toy_cfg)
    assert torch.equal(states, capture())
    assert [dict(kind._instance_dict) for kind in kinds] == instances
    assert DefaultScope.get_current_instance().scope_name == 'mmengine'
    assert torch.empty(1).device.type == 'cpu' and torch.is_grad_enabled()
    assert logging.root.manager.disable == 0
    assert capsys.readouterr().out == ''
    logger.warning('heard')
    assert 'heard' in capsys.readouterr().out


def test_a_mistake_leaves_no_trace_either(toy_cfg):
    toy_cfg.custom_hooks = [dict(type='EMAHok')]
    states = capture()
    with mistake('custom_hooks.0', "'EMAHok'", 'EMAHook'):
        look(toy_cfg)
    assert torch.equal(states, capture()) and logging.root.manager.disable == 0
    assert DefaultScope.get_current_instance() is None


def test_what_testing_alone_needs_is_warned_of(toy_cfg, capsys):
    toy_cfg.test_evaluator = dict(type='NoMetric')
    look(toy_cfg)
    (line,) = [text for text in capsys.readouterr().out.splitlines() if 'NoMetric' in text]
    check_mistake(line.split(' - WARNING - ')[1], 'test_evaluator', "'NoMetric'", 'metric')


@pytest.mark.parametrize('enabled', [True, False])
def test_nothing_is_trained_before_it(toy_cfg, enabled, monkeypatch):
    from mmengine.runner import Runner

    def build(*args, **options):
        raise AssertionError('a Runner was built')

    monkeypatch.setattr(Runner, '__init__', build)
    toy_cfg.mix_and_match.enabled = enabled
    toy_cfg.model.decode_head.in_channels = 65
    with mistake('model.decode_head', 'in_channels=65', '64'):
        MixAndMatchRunner.from_cfg(toy_cfg).train()
    assert [path.name for path in Path(toy_cfg.work_dir).iterdir()] == ['run.json']


def test_weights_that_a_start_replaces_are_not_looked_for(toy_cfg):
    toy_cfg.model.decode_head.init_cfg = dict(type='Pretrained', checkpoint='/no.pth')
    look_at_fine_tuning(toy_cfg, loads_weights=False)


@pytest.mark.parametrize('masked', [False, True])
def test_shapes_are_made_up_where_values_are_asked_for(masked):
    maps = torch.empty(2, 3, 4, 4, device='meta')
    with shapes.MadeUp():
        assert maps.sum().item() == 1 and bool((maps > 0).any())
        chosen = maps[maps > 0] if masked else maps.flatten()[(maps > 0).flatten().nonzero()[:, 0]]
    assert chosen.shape == (96,)
