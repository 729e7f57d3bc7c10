"""What several tests need: a small data set on disk and a small config over it."""

import gc
import os
import sys
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest
import torch
from torch.utils.data import _utils as loader_utils
from yapf.yapflib import yapf_api

torch.set_num_threads(1)
sys.path.append(str(Path(__file__).parents[1] / 'tools' / 'docs'))

# Toy runs would spend most of their time in two waits; no result depends on either.
# torch waits for the workers of a loader that was collected in a cycle of references, then ends
# them: its queues may have gone first, so that nothing tells the workers to stop.
loader_utils.MP_STATUS_CHECK_INTERVAL = 0.5  # instead of 5 s
# mmengine lays its config out with yapf for every checkpoint. (Before mmengine is imported, which
# may keep the function by name.)
yapf_api.FormatCode = lambda text, **options: (text, True)


@pytest.fixture(scope='session')
def imported():
    """Import what runs import, and keep it out of the garbage that each data set collects."""
    import mmseg.models  # noqa: F401
    import torch._dynamo  # noqa: F401
    from mmengine.dataset import base_dataset

    gc.collect()
    gc.freeze()
    # A whole collection for each data set that is built is most of the time of building one.
    base_dataset.gc = SimpleNamespace(collect=lambda: 0)


@pytest.fixture(scope='session')
def demo_root(tmp_path_factory):
    """A tiny drawn data set: 8 training and 4 validation images of 64 x 64."""
    from mm_tuning_plugin.demo.dataset import write_demo_dataset

    root = tmp_path_factory.mktemp('data') / 'demo'
    return write_demo_dataset(root, image_size=64, num_unlabelled=4, num_train=8, num_val=4)


@pytest.fixture
def toy_cfg(imported, demo_root, tmp_path):
    """The config of an ordinary mmseg project: 4 iterations of a very small network."""
    from mmengine.config import Config

    from mm_tuning_plugin.demo.dataset import METAINFO

    def loader(split, pipeline, **options):
        return dict(
            num_workers=0,
            dataset=dict(
                type='BaseSegDataset',
                data_root=str(demo_root),
                metainfo=dict(METAINFO),
                data_prefix=dict(img_path=f'img/{split}', seg_map_path=f'ann/{split}'),
                img_suffix='.jpg',
                seg_map_suffix='.png',
                pipeline=pipeline,
            ),
            **options,
        )

    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    augment = [
        dict(type='RandomCrop', crop_size=(48, 48)),
        dict(type='RandomFlip', prob=0.5),
    ]
    pack = [dict(type='PackSegInputs')]
    val_dataloader = loader(
        'val', [*load, *pack], batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False)
    )
    norm_cfg = dict(type='BN', requires_grad=True)
    return Config(
        dict(
            default_scope='mmseg',
            work_dir=str(tmp_path / 'work'),
            randomness=dict(seed=7),
            model=dict(
                type='EncoderDecoder',
                data_preprocessor=dict(
                    type='SegDataPreProcessor',
                    mean=[123.675, 116.28, 103.53],
                    std=[58.395, 57.12, 57.375],
                    bgr_to_rgb=True,
                    size=(48, 48),
                ),
                backbone=dict(
                    type='ResNet',
                    depth=18,
                    stem_channels=8,
                    base_channels=8,
                    out_indices=(0, 1, 2, 3),
                    norm_cfg=norm_cfg,
                ),
                decode_head=dict(
                    type='FCNHead',
                    in_channels=64,
                    in_index=3,
                    channels=8,
                    num_convs=1,
                    concat_input=False,
                    num_classes=8,
                    norm_cfg=norm_cfg,
                    align_corners=False,
                    loss_decode=dict(type='CrossEntropyLoss'),
                ),
                train_cfg=dict(),
                test_cfg=dict(mode='whole'),
            ),
            train_dataloader=loader(
                'train',
                [*load, *augment, *pack],
                batch_size=2,
                sampler=dict(type='InfiniteSampler', shuffle=True),
            ),
            val_dataloader=val_dataloader,
            test_dataloader=val_dataloader,
            val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
            test_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
            optim_wrapper=dict(
                type='OptimWrapper',
                optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4),
            ),
            param_scheduler=[dict(type='PolyLR', power=0.9, begin=0, end=4, by_epoch=False)],
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=4, val_interval=4),
            val_cfg=dict(type='ValLoop'),
            test_cfg=dict(type='TestLoop'),
            default_hooks=dict(
                timer=dict(type='IterTimerHook'),
                logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
                param_scheduler=dict(type='ParamSchedulerHook'),
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
            ),
            visualizer=dict(
                type='SegLocalVisualizer',
                vis_backends=[dict(type='LocalVisBackend')],
                name='visualizer',
            ),
            log_processor=dict(by_epoch=False),
            log_level='INFO',
            load_from=None,
            resume=False,
            mix_and_match=dict(
                max_iters=4,
                images_per_batch=4,
                checkpoint_interval=2,
                retrieval_images=4,
                pictures=[],  # they take longer than the toy
                report=False,  # as do its curves
            ),
        )
    )


@pytest.fixture(autouse=True)
def fresh_mmengine():
    """mmengine keeps visualizers, hubs and loggers by name for the life of a process."""
    yield
    import sys

    if 'mmengine' in sys.modules:
        from mmengine.logging import MessageHub, MMLogger
        from mmengine.registry import DefaultScope
        from mmengine.visualization import Visualizer

        for kind in (Visualizer, MessageHub, MMLogger, DefaultScope):
            kind._instance_dict.clear()
        from mmseg.visualization import SegLocalVisualizer

        SegLocalVisualizer._instance_dict.clear()


def pytest_addoption(parser):
    parser.addoption('--write-fences', action='store_true', help='write tests/fences/*.json anew')
