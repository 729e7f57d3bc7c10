# The paper's VGG-16: BatchNorm with affine parameters, and a hypercolumn of the input, all convolutions,
# fc6 and fc7. The random start reads colours, in the order blue, green, red, less their mean.
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
    backbone=dict(
        type='mm_tuning_plugin.VGG16BN',
        in_channels=3,
        with_fc=True,
        # input, conv1_1 to conv5_3, pool5, fc6, fc7: the head reads all but pool5, which is tuned
        out_indices=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)),
    decode_head=dict(
        type='mm_tuning_plugin.HypercolumnHead',
        in_channels=(3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512, 4096, 4096),
        in_index=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16),
        channels=1024,
        points=256,
        num_classes=21,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
