# Jigsaw puzzles of CamVid's training frames, for one CPU core.
_base_ = [
    '../_base_/models/proxy_resnet18_quarter.py', '../_base_/datasets/camvid_unlabelled.py',
    '../_base_/schedules/proxy_sgd_cpu.py', '../_base_/default_runtime.py'
]
model = dict(
    type='mm_tuning_plugin.JigsawModel',
    # cells of 40 pixels, gaps of 0 to 16 between the tiles
    data_preprocessor=dict(
        type='mm_tuning_plugin.JigsawDataPreprocessor',
        tile_size=32,
        num_permutations=64,
        channel_shift=1),
    in_channels=128,
    channels=64)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResize', scale=(160, 120), ratio_range=(1.0, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(120, 120)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(num_workers=1, dataset=dict(pipeline=train_pipeline))
