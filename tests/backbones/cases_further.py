"""Backbones of timm and mmpretrain, by the same kind of case as mmseg's own.

Where no config of mmseg's names a class, an FCN with one output is given it.
"""

from __future__ import annotations

from typing import Any

from cases import FCN, PYRAMID, RESNET, SIZE, Case

CONVNEXT = 'convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'
POOLFORMER = 'poolformer/fpn_poolformer_s12_8xb4-40k_ade20k-512x512.py'


def in_fcn(kind: str, **options: Any) -> Case:
    """An FCN on the last output of a backbone."""
    return Case(
        FCN,
        dict(_delete_=True, type=kind, **options),
        dict(in_index=-1),
        exchanged=True,
        model={'auxiliary_head': None},
    )


def pretrain(kind: str, **options: Any) -> Case:
    """A class of mmpretrain's in an FCN."""
    return in_fcn(f'mmpretrain.{kind}', **options)


def timm(name: str, **options: Any) -> Case:
    """A network of timm's in an FCN."""
    return in_fcn('TIMMBackbone', model_name=name, pretrained=False, **options)


SWIN = dict(img_size=SIZE, embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))
TIMM = {
    'TIMMBackbone resnet': timm(
        'resnet10t', channels=(8, 8, 16, 16), stem_width=8, out_indices=(1, 2, 3, 4)
    ),
    'TIMMBackbone convnext': timm(
        'convnext_atto', depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), out_indices=(0, 1, 2, 3)
    ),
    'TIMMBackbone vit': timm(
        'vit_tiny_patch16_224', img_size=SIZE, embed_dim=16, depth=4, num_heads=2
    ),
    'TIMMBackbone swin': timm('swin_tiny_patch4_window7_224', feature_cls='getter', **SWIN),
}
# (B, H, W, C): refused under a head of mmseg's, in a line that says how timm gives (B, C, H, W).
CHANNELS_LAST = {
    'TIMMBackbone swin, channels last': timm('swin_tiny_patch4_window7_224', **SWIN),
    'TIMMBackbone swinv2, channels last': timm('swinv2_tiny_window8_256', **SWIN),
    'TIMMBackbone mambaout, channels last': timm(
        # as many channels as cells: a head of mmseg's would run on the wrong ones
        'mambaout_femto',
        depths=(1, 1, 1, 1),
        dims=(16, 8, 4, 2),
    ),
    'TIMMBackbone sequencer, channels last': timm(
        'sequencer2d_s',
        layers=(1, 1, 1, 1),
        embed_dims=(8, 16, 16, 16),
        hidden_sizes=(4, 4, 4, 4),
    ),
}

TRANSFORMER = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
PLAIN_VIT = dict(arch=TRANSFORMER, img_size=SIZE, out_type='featmap')
STAGES = dict(depths=[1, 1, 1, 1], embed_dims=8, num_heads=[1, 1, 2, 2])
WIDTHS = [8, 8, 16, 16]
TWINS = dict(
    **PYRAMID,
    embed_dims=WIDTHS,
    patch_sizes=[4, 2, 2, 2],
    strides=[4, 2, 2, 2],
    mlp_ratios=[2, 2, 2, 2],
    sr_ratios=[8, 4, 2, 1],
)
FORMER = dict(
    layers=[1] * 4, embed_dims=[8, 16, 24, 32], mlp_ratios=[2] * 4, layer_scale_init_value=1e-5
)
WINDOWS = dict(arch=STAGES, img_size=SIZE, pad_small_map=True, out_indices=(0, 1, 2, 3))

