# FCN over ResNet-50 at output stride 8, crops of 769, batch 8, 40,000 iterations.
_base_ = [
    '../_base_/models/fcn_resnet50_d8.py', '../_base_/datasets/cityscapes_769.py',
    '../_base_/schedules/sgd_40k.py', '../_base_/default_runtime.py'
]
model = dict(
    data_preprocessor=dict(size=(769, 769)),
    decode_head=dict(num_classes=19, align_corners=True),
    auxiliary_head=dict(num_classes=19, align_corners=True),
    test_cfg=dict(mode='slide', crop_size=(769, 769), stride=(513, 513)))
mix_and_match = dict(max_iters=4000)
