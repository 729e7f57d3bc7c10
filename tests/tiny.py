"""Backbones of mmseg's at widths that take milliseconds."""

SWIN = {
    'type': 'SwinTransformer', 'embed_dims': 8, 'depths': (1, 1, 1, 1), 'num_heads': (1, 1, 2, 2),
    'window_size': 4, 'pretrain_img_size': 64,
}  # fmt: skip
MIT = {
    'type': 'MixVisionTransformer', 'embed_dims': 8, 'num_layers': [1, 1, 1, 1],
    'num_heads': [1, 1, 2, 2],
}  # fmt: skip
