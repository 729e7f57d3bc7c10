# The backbone of the proxy tasks for one CPU core: a quarter of ResNet-18's width. Its checkpoint fits
# the backbone of fcn_r18_camvid_cpu.py: strides and dilations have no weights.
model = dict(
    backbone=dict(
        type='mmseg.ResNet',
        depth=18,
        stem_channels=16,
        base_channels=16,
        out_indices=(0, 1, 2, 3),
        strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1),
        norm_cfg=dict(type='BN', requires_grad=True)))
