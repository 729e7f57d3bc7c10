# Colorization on CamVid's training frames: ResNet-50, one GPU.
_base_ = [
    '../_base_/models/proxy_resnet50.py', '../_base_/datasets/camvid_unlabelled.py',
    '../_base_/schedules/proxy_sgd.py', '../_base_/default_runtime.py'
]
model = dict(
    type='mm_tuning_plugin.ColorizationModel',
    data_preprocessor=dict(
        type='mm_tuning_plugin.ColorizationDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375]),
    in_index=(1, 2, 3),
    in_channels=(512, 1024, 2048),
    channels=256)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResize', scale=(480, 360), ratio_range=(1.0, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(320, 320)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=32, num_workers=8, dataset=dict(pipeline=train_pipeline))
