# The paper's AlexNet: BatchNorm without affine parameters, FCN-32s. Random and jigsaw starts read
# colours, in the order blue, green, red, less their mean.
norm_cfg = dict(type='BN', affine=False)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[104.0, 117.0, 123.0],
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False,
        pad_val=0,  # behind the normalisation: the mean
        seg_pad_val=255,
        size=(512, 512),
        test_cfg=dict(size=(512, 512))),
    backbone=dict(type='mm_tuning_plugin.AlexNetBN', variant='colorize', in_channels=3),
    decode_head=dict(
        type='mm_tuning_plugin.FCN32sHead',
        in_channels=256,
        in_index=0,
        channels=4096,
        kernel_size=6,
        norm_cfg=norm_cfg,
        num_classes=21,
        align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
