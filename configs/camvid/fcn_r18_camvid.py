# The baseline: an ordinary mmseg config, without tuning.
_base_ = [
    '../_base_/models/fcn_resnet18.py', '../_base_/datasets/camvid.py',
    '../_base_/schedules/sgd_8k.py', '../_base_/default_runtime.py'
]