PRETRAIN = {
    'BEiTViT': pretrain('BEiTViT', **PLAIN_VIT),
    'ConvMixer': pretrain(
        'ConvMixer', arch=dict(embed_dims=16, depth=2, patch_size=8, kernel_size=5)
    ),
    'ConvNeXt': Case(CONVNEXT, dict(arch=dict(depths=[1] * 4, channels=WIDTHS))),
    'DaViT': pretrain('DaViT', arch=STAGES, pad_small_map=True),
    'DeiT3': pretrain('DeiT3', **PLAIN_VIT),
    'DenseNet': pretrain('DenseNet', arch=dict(growth_rate=8, depths=[1] * 4, init_channels=8)),
    'DistilledVisionTransformer': pretrain('DistilledVisionTransformer', **PLAIN_VIT),
    'EdgeNeXt': pretrain(
        'EdgeNeXt',
        arch=dict(channels=[8, 16, 16, 16], depths=[1, 2, 2, 2], num_heads=[2] * 4),
        gap_before_final_norm=False,
    ),
    'EfficientNet': pretrain('EfficientNet', arch='b0', out_indices=(2, 3, 4)),
    'EfficientNetV2': pretrain('EfficientNetV2', arch='b0', out_indices=(2, 3, 4)),
    'HorNet': pretrain(
        'HorNet',
        arch=dict(
            base_dim=8,
            depths=[1] * 4,
            orders=[2] * 4,
            dw_cfg=[dict(type='DW', kernel_size=7)] * 4,
        ),
        gap_before_final_norm=False,
    ),
    'LeViT': pretrain('LeViT', arch='128s', img_size=128, out_indices=(0, 1, 2))._replace(size=128),
    'MViT': pretrain(
        'MViT',
        arch=dict(embed_dims=16, num_layers=4, num_heads=1, downscale_indices=[1, 2, 3]),
    ),
    'MobileNetV2': pretrain('MobileNetV2', widen_factor=0.25, out_indices=(1, 2, 4, 6)),
    'MobileNetV3': pretrain('MobileNetV3', arch='small_050', out_indices=(0, 3, 8)),
    'MobileViT': pretrain('MobileViT', arch='xx_small', out_indices=(1, 2, 3)),
    'PCPVT': pretrain('PCPVT', arch=TWINS, out_indices=(0, 1, 2, 3)),
    'PoolFormer': Case(POOLFORMER, dict(arch=FORMER)),
    'RIFormer': pretrain('RIFormer', arch=FORMER, out_indices=(0, 2, 4, 6)),
    'RegNet': pretrain('RegNet', arch='regnetx_400mf', out_indices=(0, 1, 2)),
    'RepLKNet': pretrain(
        'RepLKNet',
        arch=dict(
            large_kernel_sizes=[7] * 4,
            layers=[1] * 4,
            channels=WIDTHS,
            small_kernel=3,
            dw_ratio=1.0,
        ),
        out_indices=(0, 1, 2, 3),
    ),
    'RepMLPNet': pretrain(
        'RepMLPNet',
        arch=dict(channels=WIDTHS, depths=[1] * 4, sharesets_nums=[1, 2, 4, 8]),
        img_size=SIZE,
        reparam_conv_kernels=(1,),
        out_indices=(0, 1, 2, 3),
    ),
    'RepVGG': pretrain(
        'RepVGG',
        arch=dict(
            num_blocks=[1] * 4,
            width_factor=[0.125] * 4,
            group_layer_map=None,
            group_idx=None,
            se_cfg=None,
        ),
        out_indices=(0, 1, 2, 3),
    ),
    'Res2Net': pretrain('Res2Net', depth=50, scales=2, base_width=8, **RESNET),
    'ResNeSt': pretrain('ResNeSt', depth=50, **RESNET),
    'ResNeXt': pretrain('ResNeXt', depth=50, groups=4, width_per_group=4, **RESNET),
    'ResNet': pretrain('ResNet', depth=18, out_indices=(0, 1, 2, 3), **RESNET),
    'ResNetV1c': pretrain('ResNetV1c', depth=18, **RESNET),
    'ResNetV1d': pretrain('ResNetV1d', depth=18, **RESNET),
    'ResNet_CIFAR': pretrain('ResNet_CIFAR', depth=18, **RESNET),
    'RevVisionTransformer': pretrain('RevVisionTransformer', **PLAIN_VIT),
    'SEResNet': pretrain('SEResNet', depth=50, stem_channels=16, base_channels=16),
    'SVT': pretrain('SVT', arch=dict(TWINS, window_sizes=[7] * 4), out_indices=(0, 1, 2, 3)),
    'ShuffleNetV1': pretrain('ShuffleNetV1', widen_factor=0.5, out_indices=(0, 1, 2)),
    'ShuffleNetV2': pretrain('ShuffleNetV2', widen_factor=0.5, out_indices=(0, 1, 2)),
    'SwinTransformer': pretrain('SwinTransformer', **WINDOWS),
    'SwinTransformerV2': pretrain(
        'SwinTransformerV2', **dict(WINDOWS, arch=dict(STAGES, extra_norm_every_n_blocks=0))
    ),
    'T2T_ViT': pretrain(
        'T2T_ViT',
        img_size=SIZE,
        embed_dims=16,
        num_layers=2,
        t2t_cfg=dict(token_dims=8, use_performer=False),
        layer_cfgs=dict(num_heads=2, feedforward_channels=32),
        out_type='featmap',
    ),
    'VAN': pretrain(
        'VAN',
        arch=dict(embed_dims=WIDTHS, depths=[1] * 4, ffn_ratios=[2] * 4),
        out_indices=(0, 1, 2, 3),
    ),
    'VGG': pretrain('VGG', depth=11, norm_cfg=dict(type='BN'), out_indices=(2, 3, 4)),
    'ViTEVA02': pretrain('ViTEVA02', **PLAIN_VIT),
    'ViTSAM': pretrain(
        'ViTSAM', arch=dict(TRANSFORMER, global_attn_indexes=[1]), img_size=SIZE, out_channels=8
    ),
    'VisionTransformer': pretrain('VisionTransformer', **PLAIN_VIT),
    'XCiT': pretrain('XCiT', embed_dims=16, depth=2, num_heads=2, out_type='featmap'),
}
# What they give is no map, or is no map unless an option says so; the line must name it.
NO_MAPS = {
    'VisionTransformer': (dict(arch=TRANSFORMER, img_size=128), "out_type='featmap'"),
    'DeiT3': (dict(arch=TRANSFORMER, img_size=128), "out_type='featmap'"),
    'ConvNeXt': (
        dict(arch=dict(depths=[1] * 4, channels=WIDTHS)),
        'gap_before_final_norm=False',
    ),
    'XCiT': (dict(embed_dims=16, depth=2, num_heads=2), "out_type='featmap'"),
    'MlpMixer': (
        dict(
            arch=dict(embed_dims=16, num_layers=2, tokens_mlp_dims=8, channels_mlp_dims=32),
            img_size=128,
        ),
        '(B, C, H, W)',
    ),
}
