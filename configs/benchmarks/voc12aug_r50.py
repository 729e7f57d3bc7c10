# Published self-supervised ResNet-50s on VOC12 with SBD, by the usual protocol; one GPU a job.
# Their files: see the base.
# OpenMMLab reports (mIoU, one run each, 4 GPUs): relative location 63.49, rotation 64.31, NPID 65.45,
# SimCLR 64.03, MoCo v2 67.55, BYOL 67.16, SwAV 63.73, DenseCL 69.47, SimSiam 48.35 (100 epochs).
_base_ = '../_base_/benchmarks/published_resnet50.py'
config = '../voc12aug/fcn_r50_voc12aug.py'
