"""A rate of 0 over the whole backbone is for fine-tuning; over a part of it, for both stages."""

import copy

import pytest
import torch
from mistakes import mistake
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from mm_tuning_plugin.engine import MixAndMatchRunner, derive_tuning_config
from mm_tuning_plugin.engine.config.learning_rates import (
    describe_thawed,
    optimizer_over,
    trains_backbone,
    zero_rates,
)

BEIT = dict(type='BEiT', img_size=(32, 32), patch_size=8, embed_dims=16, num_layers=2, num_heads=2)
ADAMW = dict(type='AdamW', lr=1e-3, weight_decay=0.05)
STAGES = [f'backbone.layer{i}' for i in (1, 2, 3, 4)]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class Bare(DefaultOptimWrapperConstructor):
    """A constructor of the user's that knows an option of its own."""

    def add_params(self, params, module, prefix='', is_dcn_module=None):
        rate = self.base_lr * self.paramwise_cfg['mine']
        params.append(dict(params=list(module.parameters()), lr=rate))


def custom(**entries):
    return dict(custom_keys={name.replace('__', '.'): value for name, value in entries.items()})


def derived(cfg, paramwise, **wrapper):
    cfg = copy.deepcopy(cfg)
    cfg.optim_wrapper.update(paramwise_cfg=copy.deepcopy(paramwise), **wrapper)
    before = cfg.to_dict()
    found = derive_tuning_config(cfg)
    assert cfg.to_dict() == before
    return found.optim_wrapper.to_dict()


ZERO, FLOAT, TENTH = dict(lr_mult=0), dict(lr_mult=0.0), dict(lr_mult=0.1)


@pytest.mark.parametrize(
    ('paramwise', 'left'),
    [
        (custom(backbone=ZERO), custom()),
        (custom(backbone=FLOAT, decode_head=TENTH), custom(decode_head=TENTH)),
        (custom(backbone=dict(lr_mult=0, decay_mult=0)), custom(backbone=dict(decay_mult=0))),
        (custom(backbone=dict(lr=0.0)), custom()),
        (custom(backbone__=ZERO), custom()),
        (custom(ackbon=ZERO), custom()),
        # none of these alone is the backbone, all of them are
        (dict(custom_keys={**dict.fromkeys(STAGES, ZERO), 'conv1': ZERO, 'bn1': ZERO}), custom()),
        (custom(backbone=ZERO, backbone__layer4=dict(lr_mult=0, decay_mult=2)),
         custom(backbone__layer4=dict(decay_mult=2))),
        (custom(weight=ZERO) | dict(bias_lr_mult=0), None),  # norms keep their biases
        (custom(weight=ZERO, bias=ZERO), custom()),
        (custom(backbone=ZERO, norm=dict(decay_mult=0)), custom(norm=dict(decay_mult=0))),
        (custom(backbone=ZERO, decode_head=ZERO), custom(decode_head=ZERO)),
        # a part: kept
        (custom(backbone__layer1=ZERO), None),
        (custom(backbone=ZERO, backbone__layer4=TENTH), None),  # the longest key counts
        (custom(backbone=ZERO, bias=TENTH), custom(bias=TENTH)),  # shorter keys do not
        (custom(decode_head=ZERO), None),
        (dict(bias_lr_mult=0.0), None),
        (custom(backbone=TENTH), None),
        (custom(backbone=dict(decay_mult=0)), None),
        (dict(norm_decay_mult=0.0), None),
    ],
)  # fmt: skip
def test_what_is_left_of_zeros(toy_cfg, paramwise, left):
    toy_cfg.optim_wrapper.optimizer = dict(ADAMW)
    found = derived(toy_cfg, paramwise)
    assert found['paramwise_cfg'] == (paramwise if left is None else left)
    plain = derived(toy_cfg, {})
    assert {**found, 'paramwise_cfg': {}} == plain


@pytest.mark.parametrize(
    ('constructor', 'option'),
    [('LearningRateDecayOptimizerConstructor', 'decay_rate'),
     ('LayerDecayOptimizerConstructor', 'layer_decay_rate')],
)  # fmt: skip
def test_rates_by_layer(toy_cfg, constructor, option):
    toy_cfg.model.backbone = dict(BEIT)
    toy_cfg.optim_wrapper.optimizer = dict(ADAMW)
    wrapper = dict(constructor=constructor)
    paramwise = dict(num_layers=2, decay_type='layer_wise_vit')
    found = derived(toy_cfg, {**paramwise, option: 0.0}, **wrapper)
    assert found['paramwise_cfg'] == {**paramwise, option: 1.0}
    found = derived(toy_cfg, {**paramwise, option: 0.5}, **wrapper)
    assert found['paramwise_cfg'] == {**paramwise, option: 0.5}
    # the norm behind the last layer counts as a head's: it trains at a rate of 0 ** 0
    toy_cfg.model.backbone.final_norm = True
    found = derived(toy_cfg, {**paramwise, option: 0.0}, **wrapper)
    assert found['paramwise_cfg'] == {**paramwise, option: 0.0}


