# For two CPU cores: three stages of a ResNet-18 of a quarter of its width, output stride 8, images of
# 160 x 120, crops of 96 x 96. AdamW, because it learns the rare classes in half the iterations.
_base_ = './fcn_r18_camvid.py'
crop_size = (96, 96)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='mm_tuning_plugin.MapLabels', label_map={11: 255}),
    dict(type='RandomResize', scale=(160, 120), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
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
    backbone=dict(
        stem_channels=16,
        base_channels=16,
        num_stages=3,
        out_indices=(0, 1, 2),
        strides=(1, 2, 1),
        dilations=(1, 1, 2)),
    decode_head=dict(in_channels=64, in_index=2, channels=32))
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.005, weight_decay=0.01))
train_cfg = dict(max_iters=2500, val_interval=2500)
param_scheduler = [
    dict(type='PolyLR', eta_min=5e-5, power=0.9, begin=0, end=2500, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=1250))
mix_and_match = dict(max_iters=1000, images_per_batch=4, patch_size=64)
