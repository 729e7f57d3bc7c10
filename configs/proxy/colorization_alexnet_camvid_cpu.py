# Hue and chroma of CamVid's training frames for configs/camvid/alexnet_camvid_cpu.py.
_base_ = './colorization_resnet18_camvid_cpu.py'
model = dict(
    _delete_=True,
    type='mm_tuning_plugin.HueChromaModel',
    data_preprocessor=dict(
        type='mm_tuning_plugin.HueChromaDataPreprocessor',
        mean=[114.444],
        std=[255.0],
        grey='average'),
    backbone=dict(
        type='mm_tuning_plugin.AlexNetBN', in_channels=1, width=0.25, out_indices=(1, 2, 3, 4, 5)),
    head='hypercolumn',
    in_index=(0, 1, 2, 3, 4),
    in_channels=(24, 64, 96, 96, 64),
    channels=128,
    points=64)
train_cfg = dict(max_iters=1000, val_interval=1000)
