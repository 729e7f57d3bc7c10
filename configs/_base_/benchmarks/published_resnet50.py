# What the plans of published self-supervised ResNet-50s share. The files of `starts` are looked for
# below the environment variable SSL_ROOT or in checkpoints/; `--starts NAME ...` runs those that you
# have.
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
