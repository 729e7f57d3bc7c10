# ViT-S/16 with a plain head, as a baseline: an ordinary mmseg config.
_base_ = './fcn_r18_camvid.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='VisionTransformer',
        img_size=(320, 320),
        patch_size=16,
        embed_dims=384,
        num_layers=12,
        num_heads=6,
        mlp_ratio=4,
        out_indices=(11,),
        qkv_bias=True,
        drop_path_rate=0.1,
        norm_cfg=dict(type='LN', eps=1e-6),
        act_cfg=dict(type='GELU'),
        interpolate_mode='bicubic'),
    decode_head=dict(in_channels=384, in_index=0, channels=256))
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys=dict(
            pos_embed=dict(decay_mult=0.), cls_token=dict(decay_mult=0.),
            norm=dict(decay_mult=0.))))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=500, by_epoch=False),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=500, end=8000, by_epoch=False)]
