"""What weights cannot carry reaches stage one's config, and the user for stage two's."""

import copy
import re

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from mm_tuning_plugin.engine import MixAndMatchRunner, derive_tuning_config

VIT = dict(
    type='VisionTransformer',
    img_size=(64, 64),
    patch_size=16,
    embed_dims=16,
    num_layers=2,
    num_heads=2,
    out_indices=(1,),
)
TIMM = (
    (r'^layers\.', 'blocks.'),
    (r'\.ln([12])\.', r'.norm\1.'),
    (r'\.attn\.attn\.in_proj_', '.attn.qkv.'),
    (r'\.attn\.attn\.out_proj\.', '.attn.proj.'),
    (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
    (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
    (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
)


@pytest.fixture
def cfg(toy_cfg, tmp_path):
    """The toy project with a ViT that starts from a file in timm's names."""
    toy_cfg.model.backbone = dict(VIT)
    toy_cfg.model.decode_head.update(in_channels=16, in_index=0)
    toy_cfg.model.pop('auxiliary_head', None)
    weights = {}
    for name, value in MODELS.build(dict(VIT)).state_dict().items():
        for pattern, replacement in TIMM:
            name = re.sub(pattern, replacement, name)
        weights[name] = value + 0.1
    torch.save({'teacher': weights}, tmp_path / 'dino.pth')
    toy_cfg.mix_and_match.checkpoint = str(tmp_path / 'dino.pth')
    toy_cfg.mix_and_match.max_iters = 1
    toy_cfg.train_cfg.max_iters = 1
    return toy_cfg


def norm_of(cfg):
    return derive_tuning_config(cfg).model.backbone.get('norm_cfg')


def test_the_derived_config_sets_it(cfg):
    before = copy.deepcopy(cfg.to_dict())
    state = torch.get_rng_state()
    assert norm_of(cfg) == dict(type='LN', eps=1e-6)
    assert torch.equal(torch.get_rng_state(), state)
    assert cfg.to_dict() == before
    cfg.model.backbone.norm_cfg = dict(type='LN', eps=1e-3, requires_grad=False)
    assert norm_of(cfg) == dict(type='LN', eps=1e-6, requires_grad=False)


def test_nothing_is_set_where_nothing_is_amiss(cfg, tmp_path):
    cfg.model.backbone.norm_cfg = dict(type='LN', eps=1e-6)
    assert norm_of(cfg) == dict(type='LN', eps=1e-6)
    del cfg.model.backbone['norm_cfg']
    start = cfg.mix_and_match.pop('checkpoint')
    assert norm_of(cfg) is None
    # mmseg's own names say nothing of where the weights come from
    torch.save(MODELS.build(dict(VIT)).state_dict(), tmp_path / 'mmseg.pth')
    cfg.mix_and_match.checkpoint = str(tmp_path / 'mmseg.pth')
    assert norm_of(cfg) is None
    # a file that cannot be read is named by who loads it
    cfg.mix_and_match.checkpoint = start
    with open(start, 'r+b') as file:
        file.truncate(100)
    assert norm_of(cfg) is None


@pytest.mark.parametrize('tuned', [True, False])
def test_both_arms_tell_the_user(tuned, cfg, capfd):
    cfg.mix_and_match.enabled = tuned
    capfd.readouterr()
    MixAndMatchRunner.from_cfg(copy.deepcopy(cfg)).train()
    captured = capfd.readouterr()
    lines = (captured.out + captured.err).splitlines()
    (line,) = [text for text in lines if 'model.backbone: ' in text]
    assert 'norm_cfg=None' in line and "norm_cfg=dict(type='LN', eps=1e-06)" in line
    # once the user has set it, nothing is said, and a tuning is another one
    cfg.model.backbone.norm_cfg = dict(type='LN', eps=1e-6)
    cfg.work_dir += '_set'
    capfd.readouterr()
    MixAndMatchRunner.from_cfg(copy.deepcopy(cfg)).train()
    captured = capfd.readouterr()
    assert 'model.backbone: ' not in captured.out + captured.err


def test_the_tuner_has_it_and_a_finished_tuning_is_used_again(cfg):
    MixAndMatchRunner.from_cfg(copy.deepcopy(cfg)).train()
    written = Config.fromfile(f'{cfg.work_dir}/tuning/tuning_config.py')
    norms = [
        m for m in MODELS.build(written.model.backbone).modules() if 'LayerNorm' in str(type(m))
    ]
    assert norms and {norm.eps for norm in norms} == {1e-6}
    again = MixAndMatchRunner.from_cfg(copy.deepcopy(cfg))
    again.train()
    assert again.stages['tuning']['reused']


@pytest.mark.parametrize('prefix', ['teacher', 'teacher.'])
def test_a_given_prefix_is_followed(cfg, prefix):
    cfg.mix_and_match.checkpoint_prefix = prefix
    assert norm_of(cfg) == dict(type='LN', eps=1e-6)
    cfg.mix_and_match.checkpoint_prefix = 'not.there'  # named by who loads it
    assert norm_of(cfg) is None


def test_a_backbone_that_cannot_be_built_is_named_by_who_builds_it(cfg):
    cfg.model.backbone.no_such_argument = 1
    assert norm_of(cfg) is None


def test_a_start_that_the_config_names_itself_counts_too(cfg):
    cfg.model.pretrained = cfg.mix_and_match.pop('checkpoint')
    assert norm_of(cfg) == dict(type='LN', eps=1e-6)


def test_a_tuning_is_resumed_with_it(cfg):
    cfg.mix_and_match.update(max_iters=2, checkpoint_interval=1)
    MixAndMatchRunner.from_cfg(copy.deepcopy(cfg)).train()
    cfg.resume = True
    runner = MixAndMatchRunner.from_cfg(copy.deepcopy(cfg))
    for name in ('tuned_backbone.pth', 'iter_2.pth'):
        (runner.tuning_dir / name).unlink()
    (runner.tuning_dir / 'last_checkpoint').write_text(str(runner.tuning_dir / 'iter_1.pth'))
    runner.train()
    assert 'reused' not in runner.stages['tuning'] and (runner.tuning_dir / 'iter_2.pth').is_file()
