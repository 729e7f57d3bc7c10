# VGG-16 from a colorization proxy on VOC12aug: --ssl-checkpoint FILE. One grey channel.
_base_ = [
    '../_base_/models/vgg16_colorize.py', '../_base_/datasets/voc12aug_paper.py',
    '../_base_/schedules/paper_42k.py', '../_base_/recipes/paper_vgg16.py',
    '../_base_/default_runtime.py'
]
load = [dict(type='LoadImageFromFile'), dict(type='mm_tuning_plugin.GreyImage')]
train_dataloader = _base_.train_dataloader
train_dataloader.batch_size = 48
for part in train_dataloader.dataset.datasets:
    part.pipeline = load + part.pipeline[1:]
val_dataloader = dict(dataset=dict(pipeline=load + _base_.val_dataloader.dataset.pipeline[1:]))
test_dataloader = val_dataloader
del part
