# Plain ResNet-18 (not V1c: no self-supervised ResNet has its stem), output stride 16.
_base_ = './segmentor.py'
model = dict(
    data_preprocessor=dict(size=(320, 320)),
    backbone=dict(
        type='ResNet',
        depth=18,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch',
        contract_dilation=True),
    decode_head=dict(
        type='FCNHead',
        in_channels=512,
        in_index=3,
        channels=128,
        num_convs=1,
        concat_input=False,
        num_classes=11,
        norm_cfg=dict(type='BN', requires_grad=True)))
