"""CNNs that must be refused: in one line with the nearest explanation, the backbone as it was."""

from functools import partial

import pytest
import torch
import transformers
from loading import refuse, saved, under
from mistakes import mistake
from mmcv.cnn import VGG
from mmseg.models.backbones import (
    MobileNetV2,
    MobileNetV3,
    ResNeSt,
    ResNet,
    ResNetV1c,
    ResNetV1d,
    ResNeXt,
    VisionTransformer,
)
from reference_cnns import (
    Bottleneck,
    DeepStemResNet,
    SplitBottleneck,
    TorchvisionMobileNetV2,
    TorchvisionVGG,
)
from reference_mobile import SMALL, OriginalSTDC, TorchvisionMobileNetV3
from test_explain import BACKBONES

from mm_tuning_plugin.checkpoint import load, load_backbone_checkpoint
from mm_tuning_plugin.checkpoint.match.disambiguate import choose


def test_plain_file_into_deep_stem_is_refused(tmp_path, resnet_source):
    torch.save(resnet_source.state_dict(), tmp_path / 'a.pth')
    refuse(ResNetV1c(depth=18), tmp_path / 'a.pth', "'stem'", ' 0 of ', "'conv1'", remedy='90%')


def test_deep_stem_file_into_plain_resnet_is_refused(tmp_path):
    torch.save(ResNetV1c(depth=18).state_dict(), tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', "'stem'", ' 0 of ', 'deep stem', remedy='90%')


@pytest.mark.parametrize('depths', [(18, 50), (50, 18), (34, 50), (18, 34), (34, 18)])
def test_other_depth_is_refused(depths, tmp_path):
    """34 -> 18 too: each tensor of the shallow one finds its place, but it is another network."""
    found, wanted = depths
    torch.save({'model': narrow(depth=found).state_dict()}, tmp_path / 'a.pth')
    backbone = narrow(depth=wanted)
    refuse(backbone, tmp_path / 'a.pth', f'ResNet-{found}', f'ResNet-{wanted}')


def test_one_surplus_block_is_refused_though_nearly_all_is_used(tmp_path, resnet_source):
    weights = dict(resnet_source.state_dict())
    weights['layer1.2.bn1.weight'] = torch.ones(64)
    torch.save(weights, tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', "'layer1.2'")


def test_parameters_inside_a_stage_without_a_place_are_refused(tmp_path, resnet_source):
    weights = dict(resnet_source.state_dict())
    weights['layer1.0.se.weight'] = torch.ones(200, 200)
    torch.save(weights, tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', "'layer1'", '40,000 of 187,968', remedy='10%')


def test_other_shortcut_is_refused(tmp_path):
    torch.save(ResNetV1d(depth=18).state_dict(), tmp_path / 'a.pth')
    refuse(ResNetV1c(depth=18), tmp_path / 'a.pth', 'ResNetV1d')


def test_other_width_is_refused(tmp_path):
    torch.save(
        ResNet(depth=18, base_channels=32, stem_channels=32).state_dict(), tmp_path / 'a.pth'
    )
    refuse(ResNet(depth=18), tmp_path / 'a.pth', '32 channels', ' 64')


def test_segmentor_of_another_backbone_is_refused(tmp_path):
    weights = under('backbone.', narrow().state_dict())
    weights['decode_head.conv_seg.weight'] = torch.ones(2, 2, 1, 1)
    torch.save({'state_dict': weights}, tmp_path / 'a.pth')
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dims=16, num_layers=1, num_heads=2)
    refuse(vit, tmp_path / 'a.pth', 'VisionTransformer', ' ResNet', ' ViT', 'segmentor')


def test_a_misfit_of_no_known_kind_shows_one_tensor(tmp_path, resnet_source):
    """The small stem that is used for CIFAR."""
    weights = {**resnet_source.state_dict(), 'conv1.weight': torch.ones(64, 3, 3, 3)}
    torch.save(weights, tmp_path / 'a.pth')
    facts = "'stem'", "'conv1.weight'", '(64, 3, 3, 3)', '(64, 3, 7, 7)'
    refuse(ResNet(depth=18), tmp_path / 'a.pth', *facts)


def test_names_that_mean_nothing_load_nothing(tmp_path, resnet_source):
    """What `init_cfg=dict(type='Pretrained')` accepts in silence."""
    weights = {name.replace('.', '_'): v for name, v in resnet_source.state_dict().items()}
    torch.save({'state_dict': weights}, tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', '122 tensors', 'ResNet', remedy='conv1.weight')


def test_nothing_is_chosen_where_nothing_matches(tmp_path, monkeypatch):
    """Every prefix is as good as another then; to compare them all took half a minute."""
    counts = []

    def counted(prefixes):
        counts.append(len(prefixes))
        return choose(prefixes)

    monkeypatch.setattr(load, 'choose', counted)
    file = saved(TorchvisionMobileNetV2().published(), tmp_path / 'a.pth')
    refuse(MobileNetV3(), file, '314 tensors', 'MobileNetV3')
    assert counts == [1]


def test_a_missing_stage_is_refused_and_min_matched_is_per_stage(tmp_path, resnet_source):
    """The stem is 0.1% of a ResNet: a share over the whole network would not notice it."""
    weights = {k: v for k, v in resnet_source.state_dict().items() if not k.startswith('conv1')}
    torch.save(weights, tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', "'stem'", '128 of 9,536', '1%')
    report = load_backbone_checkpoint(ResNet(depth=18), tmp_path / 'a.pth', min_matched=0.01)
    assert report.stages['stem'] == (128, 9536)
    assert report.missing == ('conv1.weight',)


def test_min_matched_is_a_share(tmp_path, resnet_source):
    torch.save(resnet_source.state_dict(), tmp_path / 'a.pth')
    with mistake('min_matched', '90', '[0, 1]'):
        load_backbone_checkpoint(ResNet(depth=18), tmp_path / 'a.pth', min_matched=90)


def test_not_finite_is_refused(tmp_path, resnet_source):
    weights = dict(resnet_source.state_dict())
    weights['layer4.1.bn2.bias'] = torch.full((512,), float('nan'))
    torch.save(weights, tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', 'layer4.1.bn2.bias', 'NaN')


def narrow(cls=ResNet, **options):
    return cls(base_channels=8, **{'depth': 50, 'stem_channels': 8, **options})


def bottlenecks(**options):
    return DeepStemResNet(partial(Bottleneck, **options), (3, 4, 6, 3), deep=0, width=8)


@pytest.mark.parametrize(
    'lost', ['bn1.bias', 'layer1.0.downsample', 'layer2.3.conv1', 'layer3.1.bn2']
)
def test_parts_that_keep_their_start_are_noted_and_refused_on_demand(lost, tmp_path):
    """Less than a tenth of a stage each, which the default share accepts."""
    weights = {k: v for k, v in bottlenecks().state_dict().items() if not k.startswith(lost)}
    file = saved(weights, tmp_path / 'a.pth')
    refuse(narrow(), file, 'ResNet', remedy='100%', min_matched=1)
    report = load_backbone_checkpoint(narrow(), file)
    assert report.missing and all(name.startswith(lost) for name in report.missing)
    assert any(lost in note for note in report.notes)


def test_what_a_config_adds_to_a_resnet_is_new_and_noted(tmp_path):
    file = saved(bottlenecks().state_dict(), tmp_path / 'a.pth')
    plugin = dict(
        cfg=dict(type='ContextBlock', ratio=1 / 64),
        stages=(False, True, True, False),
        position='after_conv3',
    )
    report = load_backbone_checkpoint(narrow(plugins=[plugin]), file)
    assert report.missing and all('.context_block.' in name for name in report.missing)
    (note,) = report.notes
    assert note.startswith(f'{len(report.missing)} ') and 'plugins' in note and 'layer2.0' in note


def test_every_stage_of_hrnet_counts(tmp_path):
    """Its stages beside layer1 are no part of the stem, which is a thousandth of them."""
    weights = {k: v for k, v in BACKBONES['HRNet']().state_dict().items() if k[:4] != 'conv'}
    file = saved(weights, tmp_path / 'a.pth')
    refuse(BACKBONES['HRNet'](), file, "'stem'", '256 of 38,848')


def clip_resnet():
    """CLIP's ModifiedResNet-50: three stem convolutions, pooling by attention."""
    weights = {k: v for k, v in bottlenecks().state_dict().items() if k.startswith('layer')}
    for i, (inner, outer) in enumerate(((3, 4), (4, 4), (4, 8)), start=1):
        weights[f'conv{i}.weight'] = torch.randn(outer, inner, 3, 3)
        weights |= under(f'bn{i}.', torch.nn.BatchNorm2d(outer).state_dict())
    weights['attnpool.positional_embedding'] = torch.randn(50, 256)
    weights['attnpool.q_proj.weight'] = torch.randn(256, 256)
    return weights


def hugging_face():
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[32, 64, 128, 256], depths=[3, 4, 6, 3]
    )
    return transformers.ResNetModel(config).state_dict()


FILES = {
    'CLIP': lambda: under('visual.', clip_resnet()),
    'CLIP, its tower alone': clip_resnet,
    'wide': lambda: bottlenecks(base_width=128).state_dict(),
    'ResNet': lambda: bottlenecks().state_dict(),
    'Hugging Face': hugging_face,
    'ResNet-C': lambda: DeepStemResNet(Bottleneck, (3, 4, 6, 3), deep=4, width=8).state_dict(),
    'ResNeSt': lambda: DeepStemResNet(SplitBottleneck, (3, 4, 6, 3), 4, 8).state_dict(),
    'MobileNetV2': lambda: TorchvisionMobileNetV2().published(),
    'MobileNetV3': lambda: TorchvisionMobileNetV3(SMALL).published(),
    'STDC': lambda: OriginalSTDC().published(),
    'VGG': lambda: TorchvisionVGG(False).published(),
    'VGG with norms': lambda: TorchvisionVGG(True).published(),
    'Swin': lambda: BACKBONES['Swin']().state_dict(),
}


@pytest.mark.parametrize(
    ('file', 'backbone', 'facts'),
    [
        ('CLIP', narrow, (' CLIP model, ', ' ResNet')),
        ('CLIP, its tower alone', narrow, (' CLIP model, ', ' ResNet')),
        ('CLIP', partial(narrow, ResNetV1c), (' CLIP model, ', ' ResNet')),
        ('CLIP', partial(narrow, ResNetV1d), (' CLIP model, ', ' ResNet')),
        ('wide', narrow, ('16 channels', ' 8')),
        ('ResNet', partial(narrow, ResNeXt, groups=4, base_width=32), ('channels',)),
        ('Hugging Face', partial(narrow, ResNetV1c), ("'conv1'", 'V1c')),
        (
            'Hugging Face',
            partial(narrow, depth=18),
            ('ResNet-50', 'ResNet-18'),
        ),
        ('ResNet-C', partial(narrow, ResNetV1d), ('shortcuts', 'ResNetV1d')),
        ('ResNet-C', narrow, ('deep stem', "'conv1'")),
        ('ResNeSt', partial(narrow, ResNetV1d), (' ResNeSt, ', ' ResNet')),
        ('ResNet-C', partial(narrow, ResNeSt), (' ResNet, ', ' ResNeSt')),
        ('MobileNetV2', MobileNetV3, (' MobileNetV2, ', ' MobileNetV3')),
        ('MobileNetV3', MobileNetV2, (' MobileNetV3, ', ' MobileNetV2')),
        ('MobileNetV2', partial(MobileNetV2, 0.5), ('(32, 3, 3, 3)', '(16, 3, 3, 3)')),
        ('STDC', narrow, (' STDC, ', ' ResNet')),
        ('VGG', narrow, (' VGG, ', ' ResNet')),
        ('ResNet', partial(VGG, 11), (' ResNet, ', ' VGG')),
        ('VGG', partial(VGG, 13), ('VGG-11', 'VGG-13')),
        ('VGG', partial(VGG, 11, True), ('VGG-11 without', 'VGG-11 with norms')),
        ('VGG with norms', partial(VGG, 11), ('VGG-11 with norms', 'VGG-11 without')),
        ('Swin', narrow, (' Swin, ', ' ResNet')),
    ],
)
def test_other_networks(file, backbone, facts, tmp_path):
    refuse(backbone(), saved({'model': FILES[file]()}, tmp_path / 'a.pth'), *facts)
