# The standard FCN of self-supervised ResNet-50s: output stride 8, an auxiliary head. Plain ResNet,
# not V1c: no self-supervised ResNet has its stem.
_base_ = './segmentor_512.py'
model = dict(
    backbone=dict(
        type='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1),
        norm_cfg={{_base_.norm_cfg}},
        norm_eval=False,
        style='pytorch',
        contract_dilation=True),
    decode_head=dict(
        type='FCNHead',
        in_channels=2048,
        in_index=3,
        channels=512,
        num_convs=2,
        concat_input=True,
        num_classes=21),
    auxiliary_head=dict(in_channels=1024, num_classes=21))
