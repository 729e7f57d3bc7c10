"""Standard backbones as mmseg's configs write them: what a file without a config is compared with.

Plain data; whoever builds them brings mmseg. Arguments that change no parameter are left out,
except those that make self-supervised weights mean the same (the epsilon of a LayerNorm).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

Backbone = dict[str, Any]


class Known(NamedTuple):
    """One architecture.

    Attributes:
        millions: Parameters, in millions.
        config: Its backbone.
    """

    millions: float
    config: Backbone


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


KNOWN: dict[str, Known] = {
    'ResNet-18': Known(11.2, dict(type='ResNet', depth=18)),
    'ResNet-34': Known(21.3, dict(type='ResNet', depth=34)),
    'ResNet-50': Known(23.5, dict(type='ResNet', depth=50)),
    'ResNet-101': Known(42.5, dict(type='ResNet', depth=101)),
    'ResNet-152': Known(58.1, dict(type='ResNet', depth=152)),
    'ResNet-50-C': Known(23.5, dict(type='ResNetV1c', depth=50)),
    'ResNet-50-D': Known(23.5, dict(type='ResNetV1d', depth=50)),
    'ResNeXt-50 32x4d': Known(23.0, dict(type='ResNeXt', depth=50, groups=32, base_width=4)),
    'ViT-T/16': Known(5.5, _vit(192, 12, 3)),
    'ViT-S/16': Known(21.7, _vit(384, 12, 6)),
    'ViT-B/16': Known(85.8, _vit(768, 12, 12)),
    'ViT-L/16': Known(303.3, _vit(1024, 24, 16)),
    'ViT-S/14': Known(22.0, _vit(384, 12, 6, 14, 518)),
    'ViT-B/14': Known(86.6, _vit(768, 12, 12, 14, 518)),
    'ViT-L/14': Known(304.3, _vit(1024, 24, 16, 14, 518)),
    'ViT-S/8': Known(21.7, _vit(384, 12, 6, 8)),
    'ViT-B/8': Known(85.8, _vit(768, 12, 12, 8)),
    'MAE ViT-B/16': Known(85.9, _plain_vit('MAE', 768, 12, 12, 1.0)),
    'MAE ViT-L/16': Known(303.6, _plain_vit('MAE', 1024, 24, 16, 1.0)),
    'BEiT-B/16': Known(85.8, _plain_vit('BEiT', 768, 12, 12, 0.1)),
    'BEiT-L/16': Known(303.4, _plain_vit('BEiT', 1024, 24, 16, 1e-5)),
    'Swin-T': Known(27.5, _swin(96, (2, 2, 6, 2), (3, 6, 12, 24))),
    'Swin-S': Known(48.8, _swin(96, (2, 2, 18, 2), (3, 6, 12, 24))),
    'Swin-B': Known(86.7, _swin(128, (2, 2, 18, 2), (4, 8, 16, 32))),
    'MiT-B0': Known(3.3, _mit(32, [2, 2, 2, 2])),
    'MiT-B1': Known(13.2, _mit(64, [2, 2, 2, 2])),
    'MiT-B2': Known(24.2, _mit(64, [3, 4, 6, 3])),
    'MiT-B3': Known(44.1, _mit(64, [3, 4, 18, 3])),
    'MiT-B4': Known(60.8, _mit(64, [3, 8, 27, 3])),
    'MiT-B5': Known(81.4, _mit(64, [3, 6, 40, 3])),
    'Twins-PCPVT-S': Known(23.6, dict(
        type='PCPVT', embed_dims=[64, 128, 320, 512], num_heads=[1, 2, 5, 8],
        mlp_ratios=[8, 8, 4, 4], depths=[3, 4, 6, 3], qkv_bias=True,
    )),
    'Twins-SVT-S': Known(23.5, dict(
        type='SVT', embed_dims=[64, 128, 256, 512], num_heads=[2, 4, 8, 16],
        mlp_ratios=[4, 4, 4, 4], depths=[2, 2, 10, 4], sr_ratios=[8, 4, 2, 1],
        windiow_sizes=[7, 7, 7, 7], qkv_bias=True,
    )),
    'MSCAN-T': Known(3.9, _mscan([32, 64, 160, 256], [3, 3, 5, 2])),
    'MSCAN-S': Known(13.5, _mscan([64, 128, 320, 512], [2, 2, 4, 2])),
    'MSCAN-B': Known(26.3, _mscan([64, 128, 320, 512], [3, 3, 12, 3])),
    'HRNet-W18': Known(9.6, _hrnet(18)),
    'HRNet-W32': Known(29.3, _hrnet(32)),
    'HRNet-W48': Known(65.3, _hrnet(48)),
    'MobileNetV2': Known(1.8, dict(type='MobileNetV2')),
    'MobileNetV3-S': Known(0.9, dict(type='MobileNetV3', arch='small')),
    'MobileNetV3-L': Known(3.0, dict(type='MobileNetV3', arch='large', out_indices=(1, 3, 16))),
    'ConvNeXt-T': Known(27.8, _convnext('tiny')),
    'ConvNeXt-S': Known(49.5, _convnext('small')),
    'ConvNeXt-B': Known(87.6, _convnext('base')),
    'AlexNet-BN': Known(2.3, dict(type='mm_tuning_plugin.AlexNetBN')),
    'VGG-16-BN': Known(14.7, dict(type='mm_tuning_plugin.VGG16BN')),
}  # fmt: skip
