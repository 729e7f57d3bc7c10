# The paper's VGG-16 system, an eighth as wide, on CamVid at 160 x 120, for one CPU core: grey, a hypercolumn
# of 64 points an image, from a colorization proxy (configs/proxy/colorization_vgg16_camvid_cpu.py).
_base_ = './alexnet_camvid_cpu.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mm_tuning_plugin.VGG16BN',
        in_channels=1,
        width=0.125,
        # input, conv1_1 to conv5_3, and pool5, which is tuned
        out_indices=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)),
    decode_head=dict(
        _delete_=True,
        type='mm_tuning_plugin.HypercolumnHead',
        in_channels=(1, 8, 8, 16, 16, 32, 32, 32, 64, 64, 64, 64, 64, 64, 64),
        in_index=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14),
        channels=128,
        points=64,
        num_classes=11,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)))
mix_and_match = dict(levels=[14], grid_size=2)
