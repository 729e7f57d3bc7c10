"""Which arguments the weights of a file need: the epsilon of LayerNorm, for timm's kin of ViTs."""

import pytest
import torch
from mistakes import mistake
from mmseg.models.backbones import SwinTransformer, VisionTransformer
from torch import nn

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint, needed_arguments

SMALL = dict(img_size=32, patch_size=8, embed_dims=16, num_layers=3, num_heads=2, final_norm=True)


@pytest.fixture
def file(tmp_path, vit_source):
    torch.save({'teacher': vit_source.state_dict()}, tmp_path / 'a.pth')
    return tmp_path / 'a.pth'


def test_what_is_returned_ends_the_difference(file):
    backbone = VisionTransformer(**SMALL)
    needed = needed_arguments(backbone, file)
    assert needed == load_backbone_checkpoint(backbone, file).arguments
    assert needed == {'norm_cfg': {'type': 'LN', 'eps': 1e-6}}
    fitted = VisionTransformer(**SMALL, **needed)
    assert {m.eps for m in fitted.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    assert needed_arguments(fitted, file) == {}


def test_an_outline_is_enough_and_the_weights_are_not_touched(file):
    assert 'norm_cfg' in needed_arguments(VisionTransformer(**SMALL).to('meta'), file)


def test_a_file_in_mmsegs_own_names_needs_nothing(tmp_path):
    backbone = VisionTransformer(**SMALL)
    torch.save(backbone.state_dict(), tmp_path / 'own.pth')
    assert needed_arguments(backbone, tmp_path / 'own.pth') == {}


def test_a_file_of_which_nothing_fits_needs_nothing(tmp_path):
    torch.save({'blocks.0.norm1.weight': torch.ones(3)}, tmp_path / 'b.pth')
    assert needed_arguments(VisionTransformer(**SMALL), tmp_path / 'b.pth') == {}


class Stubborn(VisionTransformer):
    """A backbone whose constructor has no argument for its norms."""

    def __init__(self):
        super().__init__(**SMALL)


def test_a_backbone_that_cannot_be_told_is_left_alone(file):
    assert needed_arguments(Stubborn(), file) == {}


def test_a_convention_without_an_epsilon_needs_nothing(tmp_path):
    swin = SwinTransformer(embed_dims=8, depths=(2, 2), num_heads=(2, 2), strides=(4, 2),
                           out_indices=(0, 1), window_size=4)  # fmt: skip
    torch.save({'model': swin.state_dict()}, tmp_path / 'swin.pth')
    assert needed_arguments(swin, tmp_path / 'swin.pth') == {}


@pytest.mark.parametrize('dot', ['', '.'])
def test_a_prefix_chooses_the_network(dot, tmp_path, vit_source):
    own = VisionTransformer(**SMALL).state_dict()
    torch.save({'a': own, 'b': vit_source.state_dict()}, tmp_path / 'two.pth')
    backbone = VisionTransformer(**SMALL)
    assert needed_arguments(backbone, tmp_path / 'two.pth', prefix='a' + dot) == {}
    assert 'norm_cfg' in needed_arguments(backbone, tmp_path / 'two.pth', prefix='b' + dot)


def test_an_unreadable_file_is_one_line():
    with mistake('nowhere.pth', 'no such file'):
        needed_arguments(VisionTransformer(**SMALL), 'nowhere.pth')
