# Published self-supervised ResNet-50s on VOC12 with SBD, by the usual protocol; one GPU a job.
# The files of `starts` are looked for below the environment variable SSL_ROOT or in checkpoints/;
# `--starts NAME ...` runs those that you have.
# OpenMMLab reports (mIoU, one run each, 4 GPUs): relative location 63.49, rotation 64.31, NPID 65.45,
# SimCLR 64.03, MoCo v2 67.55, BYOL 67.16, SwAV 63.73, DenseCL 69.47, SimSiam 48.35 (100 epochs).
config = '../voc12aug/fcn_r50_voc12aug.py'
arms = ['direct', 'direct-matched', 'direct-twice', 'ce-tuned', 'tuned']
seeds = [0, 1, 2]
fractions = [0.125, 1]
starts = dict(
    # Published by OpenMMLab's mmselfsup and mmpretrain (ResNet-50, ImageNet, no labels); the files
    # of a method's own project will do as well. Save them under these names, or change the names.
    relative_location='{{$SSL_ROOT:checkpoints}}/relative-loc_resnet50.pth',
    rotation='{{$SSL_ROOT:checkpoints}}/rotation-pred_resnet50.pth',
    npid='{{$SSL_ROOT:checkpoints}}/npid_resnet50.pth',
    simclr='{{$SSL_ROOT:checkpoints}}/simclr_resnet50.pth',
    moco_v2='{{$SSL_ROOT:checkpoints}}/mocov2_resnet50.pth',
    byol='{{$SSL_ROOT:checkpoints}}/byol_resnet50.pth',
    swav='{{$SSL_ROOT:checkpoints}}/swav_resnet50.pth',
    densecl='{{$SSL_ROOT:checkpoints}}/densecl_resnet50.pth',
    simsiam='{{$SSL_ROOT:checkpoints}}/simsiam_resnet50.pth',
)
