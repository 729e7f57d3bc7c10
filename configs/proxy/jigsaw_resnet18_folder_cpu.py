# Jigsaw puzzles of all images below a folder, for one CPU core: the folder is that of the environment
# variable IMAGE_FOLDER, or data/images.
_base_ = './jigsaw_resnet18_camvid_cpu.py'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomChoiceResize', scales=list(range(120, 181, 15)),
        resize_type='ResizeShortestEdge', max_size=8192),
    dict(type='RandomCrop', crop_size=(120, 120)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mm_tuning_plugin.UnlabelledFolder',
        data_root='{{$IMAGE_FOLDER:data/images}}',
        pipeline=train_pipeline))
