# As the paper's systems read VOC12aug: crops of 512 at the images' own size, mirrored; tested on images
# that are fitted into 512 and padded with the mean, which the data preprocessor's test_cfg does.
_base_ = './voc12aug.py'
crop_size = (512, 512)
load = [dict(type='LoadImageFromFile')]
train_steps = [
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_steps = [
    dict(type='Resize', scale=crop_size, keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = _base_.train_dataloader
for part in train_dataloader.dataset.datasets:
    part.pipeline = load + train_steps
val_dataloader = dict(dataset=dict(pipeline=load + test_steps))
test_dataloader = dict(dataset=dict(pipeline=load + test_steps))
del part
