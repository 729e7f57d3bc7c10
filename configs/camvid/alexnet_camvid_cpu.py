# The paper's AlexNet system, a quarter as wide, on CamVid at 160 x 120, for one CPU core: grey, from a
# colorization proxy (configs/proxy/colorization_alexnet_camvid_cpu.py). A smoke of the whole chain.
_base_ = './fcn_r18_camvid_cpu.py'
model = dict(
    data_preprocessor=dict(mean=[114.444], std=[255.0], bgr_to_rgb=False),
    backbone=dict(
        _delete_=True, type='mm_tuning_plugin.AlexNetBN', in_channels=1, width=0.25, output_stride=8),
    decode_head=dict(
        _delete_=True,
        type='mm_tuning_plugin.FCN32sHead',
        in_channels=64,
        in_index=0,
        channels=256,
        kernel_size=6,
        norm_cfg=dict(type='BN', affine=False),
        num_classes=11,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)))
load = [
    dict(type='LoadImageFromFile'),
    dict(type='mm_tuning_plugin.GreyImage'),
    dict(type='LoadAnnotations'),
    dict(type='mm_tuning_plugin.MapLabels', label_map={11: 255})
]
train_pipeline = [
    *load,
    dict(type='RandomResize', scale=(160, 120), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(96, 96), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
# the labels stay at their own size
test_pipeline = [
    *load[:2],
    dict(type='Resize', scale=(160, 120), keep_ratio=True),
    *load[2:],
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0005),
    paramwise_cfg=dict(bias_lr_mult=2.0, bias_decay_mult=0.0))
param_scheduler = [
    dict(type='MultiStepLR', milestones=[570, 860, 950], gamma=0.1, by_epoch=False)]
train_cfg = dict(max_iters=1000, val_interval=1000)
default_hooks = dict(checkpoint=dict(interval=1000))
mix_and_match = dict(
    _delete_=True,
    recipe='paper',
    max_iters=300,
    images_per_batch=8,
    size_range=(32, 128),
    patch_size=64)
