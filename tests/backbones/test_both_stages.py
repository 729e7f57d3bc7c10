"""Every backbone class of mmseg's goes through both stages, from a real config that uses it."""

import pytest
from cases import BACKBONES, ELSEWHERE, PARTS, REFUSED, small_config
from mistakes import mistake
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from running import check_gradients, on_toy_data, run_both_stages, walk_but_for

from mm_tuning_plugin.engine import derive_tuning_config


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def test_every_registered_class_is_listed_once():
    import mmseg.models  # noqa: F401
    from mmseg.registry import MODELS

    home = 'mmseg.models.backbones'
    registered = [name for name, kind in MODELS.module_dict.items() if home in kind.__module__]
    assert sorted(registered) == sorted([*BACKBONES, *PARTS, *REFUSED, *ELSEWHERE])


# Its images have 400 x 400 pixels.
LARGE = ('MobileNetV3',)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', walk_but_for({*BACKBONES} - {*LARGE}, BACKBONES))
def test_both_stages(name, toy_cfg, monkeypatch):
    cfg = on_toy_data(small_config(BACKBONES[name]), toy_cfg)
    assert cfg.model.backbone.type == name
    run_both_stages(cfg, monkeypatch)


@pytest.mark.parametrize('name', BACKBONES)
def test_every_parameter_gets_a_gradient(name, toy_cfg):
    check_gradients(on_toy_data(small_config(BACKBONES[name]), toy_cfg))


@pytest.mark.parametrize('name', REFUSED)
def test_what_is_no_backbone_is_refused_in_one_line(name, toy_cfg):
    toy_cfg.model.backbone = dict(type=name)
    with mistake('model.backbone', name):
        derive_tuning_config(toy_cfg)


@pytest.mark.parametrize('name', ['UNet', 'DDRNet', 'PIDNet', 'BEiT', 'SwinTransformer'])
def test_retrieval_on_images_of_any_size(name, toy_cfg):
    """Whole images are seldom of sides that a backbone's divisor divides."""
    cfg = on_toy_data(small_config(BACKBONES[name]), toy_cfg)
    loader = toy_cfg.val_dataloader
    loader.dataset.pipeline.insert(1, dict(type='Resize', scale=(71, 53)))
    cfg.val_dataloader, cfg.val_cfg = loader, dict(type='ValLoop')
    cfg.val_evaluator = toy_cfg.val_evaluator
    cfg.mix_and_match.retrieval_images = 2
    runner = Runner.from_cfg(derive_tuning_config(cfg))
    runner.train()
    assert runner.iter == 2
    assert any(key.startswith('val/') for key in runner.message_hub.log_scalars)
