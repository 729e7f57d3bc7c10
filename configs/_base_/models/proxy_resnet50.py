# The backbone of the proxy tasks for a GPU.
model = dict(
    backbone=dict(
        type='mmseg.ResNet',
        depth=50,
        out_indices=(0, 1, 2, 3),
        strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1),
        norm_cfg=dict(type='BN', requires_grad=True)))
