# CamVid's training frames without their labels: img/train/NAME.jpg below the environment variable
# CAMVID_ROOT, or data/camvid. A file of names without suffix, one a line, restricts them, as the
# training frames of a fold: train_dataloader.dataset.ann_file=FILE, absolute or below the root.
data_root = '{{$CAMVID_ROOT:data/camvid}}'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResize', scale=(480, 360), ratio_range=(1.0, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(320, 320)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        # without `seg_map_path` and LoadAnnotations this data set asks for no label maps
        type='BaseSegDataset',
        data_root=data_root,
        ann_file='',
        data_prefix=dict(img_path='img/train'),
        img_suffix='.jpg',
        pipeline=train_pipeline))
