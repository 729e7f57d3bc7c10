# VGG-16 from random weights on VOC12aug.
_base_ = [
    '../_base_/models/vgg16_hypercolumn.py', '../_base_/datasets/voc12aug_paper.py',
    '../_base_/schedules/paper_42k.py', '../_base_/recipes/paper_vgg16.py',
    '../_base_/default_runtime.py'
]
train_dataloader = dict(batch_size=48)
