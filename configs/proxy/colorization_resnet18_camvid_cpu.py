# Colorization on CamVid's training frames, for one CPU core.
_base_ = [
    '../_base_/models/proxy_resnet18_quarter.py', '../_base_/datasets/camvid_unlabelled.py',
    '../_base_/schedules/proxy_sgd_cpu.py', '../_base_/default_runtime.py'
]
model = dict(
    type='mm_tuning_plugin.ColorizationModel',
    data_preprocessor=dict(
        type='mm_tuning_plugin.ColorizationDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375]),
    in_index=(1, 2, 3),
    in_channels=(32, 64, 128),
    channels=64)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResize', scale=(160, 120), ratio_range=(1.0, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(96, 96)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(num_workers=1, dataset=dict(pipeline=train_pipeline))
