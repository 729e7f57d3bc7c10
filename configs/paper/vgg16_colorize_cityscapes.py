# VGG-16 from a colorization proxy on Cityscapes: --ssl-checkpoint FILE. One grey channel.
_base_ = [
    '../_base_/models/vgg16_colorize.py', '../_base_/datasets/cityscapes_paper.py',
    '../_base_/schedules/paper_42k.py', '../_base_/recipes/paper_vgg16.py',
    '../_base_/default_runtime.py'
]
model = dict(
    type='mm_tuning_plugin.SummedSoftmaxEncoderDecoder',
    decode_head=dict(num_classes=19),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(256, 256)))
load = [dict(type='LoadImageFromFile'), dict(type='mm_tuning_plugin.GreyImage')]
train_dataloader = dict(
    batch_size=48,
    dataset=dict(pipeline=load + _base_.train_dataloader.dataset.pipeline[1:]))
val_dataloader = dict(dataset=dict(pipeline=load + _base_.val_dataloader.dataset.pipeline[1:]))
test_dataloader = val_dataloader
mix_and_match = dict(
    size_range=(128, 128),
    background_index=None)  # the release took class 0, road, for a background
