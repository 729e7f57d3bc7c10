# As the paper's systems read Cityscapes: crops of 512 at the images' own size, mirrored; tested whole, in
# windows of 512 (the model's test_cfg).
_base_ = './cityscapes_769.py'
crop_size = (512, 512)
load = [dict(type='LoadImageFromFile')]
train_steps = [
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_steps = [dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
train_dataloader = dict(dataset=dict(pipeline=load + train_steps))
val_dataloader = dict(dataset=dict(pipeline=load + test_steps))
test_dataloader = dict(dataset=dict(pipeline=load + test_steps))
