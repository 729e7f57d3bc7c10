"""timm's own file of every family into mmseg's TIMMBackbone: all levels are equal, to the bit.

What timm cuts off a network of which only features are wanted is no reason to refuse its file.
"""

import pytest
import torch
from mistakes import mistake
from mmseg.models.backbones import TIMMBackbone, timm_backbone
from timm_networks import stubbed_torchvision, timm_network

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint

VIT = dict(embed_dim=16, depth=4, num_heads=2)
WINDOWS = dict(img_size=64, window_size=2, embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))
STAGES = dict(depths=(1, 1, 1, 1), dims=(8, 8, 16, 16))
FAMILIES = {
    'AIMv2': ('aimv2_large_patch14_224', dict(VIT, img_size=28)),
    'BEiTv2': ('beitv2_base_patch16_224', dict(VIT, img_size=32)),
    'CAFormer': ('caformer_of_the_tests', {}),
    'ConvNeXt': ('convnext_atto', STAGES),
    'ConvNeXtV2': ('convnextv2_atto', STAGES),
    'DINOv2': ('vit_small_patch14_dinov2', dict(VIT, img_size=28)),
    'DINOv2 with registers': ('vit_small_patch14_reg4_dinov2', dict(VIT, img_size=28)),
    'DINOv3': ('vit_small_patch16_dinov3', dict(VIT, img_size=32)),
    'DenseNet': ('densenet121', dict(block_config=(1, 1, 1, 1), growth_rate=8)),
    'EVA-02': ('eva02_tiny_patch14_224', dict(VIT, img_size=28)),
    'EdgeNeXt': ('edgenext_xx_small', dict(dims=(8, 16, 24, 32), depths=(1, 2, 2, 2))),
    'EfficientNet': ('tinynet_e', {}),
    'FastViT': ('fastvit_t8', dict(layers=(1, 1, 1, 1), embed_dims=(8, 16, 32, 64))),
    'HRNet': ('hrnet_w18_small', {}),
    'Hiera': (
        'hiera_tiny_224',
        dict(img_size=64, embed_dim=8, num_heads=1, stages=(1, 2, 1, 1)),
    ),
    'MaxViT': (
        'maxvit_tiny_tf_224',
        dict(
            img_size=64,
            embed_dim=(8, 16, 16, 16),
            depths=(1, 1, 1, 1),
            stem_width=8,
            transformer_dim_head=8,
        ),
    ),
    'MobileNetV3': ('mobilenetv3_small_050', {}),
    'PVTv2': ('pvt_v2_b0', dict(depths=(1, 1, 1, 1), embed_dims=(8, 16, 40, 64))),
    'Perception Encoder': ('vit_pe_core_tiny_patch16_384', dict(VIT, img_size=32)),
    'RADIO': ('naflexvit_base_patch16_radio_v3', dict(VIT, reg_tokens=4)),
    'ResNet': ('resnet10t', dict(channels=(8, 8, 16, 16), stem_width=8)),
    'SAM': ('samvit_base_patch16', dict(VIT, img_size=32, global_attn_indexes=(1,), neck_chans=8)),
    'Swin': ('swin_tiny_patch4_window7_224', WINDOWS),
    'SwinV2': ('swinv2_tiny_window8_256', WINDOWS),
    'XCiT': ('xcit_nano_12_p16_224', dict(VIT, img_size=32)),
    'rotary positions': ('vit_small_patch16_rope_mixed_ape_224', dict(VIT, img_size=32)),
}
CUT = ('ConvNeXt', 'DINOv2', 'DenseNet', 'Hiera', 'ResNet', 'Swin', 'XCiT')


@pytest.fixture(scope='module', autouse=True)
def timm():
    """Timm, shown to mmseg, with a small network of a family that has none."""
    with stubbed_torchvision():
        timm = pytest.importorskip('timm')
        from timm.models import metaformer

    def caformer_of_the_tests(pretrained=False, **options):
        norms = [metaformer.LayerNorm2dNoBias] * 2 + [metaformer.LayerNormNoBias] * 2
        attention = [metaformer.SepConv] * 2 + [metaformer.Attention] * 2
        return metaformer._create_metaformer(
            'caformer_s18',
            pretrained=pretrained,
            depths=[1, 1, 1, 1],
            dims=[8, 16, 32, 64],
            token_mixers=attention,
            norm_layers=norms,
            **options,
        )

    timm.models._registry._model_entrypoints['caformer_of_the_tests'] = caformer_of_the_tests
    before, timm_backbone.timm = timm_backbone.timm, timm
    yield timm
    timm_backbone.timm = before
    del timm.models._registry._model_entrypoints['caformer_of_the_tests']


