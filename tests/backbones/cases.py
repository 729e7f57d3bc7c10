"""A real config of mmseg's for each of its backbones, and what shrinks it to milliseconds.

``BACKBONES`` maps a registered class to a `Case`; ``REFUSED`` and ``PARTS`` hold the classes that
are none. `small_config` gives the shrunk config; its data set comes later.
"""

from __future__ import annotations

import copy
import os
from typing import Any, NamedTuple

import mmseg
from mmengine.config import Config

SIZE = 64  # pixels: side of images, unless a case says otherwise
CLASSES = 8
WIDTH = 8  # channels of necks and heads


class Case(NamedTuple):
    """A real config, relative to mmseg's own, and what is changed in parts of its model."""

    config: str
    backbone: dict[str, Any] = {}
    decode_head: dict[str, Any] = {}
    neck: dict[str, Any] = {}
    # Whether this config names another backbone: none of mmseg's configs uses this one.
    exchanged: bool = False
    model: dict[str, Any] = {}  # of all of the model, dotted
    size: int = SIZE


FCN = 'fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
RESNET = dict(stem_channels=8, base_channels=8)
HR_CHANNELS = (4, 8, 16, 32)
HRNET = dict(
    extra=dict(
        stage1=dict(num_channels=(8,), num_blocks=(1,)),
        **{
            f'stage{n}': dict(num_channels=HR_CHANNELS[:n], num_blocks=(1,) * n, num_modules=1)
            for n in (2, 3, 4)
        },
    )
)
VIT = dict(embed_dims=16, num_layers=4, num_heads=2, out_indices=(0, 1, 2, 3))
FIXED_VIT = dict(VIT, img_size=(SIZE, SIZE))
PYRAMID = dict(depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
LIGHT_HAM = dict(ham_channels=8, norm_cfg=dict(type='GN', num_groups=4), ham_kwargs=dict(MD_R=4))

BACKBONES = {
    'BEiT': Case('beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py', FIXED_VIT),
    'BiSeNetV1': Case(
        'bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024.py',
        dict(
            context_channels=(16, 32, 64),
            spatial_channels=(8, 8, 8, 16),
            out_channels=32,
            backbone_cfg=RESNET,
        ),
    ),
    'BiSeNetV2': Case(
        'bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py',
        dict(
            detail_channels=(8, 8, 16),
            semantic_channels=(4, 8, 8, 16),
            semantic_expansion_ratio=2,
            bga_channels=16,
        ),
    ),
    'CGNet': Case(
        'cgnet/cgnet_fcn_4xb4-60k_cityscapes-680x680.py',
        dict(num_channels=(8, 16, 32), num_blocks=(2, 2)),
    ),
    'DDRNet': Case(
        'ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py',
        dict(channels=4, ppm_channels=8),
    ),
    'ERFNet': Case(
        'erfnet/erfnet_fcn_4xb4-160k_cityscapes-512x1024.py',
        dict(
            enc_downsample_channels=(4, 8, 16),
            enc_stage_non_bottlenecks=(1, 1),
            enc_non_bottleneck_dilations=(2,),
            enc_non_bottleneck_channels=(8, 16),
            dec_upsample_channels=(8, 4),
            dec_stages_non_bottleneck=(1, 1),
            dec_non_bottleneck_channels=(8, 4),
        ),
    ),
    'FastSCNN': Case(
        'fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py',
        dict(
            downsample_dw_channels=(8, 8),
            global_in_channels=16,
            global_block_channels=(16, 16, 32),
            global_out_channels=32,
            higher_in_channels=16,
            lower_in_channels=32,
            fusion_out_channels=32,
        ),
    ),
    'HRNet': Case('hrnet/fcn_hr18s_4xb2-40k_cityscapes-512x1024.py', HRNET),
    'ICNet': Case(
        'icnet/icnet_r18-d8_4xb2-80k_cityscapes-832x832.py',
        dict(
            backbone_cfg=RESNET,
            layer_channels=(16, 64),
            light_branch_middle_channels=8,
            psp_out_channels=16,
            out_channels=(8, 16, 16),
        ),
    ),
    'MAE': Case('mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py', FIXED_VIT),
    'MSCAN': Case(
        'segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py',
        dict(embed_dims=[8, 8, 16, 16], depths=[1, 1, 1, 1], mlp_ratios=[2, 2, 2, 2]),
        LIGHT_HAM,
    ),
    'MixVisionTransformer': Case(
        'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
        dict(embed_dims=8, num_layers=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
    ),
    'MobileNetV2': Case(
        'mobilenet_v2/mobilenet-v2-d8_fcn_4xb2-80k_cityscapes-512x1024.py',
        dict(widen_factor=0.25),
    ),
    'MobileNetV3': Case(
        'mobilenet_v3/mobilenet-v3-d8-scratch-s_lraspp_4xb4-320k_cityscapes-512x1024.py',
        size=400,  # its head pools over 49 cells of 8 pixels
    ),
    'PCPVT': Case(
        'twins/twins_pcpvt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512.py',
        dict(embed_dims=[8, 8, 16, 16], **PYRAMID),
    ),
    'PIDNet': Case(
        'pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py',
        dict(channels=4, ppm_channels=8, num_branch_blocks=2),
    ),
    'ResNeSt': Case(
        'resnest/resnest_s101-d8_fcn_4xb2-80k_cityscapes-512x1024.py', dict(RESNET, depth=50)
    ),
    'ResNeXt': Case(FCN, dict(RESNET, type='ResNeXt', groups=4, base_width=4), exchanged=True),
    'ResNet': Case('fcn/fcn_r18b-d8_4xb2-80k_cityscapes-512x1024.py', RESNET),
    'ResNetV1c': Case('fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py', RESNET),
    'ResNetV1d': Case(FCN, dict(RESNET, type='ResNetV1d', depth=18), exchanged=True),
    'STDCContextPathNet': Case(
        'stdc/stdc1_4xb12-80k_cityscapes-512x1024.py',
        dict(
            backbone_cfg=dict(channels=(4, 8, 16, 32, 64)),
            last_in_channels=(64, 32),
            out_channels=16,
            ffm_cfg=dict(in_channels=32, out_channels=32),
        ),
    ),
    'STDCNet': Case(
        FCN,
        dict(
            _delete_=True,
            type='STDCNet',
            stdc_type='STDCNet1',
            in_channels=3,
            channels=(4, 8, 16, 32, 64),
            bottleneck_type='cat',
            norm_cfg=dict(type='BN'),
            act_cfg=dict(type='ReLU'),
        ),
        dict(in_index=2),
        exchanged=True,
        model={'auxiliary_head.in_index': 1},
    ),
    'SVT': Case(
        'twins/twins_svt-s_uperhead_8xb2-160k_ade20k-512x512.py',
        dict(embed_dims=[8, 8, 16, 16], **PYRAMID),
    ),
    'SwinTransformer': Case(
        'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
        dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
    ),
    'UNet': Case('unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024.py', dict(base_channels=4)),
    'VisionTransformer': Case(
        'vit/vit_deit-s16-ln_mln_upernet_8xb2-160k_ade20k-512x512.py', FIXED_VIT
    ),
}
# Registered beside the backbones, but modules of UNet's that enlarge maps.
PARTS = ('DeconvModule', 'InterpConv')
# Refused by `read_model`, which says why.
REFUSED = ('VPD',)
# Cases of their own file: they take further packages.
ELSEWHERE = ('TIMMBackbone',)


_KNOWN: dict[int, tuple[Case, Config]] = {}  # by the id of the case, which lives as long


def small_config(case: Case) -> Config:
    """The config of a case at `WIDTH` and `SIZE`; heads fit what the small backbone gives."""
    if id(case) not in _KNOWN:
        _KNOWN[id(case)] = case, _shrunk(case)
    return copy.deepcopy(_KNOWN[id(case)][1])


def _shrunk(case: Case) -> Config:
    cfg = real_config(case)
    model = cfg.model
    for name in ('backbone', 'decode_head', 'neck'):
        changes = getattr(case, name)
        if changes:
            model[name].merge(changes)
    cfg.merge_from_dict({f'model.{key}': value for key, value in case.model.items()})
    cfg = Config(plain(cfg.to_dict()))
    cfg.model.data_preprocessor.size = (case.size, case.size)
    cfg.model.test_cfg = dict(mode='whole')
    fit_heads(cfg.model, case.size)
    wrapper = cfg.optim_wrapper
    if wrapper.type == 'AmpOptimWrapper':  # needs an accelerator
        wrapper.type = 'OptimWrapper'
        wrapper.pop('loss_scale', None)
    return cfg


def real_config(case: Case) -> Config:
    """The config of a case as mmseg has it."""
    return Config.fromfile(os.path.join(mmseg.__path__[0], '.mim', 'configs', case.config))


def plain(item: Any) -> Any:
    """Without what asks for several GPUs, weights from elsewhere, or a number of classes."""
    if isinstance(item, dict):
        kept = {key: plain(value) for key, value in item.items() if key != 'class_weight'}
        for key in ('pretrained', 'init_cfg'):
            value = kept.get(key)
            if (key == 'pretrained' and value) or (
                isinstance(value, dict) and 'checkpoint' in value
            ):
                kept[key] = None
        if kept.get('type') == 'SyncBN':
            kept['type'] = 'BN'
        return kept
    if isinstance(item, (list, tuple)):
        return type(item)(plain(value) for value in item)
    return item


def fit_heads(model: Any, size: int) -> None:
    """Give necks and heads `WIDTH` channels, and the number of input channels that they find."""
    found = channels(model.backbone, size)
    neck = model.get('neck')
    if neck is not None:
        if 'in_channels' in neck:
            neck.in_channels = found
        neck['embed_dim' if 'embed_dim' in neck else 'out_channels'] = (
            found[0] if 'embed_dim' in neck else WIDTH
        )
        found = [found[0] if 'embed_dim' in neck else WIDTH] * 4
    heads = [model.decode_head, *as_list(model.get('auxiliary_head'))]
    for head in heads:
        several = isinstance(head.in_channels, (list, tuple))
        index = head.get('in_index', -1)
        head.in_channels = [found[i] for i in index] if several else found[index]
        head.channels = WIDTH if head.get('num_convs') != 0 else head.in_channels
        head.num_classes = 2 if head.type == 'STDCHead' else CLASSES
        if 'sampler' in head:
            head.sampler.min_kept = 100
        for loss in as_list(head.get('loss_decode')):
            if 'min_kept' in loss:
                loss.min_kept = 100


def as_list(item: Any) -> list:
    return [] if item is None else list(item) if isinstance(item, (list, tuple)) else [item]


def channels(backbone: dict, size: int) -> list[int]:
    """Channels of the maps that a backbone gives in evaluation; of timm's networks by timm."""
    import torch
    from mmseg.registry import MODELS

    built = MODELS.build(backbone.copy())
    if hasattr(built, 'timm_model'):
        return built.timm_model.feature_info.channels()
    built.eval()  # of ResNet it returns None
    with torch.no_grad():
        maps = built(torch.zeros(1, 3, size, size))
    maps = [maps] if isinstance(maps, torch.Tensor) else maps
    return [int(part.shape[1]) for part in maps]
