# For one CPU core: a quarter of ResNet-18's width, images of 160 x 120, crops of 96 x 96.
_base_ = './fcn_r18_camvid.py'
crop_size = (96, 96)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='mm_tuning_plugin.MapLabels', label_map={11: 255}),
    dict(type='RandomResize', scale=(160, 120), ratio_range=(0.8, 1.6), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
# The labels stay at their own size, to which mmseg resizes the prediction.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 120), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='mm_tuning_plugin.MapLabels', label_map={11: 255}),
    dict(type='PackSegInputs'),
]
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(stem_channels=16, base_channels=16),
    decode_head=dict(in_channels=128, channels=64))
train_dataloader = dict(num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=0.05))
train_cfg = dict(max_iters=1500, val_interval=1500)
param_scheduler = [
    dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=1500, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=500))
mix_and_match = dict(max_iters=500, images_per_batch=8, patch_size=64)
