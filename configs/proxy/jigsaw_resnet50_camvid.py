# Jigsaw puzzles of CamVid's training frames: ResNet-50, one GPU.
_base_ = [
    '../_base_/models/proxy_resnet50.py', '../_base_/datasets/camvid_unlabelled.py',
    '../_base_/schedules/proxy_sgd.py', '../_base_/default_runtime.py'
]
model = dict(
    type='mm_tuning_plugin.JigsawModel',
    # cells of 96 pixels, gaps of 0 to 48 between the tiles
    data_preprocessor=dict(
        type='mm_tuning_plugin.JigsawDataPreprocessor',
        tile_size=72,
        num_permutations=100,
        channel_shift=2),
    in_channels=2048,
    channels=512)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResize', scale=(480, 360), ratio_range=(1.0, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(288, 288)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=64, num_workers=8, dataset=dict(pipeline=train_pipeline))
