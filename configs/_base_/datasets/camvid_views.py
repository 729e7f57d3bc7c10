# Two augmented views of each of CamVid's training frames, for contrastive proxies of mmpretrain.
_base_ = './camvid_unlabelled.py'
view_pipeline = [
    dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.2, 1.0), backend='cv2'),
    dict(
        type='RandomApply',
        transforms=[
            dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
            # the hue, by 0.1 of the circle: mmcv 2.1's own fails with NumPy 2
            dict(
                type='mmseg.PhotoMetricDistortion', brightness_delta=0, contrast_range=(1, 1),
                saturation_range=(1, 1), hue_delta=18)],
        prob=0.8),
    dict(
        type='RandomGrayscale', prob=0.2, keep_channels=True,
        channel_weights=(0.114, 0.587, 0.2989)),
    dict(type='GaussianBlur', magnitude_range=(0.1, 2.0), magnitude_std='inf', prob=0.5),
    dict(type='RandomFlip', prob=0.5),
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='MultiView', num_views=2, transforms=[view_pipeline]),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    collate_fn=dict(type='default_collate'),
    # mmseg's data set, so that `ann_file` means the same for every proxy
    dataset=dict(type='mmseg.BaseSegDataset', pipeline=train_pipeline))
