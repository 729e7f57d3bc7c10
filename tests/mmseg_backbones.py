"""Every backbone that mmseg registers, at a width that takes milliseconds.

Left out: TIMMBackbone and VPD, whose packages (timm, ldm) are not installed here.
"""

_BN = dict(type='BN', requires_grad=True)
_RESNET = dict(depth=18, stem_channels=8, base_channels=8, norm_cfg=_BN)
_BOTTLENECKS = dict(_RESNET, depth=50)
_STDC = dict(
    type='STDCNet', stdc_type='STDCNet1', in_channels=3, channels=(8, 8, 16, 32, 64),
    bottleneck_type='cat', norm_cfg=_BN, act_cfg=dict(type='ReLU'),
)  # fmt: skip
_VIT = dict(img_size=32, patch_size=8, embed_dims=16, num_layers=2, num_heads=2)
_HRNET = {
    'stage1': dict(num_modules=1, num_branches=1, block='BOTTLENECK', num_blocks=(1,),
                   num_channels=(64,)),
    'stage2': dict(num_modules=1, num_branches=2, block='BASIC', num_blocks=(1, 1),
                   num_channels=(4, 8)),
    'stage3': dict(num_modules=1, num_branches=3, block='BASIC', num_blocks=(1, 1, 1),
                   num_channels=(4, 8, 16)),
    'stage4': dict(num_modules=1, num_branches=4, block='BASIC', num_blocks=(1, 1, 1, 1),
                   num_channels=(4, 8, 16, 32)),
}  # fmt: skip
_TWINS = dict(embed_dims=[8, 16, 16], num_heads=[1, 2, 2], mlp_ratios=[2, 2, 2])

BACKBONES = {
    'BEiT': dict(type='BEiT', **_VIT),
    'BiSeNetV1': dict(
        type='BiSeNetV1', backbone_cfg=dict(type='ResNet', **_RESNET),
        spatial_channels=(8, 8, 8, 16), context_channels=(16, 32, 64), out_channels=16,
    ),
    'BiSeNetV2': dict(
        type='BiSeNetV2', detail_channels=(8, 8, 16), semantic_channels=(4, 8, 8, 16),
        bga_channels=16,
    ),
    'CGNet': dict(type='CGNet', num_channels=(8, 16, 16), num_blocks=(2, 2)),
    'DDRNet': dict(type='DDRNet', channels=8, ppm_channels=8),
    'ERFNet': dict(type='ERFNet'),
    'FastSCNN': dict(
        type='FastSCNN', downsample_dw_channels=(8, 8), global_in_channels=16,
        global_block_channels=(16, 24, 32), global_out_channels=32, higher_in_channels=16,
        lower_in_channels=32, fusion_out_channels=32,
    ),
    'HRNet': dict(type='HRNet', extra=_HRNET),
    'ICNet': dict(
        type='ICNet', backbone_cfg=dict(type='ResNetV1c', **_RESNET), layer_channels=(16, 64),
        light_branch_middle_channels=8, psp_out_channels=16, out_channels=(8, 16, 16),
    ),
    'MAE': dict(type='MAE', **_VIT),
    'MSCAN': dict(
        type='MSCAN', embed_dims=[8, 8, 16, 16], mlp_ratios=[2, 2, 2, 2], depths=[1, 1, 1, 1],
        norm_cfg=_BN,
    ),
    'MixVisionTransformer': dict(
        type='MixVisionTransformer', embed_dims=8, num_layers=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]
    ),
    'MobileNetV2': dict(type='MobileNetV2', widen_factor=0.25),
    'MobileNetV3': dict(type='MobileNetV3', arch='small'),
    'PCPVT': dict(
        type='PCPVT', embed_dims=[8, 8, 16, 16], num_heads=[1, 1, 2, 2], mlp_ratios=[2, 2, 2, 2],
        depths=[1, 1, 1, 1],
    ),
    'PIDNet': dict(type='PIDNet', channels=8, ppm_channels=8),
    'ResNeSt': dict(type='ResNeSt', **_BOTTLENECKS),
    'ResNeXt': dict(type='ResNeXt', groups=4, base_width=4, **_BOTTLENECKS),
    'ResNet': dict(type='ResNet', **_RESNET),
    'ResNetV1c': dict(type='ResNetV1c', **_RESNET),
    'ResNetV1d': dict(type='ResNetV1d', **_RESNET),
    'STDCContextPathNet': dict(
        type='STDCContextPathNet', backbone_cfg=_STDC, last_in_channels=(64, 32), out_channels=8,
        ffm_cfg=dict(in_channels=24, out_channels=16, scale_factor=4),
    ),
    'STDCNet': _STDC,
    'SVT': dict(type='SVT', depths=[2, 2, 2], **_TWINS),
    'SwinTransformer': dict(
        type='SwinTransformer', embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2),
        window_size=4, pretrain_img_size=64,
    ),
    'UNet': dict(type='UNet', base_channels=4),
    'VisionTransformer': dict(type='VisionTransformer', **_VIT),
}  # fmt: skip


def own_backbones():
    """Names of the backbones that mmseg registers, without those that need more packages."""
    import mmseg.models.backbones as own

    return sorted(set(own.__all__) - {'TIMMBackbone', 'VPD'})


def build(config, **more):
    """Build a backbone, as a Runner of mmseg's does."""
    import mmseg.models  # noqa: F401
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS

    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(dict(config, **more))


def segmentor(backbone, **more):
    """A whole model around a backbone; its head can be built, not run."""
    head = dict(type='FCNHead', in_channels=8, channels=8, num_classes=3, num_convs=1)
    return build(dict(type='EncoderDecoder', backbone=backbone, decode_head=head, **more))


def initialise(module):
    """Call stock mmseg's own ``init_weights``, as a Runner of mmseg's does."""
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmseg'):
        module.init_weights()
    return module


def as_trained(config, seed=3):
    """The state dict of a backbone with every value away from its initial one."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, value in build(config).state_dict().items():
        if name.endswith('num_batches_tracked'):
            value = value + 17
        elif value.is_floating_point():
            value = 0.1 * torch.randn(value.shape, generator=generator)
            value = 1 + value.abs() if name.endswith('running_var') else value
        weights[name] = value.clone()
    return weights


def different(found, expected):
    """Names of tensors that two state dicts do not share, or that differ by a single bit."""
    import torch

    names = found.keys() ^ expected.keys()
    return sorted(
        names | {n for n in found.keys() - names if not torch.equal(found[n], expected[n])}
    )
