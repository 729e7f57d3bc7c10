# Published self-supervised ResNet-50s on Cityscapes, crops of 769, 40,000 iterations; one GPU a job.
# Their files: see the base.
_base_ = '../_base_/benchmarks/published_resnet50.py'
config = '../cityscapes/fcn_r50_cityscapes_769.py'
