# Fine-tuning on the demo data set: an ordinary mmseg config, small enough for two CPU cores.
_base_ = ['../_base_/models/fcn_resnet18.py', '../_base_/default_runtime.py']
data_root = 'data/demo'
crop_size = (96, 96)
metainfo = dict(
    classes=('sky', 'ground', 'field', 'wall', 'cloth', 'ball', 'star', 'pole'),
    palette=[
        [70, 130, 180], [107, 142, 35], [220, 190, 90], [160, 80, 60], [200, 60, 160],
        [240, 140, 30], [250, 240, 60], [90, 90, 110]])
model = dict(
    data_preprocessor=dict(size=crop_size),
    # Output stride 8: the scenes are small.
    backbone=dict(
        stem_channels=32, base_channels=32, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    decode_head=dict(in_channels=256, channels=64, num_classes=8))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(128, 128), ratio_range=(0.8, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        metainfo=metainfo,
        data_prefix=dict(img_path='img/train', seg_map_path='ann/train'),
        img_suffix='.jpg',
        seg_map_suffix='.png',
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        metainfo=metainfo,
        data_prefix=dict(img_path='img/val', seg_map_path='ann/val'),
        img_suffix='.jpg',
        seg_map_suffix='.png',
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0005))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=300, val_interval=300)
param_scheduler = [
    dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=300, by_epoch=False)]
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=300),
    sampler_seed=dict(type='DistSamplerSeedHook'))
mix_and_match = dict(
    max_iters=150, images_per_batch=8, retrieval_images=32, size_range=(24, 64), patch_size=64)
