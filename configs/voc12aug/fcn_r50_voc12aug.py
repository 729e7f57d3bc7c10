# FCN over ResNet-50 at output stride 8, crops of 512, batch 16, 20,000 iterations.
_base_ = [
    '../_base_/models/fcn_resnet50_d8.py', '../_base_/datasets/voc12aug.py',
    '../_base_/schedules/sgd_20k.py', '../_base_/default_runtime.py'
]
mix_and_match = dict(max_iters=2000)