def check(family, path, *, wrap=lambda weights: weights, **options):
    """Saves timm's network as timm does, loads it, and compares all levels that are read."""
    name, sizes = FAMILIES[family]
    source = timm_network(name, **sizes).eval()
    torch.save(wrap(source.state_dict()), path)
    backbone = TIMMBackbone(name, pretrained=False, **sizes, **options)
    report = load_backbone_checkpoint(backbone, path)
    assert report.share == 1 and report.missing == () and report.unexpected == ()
    assert report.notes == ()
    backbone.eval()
    side = sizes.get('img_size', 64)
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        found = backbone(images)
        wanted = source.forward_intermediates(
            images, indices=levels(backbone), norm=False, intermediates_only=True
        )
    assert len(found) == len(wanted)
    for level, expected in zip(found, wanted):
        if level.shape != expected.shape:  # channels stand last
            level = level.permute(0, 3, 1, 2)
        assert expected.std() > 1e-3
        assert torch.equal(level, expected)
    return report


def levels(backbone):
    """Which of a network's levels are read."""
    network = backbone.timm_model
    return list(getattr(network, 'out_indices', None) or network.feature_info.out_indices)


@pytest.mark.parametrize('family', FAMILIES)
def test_every_family(family, tmp_path):
    check(family, tmp_path / 'a.pth')


@pytest.mark.parametrize('family', CUT)
def test_what_follows_the_levels_that_are_read_is_cut_off(family, tmp_path):
    report = check(family, tmp_path / 'a.pth', out_indices=(0, 1))
    assert len(report.dropped) > 4


def test_a_file_of_a_segmentor(tmp_path):
    """The backbone's own names, wrappers and all: still each stage is judged by itself."""

    def wrap(weights):
        return {'state_dict': {f'backbone.timm_model.model.{k}': v for k, v in weights.items()}}

    report = check('DINOv2', tmp_path / 'a.pth', wrap=wrap)
    assert 'timm_model.model.blocks.0' in report.stages


@pytest.mark.parametrize('family', ['DINOv2', 'ConvNeXt', 'ResNet'])
@pytest.mark.parametrize('options', [dict(out_indices=(0, 1)), {}])
def test_a_deeper_network_is_refused(family, options, tmp_path):
    """A block more in a stage is not what timm cuts off."""
    name, sizes = FAMILIES[family]
    deeper, block = {
        'DINOv2': (dict(sizes, depth=5), 'blocks.4'),
        'ConvNeXt': (dict(sizes, depths=(2, 1, 1, 1)), 'stages_0.blocks.1'),
        'ResNet': (dict(sizes, layers=(2, 1, 1, 1)), 'layer1.1'),
    }[family]
    torch.save(timm_network(name, **deeper).state_dict(), tmp_path / 'a.pth')
    backbone = TIMMBackbone(name, pretrained=False, **sizes, **options)
    with mistake(str(tmp_path / 'a.pth'), block):
        load_backbone_checkpoint(backbone, tmp_path / 'a.pth')


def test_a_stem_that_is_lacking_is_refused(tmp_path):
    """Few parameters of a whole network: a stage is judged by itself, behind two wrappers too."""
    name, sizes = FAMILIES['DINOv2']
    weights = timm_network(name, **sizes).state_dict()
    wrapped = {f'timm_model.model.{k}': v for k, v in weights.items() if 'patch_embed' not in k}
    torch.save(wrapped, tmp_path / 'a.pth')
    with mistake(str(tmp_path / 'a.pth'), ("'patch_embed'", ' 0 of '), '90%'):
        load_backbone_checkpoint(TIMMBackbone(name, pretrained=False, **sizes), tmp_path / 'a.pth')
