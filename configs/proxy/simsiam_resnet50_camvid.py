# SimSiam (Chen, He, CVPR 2021) on CamVid's training frames: one GPU, and mmpretrain.
_base_ = [
    '../_base_/datasets/camvid_views.py', '../_base_/schedules/proxy_sgd.py',
    '../_base_/mmpretrain_runtime.py'
]
lr = 0.0125  # 0.05 for 256 images
model = dict(
    type='SimSiam',
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(type='ResNet', depth=50, norm_cfg=dict(type='BN'), zero_init_residual=True),
    neck=dict(
        type='NonLinearNeck',
        in_channels=2048,
        hid_channels=2048,
        out_channels=2048,
        num_layers=3,
        with_last_bn_affine=False,
        with_avg_pool=True),
    head=dict(
        type='LatentPredictHead',
        loss=dict(type='CosineSimilarityLoss'),
        predictor=dict(
            type='NonLinearNeck',
            in_channels=2048,
            hid_channels=512,
            out_channels=2048,
            with_avg_pool=False,
            with_last_bn=False,
            with_last_bias=True)))
optim_wrapper = dict(
    optimizer=dict(lr=lr), paramwise_cfg=dict(custom_keys={'predictor': dict(fix_lr=True)}))
# The predictor's learning rate is not lowered.
custom_hooks = [
    dict(type='SimSiamHook', priority='HIGH', fix_pred_lr=True, lr=lr, adjust_by_epoch=False)]
