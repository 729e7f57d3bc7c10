# AlexNet from random weights on VOC12aug: `python tools/train.py` this file, both stages.
_base_ = [
    '../_base_/models/alexnet_fcn32s.py', '../_base_/datasets/voc12aug_paper.py',
    '../_base_/schedules/paper_42k.py', '../_base_/recipes/paper.py',
    '../_base_/default_runtime.py'
]
train_dataloader = dict(batch_size=64)
mix_and_match = dict(
    images_per_batch=40,
    nodes_per_image=10)  # nine of the foreground, one of the background
