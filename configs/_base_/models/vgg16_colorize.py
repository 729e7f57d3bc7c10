_base_ = './vgg16_hypercolumn.py'
# The colorization network has two further blocks behind fc7, which the hypercolumn reads as well.
model = dict(
    data_preprocessor=dict(mean=[114.444], std=[255.0]),  # x / 255 - 0.4488
    backbone=dict(
        in_channels=1,
        extra_blocks=2,
        out_indices=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)),
    decode_head=dict(
        in_channels=(
            1, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512, 4096, 4096, 1024, 1024),
        in_index=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18)))
