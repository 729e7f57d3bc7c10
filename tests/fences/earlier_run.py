"""A run of an earlier version, finished and stopped in each stage: ``python earlier_run.py``.

Writes `earlier_run.tar.xz`: a drawn data set, a config whose paths are relative, and the run's
folder three times. It was made before the package was rebuilt; a later version reads it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import CheckpointHook

from mm_tuning_plugin.cli.train import entry
from mm_tuning_plugin.demo.dataset import METAINFO, write_demo_dataset

FILE = Path(__file__).parent / 'earlier_run.tar.xz'
STOPPED = {'tuning': 'stopped_in_tuning', 'finished': 'stopped_in_fine_tuning'}


def config() -> Config:
    """8 iterations of each stage; a checkpoint every 4."""
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]

    def loader(split, steps, **options):
        dataset = dict(
            type='BaseSegDataset',
            data_root='data',
            metainfo=dict(METAINFO),
            data_prefix=dict(img_path=f'img/{split}', seg_map_path=f'ann/{split}'),
            img_suffix='.jpg',
            seg_map_suffix='.png',
            pipeline=[*load, *steps, dict(type='PackSegInputs')],
        )
        return dict(num_workers=0, dataset=dataset, **options)

    crops = [dict(type='RandomCrop', crop_size=(32, 32)), dict(type='RandomFlip', prob=0.5)]
    val = loader('val', [], batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False))
    norm_cfg = dict(type='BN', requires_grad=True)
    return Config(
        dict(
            default_scope='mmseg',
            randomness=dict(seed=3),
            model=dict(
                type='EncoderDecoder',
                data_preprocessor=dict(
                    type='SegDataPreProcessor',
                    mean=[120.0, 110.0, 100.0],
                    std=[60.0, 60.0, 60.0],
                    bgr_to_rgb=True,
                    size=(32, 32),
                ),
                backbone=dict(
                    type='ResNet',
                    depth=18,
                    num_stages=2,
                    strides=(1, 2),
                    dilations=(1, 1),
                    stem_channels=4,
                    base_channels=4,
                    out_indices=(0, 1),
                    norm_cfg=norm_cfg,
                ),
                decode_head=dict(
                    type='FCNHead',
                    in_channels=8,
                    in_index=1,
                    channels=4,
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
                'train', crops, batch_size=2, sampler=dict(type='InfiniteSampler', shuffle=True)
            ),
            val_dataloader=val,
            val_cfg=dict(type='ValLoop'),
            val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
            param_scheduler=[dict(type='PolyLR', power=0.9, begin=0, end=8, by_epoch=False)],
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=8, val_interval=8),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4),
            ),
            log_processor=dict(by_epoch=False),
            mix_and_match=dict(
                max_iters=8,
                images_per_batch=4,
                nodes_per_image=16,
                checkpoint_interval=4,
                retrieval_images=4,
                pictures=[],
                report=False,
                projection_channels=8,
                loss='graph_triplet',
            ),
        )
    )


def main() -> int:
    """Train once; copy the folder as a kill after iteration 4 of a stage would leave it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_demo_dataset('data', image_size=48, num_unlabelled=0, num_train=6, num_val=2)
        shutil.rmtree('data/img/unlabelled', ignore_errors=True)
        config().dump('config.py')
        plain = CheckpointHook.after_train_iter

        def copying(hook, runner, *args, **options):
            plain(hook, runner, *args, **options)
            if runner.iter == 3:
                shutil.copytree('finished', STOPPED[Path(runner.work_dir).name])

        CheckpointHook.after_train_iter = copying
        status = entry(['config.py', '--work-dir', 'finished'])
        with tarfile.open(FILE, 'w:xz') as archive:
            archive.add('.', filter=lambda item: None if item.name.endswith('.log') else item)
        return status


if __name__ == '__main__':
    sys.exit(main())
