_base_ = './fcn_r18_camvid.py'
model = dict(
    backbone=dict(depth=50, dilations=(1, 1, 1, 2)),
    decode_head=dict(in_channels=2048, channels=512, num_convs=2))
