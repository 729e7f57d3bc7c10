"""The derived config builds the backbone as its start's weights need it; the user is told."""

import copy
import logging
import random

import numpy as np
import pytest
import torch
from checkpoint.reference_networks import TimmViT, randomise
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mm_tuning_plugin.engine import MixAndMatchRunner, derive_tuning_config
from mm_tuning_plugin.engine.outline import outline
from mm_tuning_plugin.engine.start import differing_arguments
from mm_tuning_plugin.registry import MODELS

FITTED = dict(type='LN', eps=1e-6)


@pytest.fixture
def vit_cfg(toy_cfg, tmp_path):
    """The toy project with a tiny ViT and a start in timm's names."""
    with torch.no_grad():
        torch.save(randomise(TimmViT(), seed=3).state_dict(), tmp_path / 'start.pth')
    toy_cfg.model.backbone = dict(
        type='VisionTransformer', img_size=48, patch_size=8, embed_dims=16, num_layers=3,
        num_heads=2, final_norm=True, out_indices=(2,), drop_path_rate=0.1,
    )  # fmt: skip
    toy_cfg.model.decode_head.update(in_channels=16, in_index=0)
    toy_cfg.train_cfg.max_iters = toy_cfg.train_cfg.val_interval = 1
    toy_cfg.mix_and_match.update(
        checkpoint=str(tmp_path / 'start.pth'), max_iters=1, images_per_batch=2,
        retrieval_images=0, bn_crops=0,
    )  # fmt: skip
    return toy_cfg


@pytest.fixture
def warned(monkeypatch):
    from mm_tuning_plugin.engine import runner

    said = []
    monkeypatch.setattr(runner, 'warn', said.append)
    return said


def test_stage_one_is_derived_with_the_arguments_and_the_users_config_stays(vit_cfg):
    before = copy.deepcopy(vit_cfg.to_dict())
    state = torch.get_rng_state()
    derived = derive_tuning_config(vit_cfg)
    assert derived.model.backbone.norm_cfg == FITTED
    assert vit_cfg.to_dict() == before
    assert torch.equal(torch.get_rng_state(), state)
    with DefaultScope.overwrite_default_scope('mmseg'):
        tuner = MODELS.build(derived.model)
    assert {m.eps for m in tuner.backbone.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    tuner.init_weights()
    assert not tuner.load_report.notes


class Drawing(nn.Module):
    """A backbone whose constructor draws numbers, as those of many transformers do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1000, 1000)
        self.rate = float(torch.rand(1)) + np.random.rand() + random.random()


def test_an_outline_holds_no_weights_and_moves_no_random_state():
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = random.random(), np.random.rand(), float(torch.rand(1))
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    built = outline(dict(type=Drawing))
    assert (random.random(), np.random.rand(), float(torch.rand(1))) == expected
    assert built.layer.weight.is_meta and built.layer.weight.shape == (1000, 1000)


def test_a_config_that_has_them_is_left_alone(vit_cfg, warned):
    vit_cfg.model.backbone.norm_cfg = dict(type='LN', eps=1e-6, requires_grad=True)
    assert derive_tuning_config(vit_cfg).model.backbone == vit_cfg.model.backbone
    MixAndMatchRunner.from_cfg(vit_cfg).train()
    assert not [line for line in warned if 'norm_cfg' in line]


def test_a_start_that_the_config_names_itself_counts_too(vit_cfg):
    vit_cfg.model.pretrained = vit_cfg.mix_and_match.pop('checkpoint')
    assert derive_tuning_config(vit_cfg).model.backbone.norm_cfg == FITTED


@pytest.mark.parametrize('spoil', ['file', 'backbone', 'prefix'])
def test_what_is_broken_is_left_to_those_who_name_it(vit_cfg, tmp_path, spoil):
    if spoil == 'file':
        (tmp_path / 'start.pth').write_text('no weights')
    elif spoil == 'backbone':
        vit_cfg.model.backbone.no_such_argument = 1
    else:
        vit_cfg.mix_and_match.checkpoint_prefix = 'not.there'
    assert 'norm_cfg' not in derive_tuning_config(vit_cfg).model.backbone


def test_both_arms_are_told_once_and_a_finished_tuning_is_used_again(vit_cfg, warned, tmp_path):
    MixAndMatchRunner.from_cfg(vit_cfg).train()
    written = Config.fromfile(f'{vit_cfg.work_dir}/tuning/tuning_config.py')
    assert written.model.backbone.norm_cfg == FITTED
    expected = (
        "model.backbone.norm_cfg: None found, expected {'type': 'LN', 'eps': 1e-06}, with which "
        f'the weights of {tmp_path}/start.pth mean the same; set it in your config: fine-tuning '
        'follows that, only tuning sets it by itself'
    )
    assert [line for line in warned if 'norm_cfg' in line] == [expected]
    tuned = tmp_path / 'work' / 'tuning' / 'tuned_backbone.pth'
    made = tuned.stat().st_mtime_ns

    runner = MixAndMatchRunner.from_cfg(vit_cfg)
    runner.train()
    assert runner.stages['tuning']['reused'] and tuned.stat().st_mtime_ns == made

    warned.clear()
    vit_cfg.mix_and_match.enabled = False
    vit_cfg.work_dir = str(tmp_path / 'direct')
    MixAndMatchRunner.from_cfg(vit_cfg).train()
    assert [line for line in warned if 'norm_cfg' in line] == [expected]


def test_a_tuning_is_resumed_with_its_arguments(vit_cfg):
    vit_cfg.mix_and_match.update(max_iters=2, checkpoint_interval=1)
    MixAndMatchRunner.from_cfg(vit_cfg).train()
    tuning = MixAndMatchRunner.from_cfg(vit_cfg).tuning_dir
    (tuning / 'tuned_backbone.pth').unlink()
    (tuning / 'iter_2.pth').unlink()
    (tuning / 'last_checkpoint').write_text(str(tuning / 'iter_1.pth'))
    vit_cfg.resume = True
    runner = MixAndMatchRunner.from_cfg(vit_cfg)
    runner.train()
    assert 'reused' not in runner.stages['tuning'] and (tuning / 'iter_2.pth').is_file()


def test_what_loads_weights_is_no_difference():
    users = dict(type='A', pretrained='x', init_cfg=dict(type='Pretrained', checkpoint='x'), d=1)
    assert differing_arguments(users, dict(type='A', pretrained=None, d=1)) == {}
    assert differing_arguments(users, dict(type='A', pretrained=None, d=2)) == {'d': 2}


def test_the_warning_is_logged_as_one(vit_cfg, caplog):
    from mmengine.logging import MMLogger

    runner = MixAndMatchRunner.from_cfg(vit_cfg)
    logger = MMLogger.get_instance('told')
    logger.addHandler(caplog.handler)
    runner._warn_of_arguments()
    assert [r.levelno for r in caplog.records if 'norm_cfg' in r.message] == [logging.WARNING]
