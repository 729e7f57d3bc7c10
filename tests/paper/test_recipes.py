"""The paper's systems: the released numbers, and each recipe from proxy to test on drawn scenes."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner

from mm_tuning_plugin.engine import MixAndMatchRunner, derive_tuning_config

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / 'configs' / 'paper').glob('*.py'))
NAMES = [path.stem for path in RECIPES]


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def recipe(name):
    return Config.fromfile(ROOT / 'configs' / 'paper' / f'{name}.py')


def test_there_are_the_paper_s_seven():
    assert set(NAMES) == {
        'alexnet_random_voc12aug', 'alexnet_colorize_voc12aug', 'alexnet_jigsaw_voc12aug',
        'vgg16_random_voc12aug', 'vgg16_colorize_voc12aug',
        'vgg16_random_cityscapes', 'vgg16_colorize_cityscapes',
    }  # fmt: skip


@pytest.mark.parametrize('name', NAMES)
def test_the_released_numbers(name):
    cfg = recipe(name)
    derived = derive_tuning_config(cfg)
    (patches,) = [
        step
        for step in derived.train_dataloader.dataset.dataset.get('pipeline')
        or derived.train_dataloader.dataset.dataset.datasets[0].pipeline
        if step['type'].endswith('SamplePatches')
    ]
    alexnet, cityscapes = name.startswith('alexnet'), name.endswith('cityscapes')
    images, each = (40, 10) if alexnet else (64, 9)
    assert (derived.train_dataloader.batch_size, patches.num_patches) == (images, each)
    assert patches.size_range == ([128, 128] if cityscapes else [64, 256])
    assert patches.patch_size == 128 and patches.max_overlap == 0.6
    assert patches.background_index == (None if cityscapes else 0)
    assert patches.background_ratio == 0.1
    assert derived.model.criterion == dict(type='mm_tuning_plugin.GraphTripletLoss', margin=2.1)
    assert derived.model.embedding.projection_channels == 0
    assert derived.optim_wrapper.optimizer == dict(
        type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4
    )
    assert derived.optim_wrapper.paramwise_cfg == dict(bias_lr_mult=2.0, bias_decay_mult=0.0)
    assert derived.train_cfg.max_iters == 8000
    assert derived.param_scheduler[0].milestones == [6000]
    assert cfg.param_scheduler[0].milestones == [24000, 36000, 40000]
    assert cfg.train_cfg.max_iters == 42000
    assert cfg.train_dataloader.batch_size == (64 if alexnet else 48)
    grey = 'colorize' in name
    assert cfg.model.data_preprocessor.mean == ([114.444] if grey else [104.0, 117.0, 123.0])
    assert not cfg.model.data_preprocessor.bgr_to_rgb
    assert (cfg.model.test_cfg.mode == 'slide') == cityscapes
    if alexnet:
        assert derived.model.embedding.grid_size == (5 if 'jigsaw' in name else 4)
    else:
        assert derived.model.in_index == [14] and cfg.model.decode_head.points == 256


def small(cfg, demo_root, work_dir):
    """The same recipe, narrow and short, on the demo data."""
    width = 0.04
    size = (64, 64)
    cfg.model.backbone.width = width
    cfg.model.data_preprocessor.update(size=size, test_cfg=dict(size=size))
    head = cfg.model.decode_head
    head.num_classes = 8
    backbone = MODELS.build(cfg.model.backbone)
    channels = cfg.model.backbone.in_channels
    widths = [level.shape[1] for level in backbone.eval()(torch.zeros(1, channels, *size))]
    if cfg.model.backbone.type.endswith('AlexNetBN'):
        head.update(in_channels=widths[0], channels=16)
    else:
        head.update(in_channels=[widths[i] for i in head.in_index], channels=16, points=32)
    if cfg.model.test_cfg.mode == 'slide':
        cfg.model.test_cfg.update(crop_size=size, stride=(32, 32))
    for split in ('train', 'val'):
        loader = cfg[f'{split}_dataloader']
        leaf = (loader.dataset.get('datasets') or [loader.dataset])[0]
        for step in leaf.pipeline:
            step.update({k: size for k in ('crop_size', 'scale') if k in step})
        loader.dataset = dict(
            type='BaseSegDataset',
            data_root=str(demo_root),
            metainfo=dict(classes=tuple('abcdefgh')),
            data_prefix=dict(img_path=f'img/{split}', seg_map_path=f'ann/{split}'),
            pipeline=leaf.pipeline,
        )
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.test_dataloader = None
    cfg.test_evaluator = cfg.test_cfg = None
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.mix_and_match.update(
        max_iters=2, images_per_batch=4, patch_size=64, size_range=(16, 48), retrieval_images=0
    )
    cfg.work_dir = str(work_dir)
    cfg.default_hooks.checkpoint.interval = 2
    return cfg


def proxy_weights(cfg, demo_root, work_dir):
    """A start for a recipe, made by the package's own proxy task in two iterations."""
    kind = 'Colorization' if cfg.model.backbone.in_channels == 1 else 'Jigsaw'
    backbone = MODELS.build(cfg.model.backbone)
    last = backbone.eval()(torch.zeros(1, backbone.in_channels, 64, 64))[-1].shape[1]
    index = len(cfg.model.backbone.get('out_indices', (6,))) - 1
    model = dict(type=f'mm_tuning_plugin.{kind}Model', backbone=cfg.model.backbone)
    if kind == 'Colorization':
        model.update(in_index=(index,), in_channels=(last,), channels=8)
        model['data_preprocessor'] = dict(
            type='mm_tuning_plugin.ColorizationDataPreprocessor',
            mean=[114.444],
            std=[255.0],
            grey='average',
        )
    else:
        model.update(in_channels=last, channels=8)
        model['data_preprocessor'] = dict(
            type='mm_tuning_plugin.JigsawDataPreprocessor', tile_size=32, num_permutations=8
        )
    runner = Runner.from_cfg(Config(dict(
        default_scope='mmseg',
        work_dir=str(work_dir),
        experiment_name='proxy',
        model=model,
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='InfiniteSampler', shuffle=True),
            dataset=dict(
                type='BaseSegDataset',
                data_root=str(demo_root),
                data_prefix=dict(img_path='img/train'),
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='Resize', scale=(128, 128)),
                    dict(type='PackSegInputs'),
                ],
            ),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=2),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
    )))  # fmt: skip
    runner.train()
    return work_dir / 'iter_2.pth'


@pytest.mark.parametrize('name', NAMES)
def test_from_proxy_to_test(name, demo_root, tmp_path):
    cfg = small(recipe(name), demo_root, tmp_path / 'run')
    if 'random' not in name:
        cfg.mix_and_match.checkpoint = str(proxy_weights(cfg, demo_root, tmp_path / 'proxy'))
    MixAndMatchRunner.from_cfg(cfg).train()
    tuned = tmp_path / 'run' / 'tuning' / 'tuned_backbone.pth'
    assert tuned.is_file() and (tmp_path / 'run' / 'iter_2.pth').is_file()
    text = (tmp_path / 'run' / 'stages.json').read_text()
    assert 'mIoU' in text
