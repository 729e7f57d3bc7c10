# Hue and chroma of CamVid's training frames for configs/camvid/vgg16_camvid_cpu.py.
_base_ = './colorization_alexnet_camvid_cpu.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mm_tuning_plugin.VGG16BN',
        in_channels=1,
        width=0.125,
        out_indices=(2, 4, 7, 10, 13, 14)),
    in_index=(0, 1, 2, 3, 4, 5),
    in_channels=(8, 16, 32, 64, 64, 64))
