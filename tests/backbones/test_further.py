"""timm's and mmpretrain's backbones through both stages; what gives no maps is refused."""

import re
import sys
from pathlib import Path

import mmseg
import pytest
import torch
from cases import SIZE, small_config
from cases_further import CHANNELS_LAST, NO_MAPS, PRETRAIN, TIMM, pretrain
from mistakes import mistake
from mmengine.registry import DefaultScope
from running import check_gradients, on_toy_data, run_both_stages, walk_but_for
from stubbed import import_further, stubbed_torchvision
from torch import nn

from mm_tuning_plugin.cli.sweep import DERIVED, derive_one
from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.engine.preflight.channel_order import check_readers
from mm_tuning_plugin.registry import MODELS

CASES = {**TIMM, **{f'mmpretrain.{name}': case for name, case in PRETRAIN.items()}}
# One of each kind of what docs/backbones.md tells of them; the others go through both stages on the
# walk, and are built and differentiated in any case.
KINDS = (
    'TIMMBackbone resnet', 'TIMMBackbone vit', 'TIMMBackbone swin',
    'mmpretrain.BEiTViT',  # a fixed size
    'mmpretrain.ConvNeXt',  # a real config, with a neck's worth of levels
    'mmpretrain.DaViT',  # sides that 32 divides
    'mmpretrain.LeViT',  # a fixed size of its own
    'mmpretrain.MobileNetV3',  # parameters behind no output
    'mmpretrain.RIFormer',  # parameters behind outputs that are not read
    'mmpretrain.ResNet',
    'mmpretrain.RevVisionTransformer',  # a backward pass of its own
    'mmpretrain.VisionTransformer',
)  # fmt: skip


@pytest.fixture(scope='module', autouse=True)
def further():
    import_further()


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def test_the_stub_does_nothing_and_leaves_no_trace():
    with stubbed_torchvision():
        from torchvision.transforms import Resize

        with pytest.raises(RuntimeError, match='stub'):
            Resize(3)
    assert not [name for name in sys.modules if name.split('.')[0] == 'torchvision']
    with pytest.raises(ImportError):
        import torchvision  # noqa: F401


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', CASES)
def test_every_parameter_gets_a_gradient(name, toy_cfg):
    check_gradients(on_toy_data(small_config(CASES[name]), toy_cfg))


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', walk_but_for(KINDS, CASES))
def test_both_stages(name, toy_cfg, monkeypatch):
    run_both_stages(on_toy_data(small_config(CASES[name]), toy_cfg), monkeypatch)


class ToFront(nn.Module):
    """A neck of the user's, behind which mmseg's heads read right."""

    def forward(self, levels):
        return tuple(level.permute(0, 3, 1, 2) for level in levels)


@pytest.mark.parametrize('name', CHANNELS_LAST)
def test_channels_last_are_tuned_as_first_and_refused_for_a_head_of_mmsegs(name, toy_cfg):
    torch.manual_seed(0)
    cfg = on_toy_data(small_config(CHANNELS_LAST[name]), toy_cfg)
    model = MODELS.build(derive_tuning_config(cfg).model)
    network = model.backbone.timm_model
    assert set(model.channel_dims) == {3}
    with mistake('model.backbone', 'FCNHead', "feature_cls='getter'"):
        check_readers(cfg.model, model, 'mmseg')
    check_readers(dict(cfg.model, neck=dict(type=ToFront)), model, 'mmseg')
    # with what the line says, the same weights give the same maps, in mmseg's order
    cfg.model.backbone.feature_cls = 'getter'
    other = MODELS.build(derive_tuning_config(cfg).model)
    assert set(other.channel_dims) == {1}
    check_readers(cfg.model, other, 'mmseg')
    renamed = {re.sub(r'^(layers|stages)_', r'\1.', k): v for k, v in network.state_dict().items()}
    other.backbone.timm_model.model.load_state_dict(renamed)
    image = torch.randn(2, 3, SIZE, SIZE)
    found, expected = (m.eval()._select(m._outputs(image)) for m in (model, other))
    assert [level.shape[1] for level in found] == network.feature_info.channels()[-1:]
    assert all(torch.equal(one, two) for one, two in zip(found, expected))


@pytest.mark.parametrize('name', NO_MAPS)
def test_what_gives_no_maps_is_refused_in_one_line(name, toy_cfg):
    options, expected = NO_MAPS[name]
    toy_cfg.model.backbone = dict(pretrain(name, **options).backbone)
    toy_cfg.model.backbone.pop('_delete_')
    toy_cfg.model.decode_head.in_index = -1
    with mistake(re.compile('backbone$'), name, expected):
        MODELS.build(derive_tuning_config(toy_cfg).model)


CONFIGS = Path(mmseg.__path__[0], '.mim', 'configs')
IMPORTING = [
    path
    for path in sorted(CONFIGS.rglob('*.py'))
    if '_base_' not in path.parts and 'mmpretrain' in path.read_text(encoding='utf-8')
]


@pytest.mark.parametrize('path', IMPORTING, ids=lambda path: path.stem)
def test_configs_that_import_mmpretrain_are_derived(path):
    with stubbed_torchvision():
        outcome = derive_one(path, path.name)
    assert outcome.status == DERIVED, outcome.reason