def test_frozen_stages_and_a_rate_of_0_are_the_whole_together(toy_cfg):
    toy_cfg.model.backbone.frozen_stages = 3
    assert derived(toy_cfg, custom(backbone__layer4=ZERO))['paramwise_cfg'] == custom()


def test_a_backbone_that_cannot_be_built_is_named_by_who_builds_it(toy_cfg):
    toy_cfg.model.backbone.no_such_argument = 1
    assert derived(toy_cfg, custom(backbone=ZERO))['paramwise_cfg'] == custom(backbone=ZERO)


def test_the_optimizer_over_the_outline_has_the_rates_of_the_config(toy_cfg):
    wrapper = dict(optimizer=dict(type='SGD', lr=2.0), paramwise_cfg=custom(backbone__layer1=TENTH))
    built, tuner = optimizer_over(toy_cfg.model.backbone, wrapper, 'mmseg')
    names = {id(parameter): name for name, parameter in tuner.named_parameters()}
    groups = built.optimizer.param_groups
    rates = {names[id(p)]: group['lr'] for group in groups for p in group['params']}
    assert sorted(rates) == sorted(names.values())
    assert all(rate == (0.2 if '.layer1.' in name else 2.0) for name, rate in rates.items())


def test_the_places_of_zeros_and_the_line_about_them():
    given = dict(paramwise_cfg=dict(custom_keys={'a.b': ZERO, 'c': TENTH}, bias_lr_mult=0))
    assert zero_rates(given) == [('custom_keys', 'a.b', 'lr_mult'), ('bias_lr_mult',)]
    assert zero_rates({}) == zero_rates(dict(paramwise_cfg=None)) == []
    line = describe_thawed(given, dict(paramwise_cfg=dict(bias_lr_mult=0)))
    assert line.startswith('optim_wrapper.paramwise_cfg: ')
    assert "custom_keys['a.b'].lr_mult=0" in line and 'bias' not in line
    assert describe_thawed(given, given) == ''


def test_what_an_optimizer_moves():
    model = nn.Module()
    model.backbone, model.head = nn.Linear(2, 2), nn.Linear(2, 2)
    backbone, head = list(model.backbone.parameters()), list(model.head.parameters())

    def groups(rate, **more):
        return [dict(params=backbone, lr=rate, **more), dict(params=head, lr=1.0)]

    assert trains_backbone(groups(0.1), model)
    assert not trains_backbone(groups(0.0), model)
    assert trains_backbone(groups(0.0, initial_lr=0.1), model)  # warming up
    assert not trains_backbone(groups(0.1, initial_lr=0.0), model)
    assert trains_backbone([*groups(0.0), dict(params=backbone[:1], lr=1)], model)
    assert not trains_backbone([dict(params=head, lr=1.0)], model)
    assert trains_backbone(dict(one=groups(0.1), other=groups(0.0)[1:]), model)
    shards = [nn.Parameter(torch.zeros(2))]
    assert trains_backbone([dict(params=shards, lr=0.1)], model)
    model.backbone.requires_grad_(False)
    assert not trains_backbone(groups(0.1), model)


@pytest.mark.parametrize('enabled', [True, False])
def test_a_run_tunes_and_then_freezes(toy_cfg, capfd, enabled):
    toy_cfg.optim_wrapper.paramwise_cfg = custom(backbone=ZERO)
    toy_cfg.mix_and_match.update(max_iters=1, retrieval_images=0, enabled=enabled)
    toy_cfg.train_cfg.max_iters, toy_cfg.val_cfg = 1, None
    toy_cfg.val_dataloader = toy_cfg.val_evaluator = None
    model = MixAndMatchRunner.from_cfg(toy_cfg).train()
    place = 'optim_wrapper.paramwise_cfg: '
    told = [line for line in capfd.readouterr().out.splitlines() if place in line]
    assert all("custom_keys['backbone'].lr_mult=0" in line for line in told)
    assert len(told) == int(enabled) and all(' WARNING ' in line for line in told)
    if enabled:
        path = f'{toy_cfg.work_dir}/tuning/tuned_backbone.pth'
        tuned = torch.load(path, weights_only=True)
        assert tuned['meta']['hash_before'] != tuned['meta']['hash_after']
        weights = dict(model.backbone.named_parameters())
        assert all(torch.equal(weights[k], tuned['state_dict'][k]) for k in weights)


@pytest.mark.parametrize(
    'wrapper',
    [
        dict(optimizer=dict(ADAMW, lr=0.0)),
        dict(optimizer=ADAMW, constructor='Bare', paramwise_cfg=dict(mine=0)),
    ],
)
def test_nothing_that_would_move_is_told_before_it_begins(toy_cfg, wrapper):
    toy_cfg.optim_wrapper = dict(type='OptimWrapper', **copy.deepcopy(wrapper))
    toy_cfg.mix_and_match.update(max_iters=1, retrieval_images=0)
    with mistake('optim_wrapper', ['0', 'backbone'], 'mix_and_match.lr'):
        MixAndMatchRunner.from_cfg(toy_cfg).tune()
