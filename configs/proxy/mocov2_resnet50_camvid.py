# MoCo v2 (Chen et al., 2020) on CamVid's training frames: one GPU, and mmpretrain.
_base_ = [
    '../_base_/datasets/camvid_views.py', '../_base_/schedules/proxy_sgd.py',
    '../_base_/mmpretrain_runtime.py'
]
model = dict(
    type='MoCo',
    # Less than one pass over the frames: a longer queue would hold a frame among its own negatives.
    queue_len=256,
    feat_dim=128,
    momentum=0.001,
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(type='ResNet', depth=50, norm_cfg=dict(type='BN'), zero_init_residual=False),
    neck=dict(
        type='MoCoV2Neck',
        in_channels=2048,
        hid_channels=2048,
        out_channels=128,
        with_avg_pool=True),
    head=dict(
        type='ContrastiveHead', loss=dict(type='CrossEntropyLoss'), temperature=0.2))
optim_wrapper = dict(optimizer=dict(lr=0.03))
