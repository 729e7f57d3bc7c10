# VGG-16 from random weights on Cityscapes, tested in windows of 512 whose probabilities add up.
_base_ = [
    '../_base_/models/vgg16_hypercolumn.py', '../_base_/datasets/cityscapes_paper.py',
    '../_base_/schedules/paper_42k.py', '../_base_/recipes/paper_vgg16.py',
    '../_base_/default_runtime.py'
]
model = dict(
    type='mm_tuning_plugin.SummedSoftmaxEncoderDecoder',
    decode_head=dict(num_classes=19),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(256, 256)))
train_dataloader = dict(batch_size=48)
mix_and_match = dict(
    size_range=(128, 128),
    background_index=None)  # the release took class 0, road, for a background
