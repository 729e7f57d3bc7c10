# Hue and chroma from one grey channel, at 256 points of each crop, read off several levels: a folder
# of images, ResNet-50, one GPU. The folder is that of the environment variable IMAGE_FOLDER, or
# data/images.
_base_ = './colorization_resnet50_folder.py'
model = dict(
    _delete_=True,
    type='mm_tuning_plugin.HueChromaModel',
    # x / 255 - 0.4488 of the average of the channels
    data_preprocessor=dict(
        type='mm_tuning_plugin.HueChromaDataPreprocessor',
        mean=[114.444],
        std=[255.0],
        grey='average'),
    backbone=dict(
        type='mmseg.ResNet',
        depth=50,
        in_channels=1,
        out_indices=(0, 1, 2, 3),
        strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1),
        norm_cfg=dict(type='BN', requires_grad=True)),
    head='hypercolumn',
    in_index=(0, 1, 2, 3),
    in_channels=(256, 512, 1024, 2048),
    channels=1024,
    points=256)
