"""timm's and mmpretrain's backbones through both stages; what gives no maps is refused."""

import sys

import pytest
from cases import small_config
from cases_further import NO_MAPS, PRETRAIN, TIMM, pretrain
from mmengine.registry import DefaultScope
from running import check_gradients, on_toy_data, run_both_stages
from stubbed import import_further, stubbed_torchvision

from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.registry import MODELS

CASES = {**TIMM, **{f'mmpretrain.{name}': case for name, case in PRETRAIN.items()}}


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
def test_both_stages(name, toy_cfg, monkeypatch):
    cfg = on_toy_data(small_config(CASES[name]), toy_cfg)
    check_gradients(cfg)
    run_both_stages(cfg, monkeypatch)


@pytest.mark.parametrize('name', NO_MAPS)
def test_what_gives_no_maps_is_refused_in_one_line(name, toy_cfg):
    options, expected = NO_MAPS[name]
    toy_cfg.model.backbone = dict(pretrain(name, **options).backbone)
    toy_cfg.model.backbone.pop('_delete_')
    toy_cfg.model.decode_head.in_index = -1
    with pytest.raises(UserError) as caught:
        MODELS.build(derive_tuning_config(toy_cfg).model)
    line = str(caught.value)
    assert line.startswith(f'backbone: {name} ') and line.endswith(expected) and '\n' not in line
