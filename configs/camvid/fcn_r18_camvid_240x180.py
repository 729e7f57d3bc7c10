# The small variant, for two CPU cores: half the width of ResNet-18, images of 240 x 180.
_base_ = './fcn_r18_camvid.py'
crop_size = (128, 128)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='mm_tuning_plugin.MapLabels', label_map={11: 255}),
    dict(type='RandomResize', scale=(240, 180), ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
# The labels stay at their own size, to which mmseg resizes the prediction.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(240, 180), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='mm_tuning_plugin.MapLabels', label_map={11: 255}),
    dict(type='PackSegInputs'),
]
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(base_channels=32),
    decode_head=dict(in_channels=256, channels=64))
train_dataloader = dict(
    num_workers=1, batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=1000, val_interval=1000)
param_scheduler = [
    dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=1000, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=1000))
mix_and_match = dict(max_iters=400, images_per_batch=8, patch_size=64)
