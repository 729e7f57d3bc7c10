# AlexNet from a colorization proxy on VOC12aug: --ssl-checkpoint FILE. One grey channel.
_base_ = './alexnet_random_voc12aug.py'
load = [dict(type='LoadImageFromFile'), dict(type='mm_tuning_plugin.GreyImage')]
model = dict(
    data_preprocessor=dict(mean=[114.444], std=[255.0]),  # x / 255 - 0.4488
    backbone=dict(in_channels=1))
train_dataloader = _base_.train_dataloader
for part in train_dataloader.dataset.datasets:
    part.pipeline = load + part.pipeline[1:]
val_dataloader = dict(dataset=dict(pipeline=load + _base_.val_dataloader.dataset.pipeline[1:]))
test_dataloader = val_dataloader
del part
