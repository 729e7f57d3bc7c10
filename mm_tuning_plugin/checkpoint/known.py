"""Standard backbones as mmseg's configs write them: what a file without a config is compared with.

Plain data; whoever builds them brings mmseg. Arguments that change no parameter are left out,
except those that make self-supervised weights mean the same (the epsilon of a LayerNorm).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Backbone = dict[str, Any]


def _vit(width: int, depth: int, heads: int, patch: int = 16, size: int = 224) -> Backbone:
    return dict(
        type='VisionTransformer', img_size=size, patch_size=patch, embed_dims=width,
        num_layers=depth, num_heads=heads, final_norm=True, norm_cfg=dict(type='LN', eps=1e-6),
    )  # fmt: skip


def _plain_vit(kind: str, width: int, depth: int, heads: int, init_values: float) -> Backbone:
    return dict(
        type=kind, img_size=224, patch_size=16, embed_dims=width, num_layers=depth,
        num_heads=heads, init_values=init_values,
    )  # fmt: skip


def _swin(width: int, depths: Sequence[int], heads: Sequence[int]) -> Backbone:
    return dict(type='SwinTransformer', embed_dims=width, depths=depths, num_heads=heads)


def _mit(width: int, depths: Sequence[int]) -> Backbone:
    return dict(
        type='MixVisionTransformer', embed_dims=width, num_layers=depths, num_heads=[1, 2, 5, 8]
    )


def _mscan(widths: Sequence[int], depths: Sequence[int]) -> Backbone:
    return dict(
        type='MSCAN', embed_dims=widths, depths=depths, mlp_ratios=[8, 8, 4, 4],
        norm_cfg=dict(type='BN'),
    )  # fmt: skip


def _hrnet(width: int) -> Backbone:
    extra = {
        'stage1': dict(
            num_modules=1, num_branches=1, block='BOTTLENECK', num_blocks=(4,), num_channels=(64,)
        )
    }
    for branches, modules in ((2, 1), (3, 4), (4, 3)):
        extra[f'stage{branches}'] = dict(
            num_modules=modules,
            num_branches=branches,
            block='BASIC',
            num_blocks=(4,) * branches,
            num_channels=tuple(width << i for i in range(branches)),
        )
    return dict(type='HRNet', extra=extra)


def _convnext(arch: str) -> Backbone:
    return dict(
        type='mmpretrain.ConvNeXt', arch=arch, out_indices=[0, 1, 2, 3],
        gap_before_final_norm=False,
    )  # fmt: skip


KNOWN: dict[str, Backbone] = {
    **{f'ResNet-{depth}': dict(type='ResNet', depth=depth) for depth in (18, 34, 50, 101, 152)},
    'ResNet-50-C': dict(type='ResNetV1c', depth=50),
    'ResNet-50-D': dict(type='ResNetV1d', depth=50),
    'ResNeXt-50 32x4d': dict(type='ResNeXt', depth=50, groups=32, base_width=4),
    'ViT-T/16': _vit(192, 12, 3),
    'ViT-S/16': _vit(384, 12, 6),
    'ViT-B/16': _vit(768, 12, 12),
    'ViT-L/16': _vit(1024, 24, 16),
    'ViT-S/14': _vit(384, 12, 6, 14, 518),
    'ViT-B/14': _vit(768, 12, 12, 14, 518),
    'ViT-L/14': _vit(1024, 24, 16, 14, 518),
    'ViT-S/8': _vit(384, 12, 6, 8),
    'ViT-B/8': _vit(768, 12, 12, 8),
    'MAE ViT-B/16': _plain_vit('MAE', 768, 12, 12, 1.0),
    'MAE ViT-L/16': _plain_vit('MAE', 1024, 24, 16, 1.0),
    'BEiT-B/16': _plain_vit('BEiT', 768, 12, 12, 0.1),
    'BEiT-L/16': _plain_vit('BEiT', 1024, 24, 16, 1e-5),
    'Swin-T': _swin(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    'Swin-S': _swin(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    'Swin-B': _swin(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    'MiT-B0': _mit(32, [2, 2, 2, 2]),
    'MiT-B1': _mit(64, [2, 2, 2, 2]),
    'MiT-B2': _mit(64, [3, 4, 6, 3]),
    'MiT-B3': _mit(64, [3, 4, 18, 3]),
    'MiT-B4': _mit(64, [3, 8, 27, 3]),
    'MiT-B5': _mit(64, [3, 6, 40, 3]),
    'Twins-PCPVT-S': dict(
        type='PCPVT', embed_dims=[64, 128, 320, 512], num_heads=[1, 2, 5, 8],
        mlp_ratios=[8, 8, 4, 4], depths=[3, 4, 6, 3], qkv_bias=True,
    ),
    'Twins-SVT-S': dict(
        type='SVT', embed_dims=[64, 128, 256, 512], num_heads=[2, 4, 8, 16],
        mlp_ratios=[4, 4, 4, 4], depths=[2, 2, 10, 4], sr_ratios=[8, 4, 2, 1],
        windiow_sizes=[7, 7, 7, 7], qkv_bias=True,
    ),
    'MSCAN-T': _mscan([32, 64, 160, 256], [3, 3, 5, 2]),
    'MSCAN-S': _mscan([64, 128, 320, 512], [2, 2, 4, 2]),
    'MSCAN-B': _mscan([64, 128, 320, 512], [3, 3, 12, 3]),
    'HRNet-W18': _hrnet(18),
    'HRNet-W32': _hrnet(32),
    'HRNet-W48': _hrnet(48),
    'MobileNetV2': dict(type='MobileNetV2'),
    'MobileNetV3-S': dict(type='MobileNetV3', arch='small'),
    'MobileNetV3-L': dict(type='MobileNetV3', arch='large', out_indices=(1, 3, 16)),
    'ConvNeXt-T': _convnext('tiny'),
    'ConvNeXt-S': _convnext('small'),
    'ConvNeXt-B': _convnext('base'),
}  # fmt: skip
