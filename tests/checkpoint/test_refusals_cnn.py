"""CNNs that must be refused: in one line with the nearest explanation, the backbone as it was."""

import pytest
import torch
from loading import refuse, under
from mmseg.models.backbones import ResNet, ResNetV1c, ResNetV1d, VisionTransformer

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint
from mm_tuning_plugin.errors import UserError


def test_plain_file_into_deep_stem_is_refused(tmp_path, resnet_source):
    torch.save(resnet_source.state_dict(), tmp_path / 'a.pth')
    refuse(ResNetV1c(depth=18), tmp_path / 'a.pth', "'stem' finds 0 of", "plain stem 'conv1'")


def test_deep_stem_file_into_plain_resnet_is_refused(tmp_path):
    torch.save(ResNetV1c(depth=18).state_dict(), tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', "'stem' finds 0 of", 'has the deep stem')


@pytest.mark.parametrize('depths', [(18, 50), (50, 18), (34, 50), (18, 34), (34, 18)])
def test_other_depth_is_refused(depths, tmp_path):
    """34 -> 18 too: each tensor of the shallow one finds its place, but it is another network."""
    found, wanted = depths
    torch.save({'model': ResNet(depth=found).state_dict()}, tmp_path / 'a.pth')
    backbone = ResNet(depth=wanted)
    refuse(backbone, tmp_path / 'a.pth', f'ResNet-{found}', f'ResNet-{wanted}')


def test_one_surplus_block_is_refused_though_nearly_all_is_used(tmp_path, resnet_source):
    weights = dict(resnet_source.state_dict())
    weights['layer1.2.bn1.weight'] = torch.ones(64)
    torch.save(weights, tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', "goes on with 'layer1.2'")


def test_parameters_inside_a_stage_without_a_place_are_refused(tmp_path, resnet_source):
    weights = dict(resnet_source.state_dict())
    weights['layer1.0.se.weight'] = torch.ones(200, 200)
    torch.save(weights, tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', "stage 'layer1' 40,000 of 187,968")


def test_other_shortcut_is_refused(tmp_path):
    torch.save(ResNetV1d(depth=18).state_dict(), tmp_path / 'a.pth')
    refuse(ResNetV1c(depth=18), tmp_path / 'a.pth', 'ResNetV1d')


def test_other_width_is_refused(tmp_path):
    torch.save(
        ResNet(depth=18, base_channels=32, stem_channels=32).state_dict(), tmp_path / 'a.pth'
    )
    refuse(ResNet(depth=18), tmp_path / 'a.pth', 'is 32 channels wide, the backbone 64')


def test_segmentor_of_another_backbone_is_refused(tmp_path):
    weights = under('backbone.', ResNet(depth=50).state_dict())
    weights['decode_head.conv_seg.weight'] = torch.ones(2, 2, 1, 1)
    torch.save({'state_dict': weights}, tmp_path / 'a.pth')
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dims=16, num_layers=1, num_heads=2)
    refuse(vit, tmp_path / 'a.pth', 'holds a ResNet, the backbone is a ViT', 'whole segmentor')


def test_a_misfit_of_no_known_kind_shows_one_tensor(tmp_path, resnet_source):
    """The small stem that is used for CIFAR."""
    weights = {**resnet_source.state_dict(), 'conv1.weight': torch.ones(64, 3, 3, 3)}
    torch.save(weights, tmp_path / 'a.pth')
    words = "e.g. 'conv1.weight' is (64, 3, 3, 3) in the file, (64, 3, 7, 7) in the backbone"
    refuse(ResNet(depth=18), tmp_path / 'a.pth', "stage 'stem'", words)


def test_names_that_mean_nothing_load_nothing(tmp_path, resnet_source):
    """What `init_cfg=dict(type='Pretrained')` accepts in silence."""
    weights = {name.replace('.', '_'): v for name, v in resnet_source.state_dict().items()}
    torch.save({'state_dict': weights}, tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', 'none of its 122 tensors fits ResNet')


def test_a_missing_stage_is_refused_and_min_matched_is_per_stage(tmp_path, resnet_source):
    """The stem is 0.1% of a ResNet: a share over the whole network would not notice it."""
    weights = {k: v for k, v in resnet_source.state_dict().items() if not k.startswith('conv1')}
    torch.save(weights, tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', "stage 'stem' finds 128 of 9,536 parameters (1%)")
    report = load_backbone_checkpoint(ResNet(depth=18), tmp_path / 'a.pth', min_matched=0.01)
    assert report.stages['stem'] == (128, 9536)
    assert report.missing == ('conv1.weight',)


def test_min_matched_is_a_share(tmp_path, resnet_source):
    torch.save(resnet_source.state_dict(), tmp_path / 'a.pth')
    with pytest.raises(UserError, match=r'min_matched must be a share in \[0, 1\], got 90'):
        load_backbone_checkpoint(ResNet(depth=18), tmp_path / 'a.pth', min_matched=90)


def test_not_finite_is_refused(tmp_path, resnet_source):
    weights = dict(resnet_source.state_dict())
    weights['layer4.1.bn2.bias'] = torch.full((512,), float('nan'))
    torch.save(weights, tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', 'layer4.1.bn2.bias holds NaN')
