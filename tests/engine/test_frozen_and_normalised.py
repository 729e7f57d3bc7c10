"""Frozen stages, norms, stochastic depth, checkpointing: stage one treats them as the user's run.

Each test runs a real stage one of two steps, on a real backbone of mmseg's at a tiny width.
"""

import copy
import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from gloo import end_group
from mistakes import mistake
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.runner import runner as runner_module
from mmseg.registry import MODELS
from tiny import MIT, SWIN
from torch import nn

from mm_tuning_plugin.checkpoint import load_backbone_strict
from mm_tuning_plugin.engine import MixAndMatchRunner, derive_tuning_config
from mm_tuning_plugin.engine.config import user_config

BN = {'type': 'BN', 'requires_grad': True}
RESNET = {
    'type': 'ResNet', 'depth': 18, 'stem_channels': 8, 'base_channels': 8, 'norm_cfg': BN,
}  # fmt: skip
MOBILENET = {'type': 'MobileNetV2', 'widen_factor': 0.25, 'out_indices': (6,), 'norm_cfg': BN}


class Watch(Hook):
    """What trains at each step, and every state around the training."""

    priority = 'VERY_LOW'

    def before_train(self, runner):
        self.before = {k: v.clone() for k, v in runner.model.backbone.state_dict().items()}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.trained = who_trains(runner.model.backbone)

    def after_train(self, runner):
        self.after = {k: v.clone() for k, v in runner.model.backbone.state_dict().items()}


def who_trains(backbone):
    """Names of the parameters that take a gradient, and of the modules in training mode."""
    return (
        {name for name, p in backbone.named_parameters() if p.requires_grad},
        {name for name, module in backbone.named_modules() if module.training},
    )


def stage_one(cfg, backbone, **options):
    """Two steps of tuning; the Runner and what was watched."""
    cfg = copy.deepcopy(cfg)
    cfg.model.backbone = dict(backbone)
    cfg.model.decode_head.in_index = -1
    cfg.mix_and_match.update({'max_iters': 2, 'retrieval_images': 0, **options})
    runner = Runner.from_cfg(derive_tuning_config(cfg))
    watch = Watch()
    runner.register_hook(watch)
    runner.train()
    return runner, watch


def users_backbone(backbone):
    """The user's own model as his run trains it, of which stage one sees the backbone alone."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(dict(backbone))
    model.train()
    return model


def stays(backbone):
    """Names of all states that the user's run keeps: frozen weights, statistics of frozen norms."""
    weights = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    constants = {
        name
        for name, _ in backbone.named_buffers()
        if name.endswith('relative_position_index')
        or not backbone.get_submodule(name.rpartition('.')[0]).training
    }
    return weights | constants


def changed(watch):
    return {name for name in watch.before if not torch.equal(watch.before[name], watch.after[name])}


@pytest.mark.parametrize(
    ('backbone', 'frozen', 'moving'),
    [
        ({**RESNET, 'frozen_stages': 2}, ('conv1', 'bn1', 'layer1', 'layer2'), set()),
        ({**RESNET, 'frozen_stages': 0, 'type': 'ResNetV1c'}, ('stem',), set()),
        (
            {**SWIN, 'frozen_stages': 2, 'out_indices': (0, 3)},
            ('patch_embed', 'stages.0', 'stages.1', 'norm0'),
            set(),
        ),
        # mmseg's own leaves the statistics of this stem in training
        (
            {**MOBILENET, 'frozen_stages': 3},
            ('conv1', 'layer1', 'layer2', 'layer3'),
            {f'conv1.bn.{name}' for name in ('running_mean', 'running_var', 'num_batches_tracked')},
        ),
    ],
    ids=['resnet', 'deep stem', 'swin', 'mobilenet'],
)
def test_frozen_stages_stay_to_the_bit_and_the_rest_trains(toy_cfg, backbone, frozen, moving):
    _, watch = stage_one(toy_cfg, backbone)
    theirs = users_backbone(backbone)
    assert watch.trained == who_trains(theirs)
    stay = stays(theirs)
    assert changed(watch) == set(watch.before) - stay
    named = {name for name in watch.before if name.startswith(tuple(f'{f}.' for f in frozen))}
    assert named and named - stay == moving


def test_norm_eval_keeps_the_statistics_and_trains_the_weights(toy_cfg):
    backbone = {**RESNET, 'norm_eval': True}
    _, watch = stage_one(toy_cfg, backbone)
    assert watch.trained == who_trains(users_backbone(backbone))
    assert changed(watch) == watch.trained[0]
    assert len(watch.before) - len(watch.trained[0]) == 3 * 20


def test_norms_whose_weights_are_frozen_still_gather_statistics(toy_cfg):
    backbone = {**RESNET, 'norm_cfg': {'type': 'BN', 'requires_grad': False}}
    _, watch = stage_one(toy_cfg, backbone)
    assert watch.trained == who_trains(users_backbone(backbone))
    norms = {n for n in watch.before if '.bn' in n or n.startswith('bn') or 'downsample.1' in n}
    stay = {name for name in norms if name.endswith(('weight', 'bias'))}
    assert len(stay) == 40 and changed(watch) == set(watch.before) - stay


@pytest.mark.parametrize('backbone', [RESNET, SWIN], ids=['resnet', 'swin'])
def test_a_backbone_that_is_frozen_as_a_whole_is_refused(toy_cfg, backbone):
    toy_cfg.model.backbone = {**backbone, 'frozen_stages': 4}
    toy_cfg.mix_and_match.retrieval_images = 0
    problem = re.compile(rf'\b\d\d parameters of {backbone["type"]}\b.*\(frozen_stages=4\)')
    with mistake(re.compile(r'\bbackbone$'), problem):
        MixAndMatchRunner.from_cfg(toy_cfg).train()
    assert not list(Path(toy_cfg.work_dir).rglob('*.pth'))


def test_sync_bn_without_ranks_is_plain_bn(toy_cfg):
    sync = {**RESNET, 'norm_cfg': {'type': 'SyncBN', 'requires_grad': True}}
    runner, watch = stage_one(toy_cfg, sync)
    assert not [m for m in runner.model.modules() if isinstance(m, nn.SyncBatchNorm)]
    toy_cfg.work_dir += '_plain'
    _, plain = stage_one(toy_cfg, RESNET)
    assert watch.after.keys() == plain.after.keys()
    assert all(torch.equal(watch.after[name], plain.after[name]) for name in plain.after)
    load_backbone_strict(users_backbone(sync), f'{runner.work_dir}/tuned_backbone.pth')


@pytest.fixture
def group(tmp_path):
    """One process as a group of its own, as a launcher on CPUs would have started it."""
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/init', rank=0, world_size=1)
    yield
    end_group()


WRAPPER = {'type': 'MMDistributedDataParallel', 'device_ids': None, 'broadcast_buffers': False}


def test_sync_bn_of_the_config_reaches_stage_one(toy_cfg, group, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')
    toy_cfg.update(launcher='pytorch', sync_bn='torch', model_wrapper_cfg=WRAPPER)
    converted = []
    plain = runner_module.convert_sync_batchnorm
    monkeypatch.setattr(
        runner_module,
        'convert_sync_batchnorm',
        lambda model, kind: converted.append((type(model).__name__, kind)) or plain(model, kind),
    )
    derived = derive_tuning_config(toy_cfg)
    if get_device() == 'cpu':  # where DDP itself refuses what it got
        with pytest.raises(ValueError, match='SyncBatchNorm layers only work with GPU modules'):
            Runner.from_cfg(derived)
    else:
        Runner.from_cfg(derived)
    assert converted == [('MixAndMatchTuner', 'torch')]


@pytest.mark.parametrize('backbone', [SWIN, MIT], ids=['swin', 'mit'])
def test_stochastic_depth_is_active_in_training_and_not_in_retrieval(toy_cfg, backbone):
    backbone = {**backbone, 'drop_path_rate': 0.5}
    toy_cfg.model.backbone = backbone
    toy_cfg.mix_and_match.update(max_iters=2, retrieval_images=2)
    runner = Runner.from_cfg(derive_tuning_config(toy_cfg))
    drops = [m for m in runner.model.backbone.modules() if hasattr(m, 'drop_prob')]
    drops = [m for m in drops if type(m).__name__ == 'DropPath']
    theirs = [m for m in users_backbone(backbone).modules() if type(m).__name__ == 'DropPath']
    assert [m.drop_prob for m in drops] == [m.drop_prob for m in theirs]
    assert max(m.drop_prob for m in drops) == pytest.approx(0.5)
    seen = {}
    name = {'loss': 'training', 'predict': 'retrieval'}

    def keep(module, args, kwargs):
        seen.setdefault(name[kwargs['mode']], set()).update(m.training for m in drops)

    handle = runner.model.register_forward_pre_hook(keep, with_kwargs=True)
    runner.train()
    handle.remove()
    assert seen == {'training': {True}, 'retrieval': {False}}
    batch = runner.model.data_preprocessor(next(iter(runner.train_dataloader)))
    runner.model.train()
    first, second = (runner.model(**batch, mode='tensor') for _ in range(2))
    assert not torch.allclose(first, second), 'other paths are dropped'


@pytest.mark.filterwarnings('ignore:.*use_reentrant')
@pytest.mark.parametrize(
    ('backbone', 'block'),
    [(RESNET, 'layer4.0.conv1'), (SWIN, 'stages.3.blocks.0.attn'), (MIT, 'layers.3.1.0.attn')],
    ids=['resnet', 'swin', 'mit'],
)
def test_checkpointing_recomputes_and_changes_nothing_else(toy_cfg, backbone, block):
    results = []
    for with_cp in (False, True):
        cfg = copy.deepcopy(toy_cfg)
        cfg.work_dir += str(with_cp)
        # stochastic depth stays on: the masks must be the same
        runner, watch = stage_one(cfg, {**backbone, 'with_cp': with_cp})
        calls = []
        model = runner.model
        model.backbone.load_state_dict(watch.before)
        model.backbone.get_submodule(block).register_forward_pre_hook(
            lambda *_, c=calls: c.append(1)
        )
        batch = model.data_preprocessor(next(iter(runner.train_dataloader)))
        model.train()
        model.zero_grad()
        torch.manual_seed(3)
        loss = model(**batch, mode='loss')['loss']
        loss.backward()
        gradients = {name: p.grad.clone() for name, p in model.backbone.named_parameters()}
        results.append((loss.detach(), gradients, watch.after, len(calls)))
    (loss, gradients, weights, once), (loss_cp, gradients_cp, weights_cp, twice) = results
    assert (once, twice) == (1, 2)
    assert torch.allclose(loss, loss_cp, atol=1e-6)
    assert max(gradient.abs().max() for gradient in gradients.values()) > 1e-3
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, gradients_cp[name], atol=1e-5), name
        assert torch.allclose(weights[name], weights_cp[name], atol=1e-6), name


def test_chunks_around_checkpointing_are_refused_over_ranks_only(toy_cfg, monkeypatch):
    toy_cfg.model.backbone.with_cp = True
    toy_cfg.mix_and_match.chunk_size = 3
    assert derive_tuning_config(toy_cfg).model.chunk_size == 3
    monkeypatch.setattr(user_config, 'get_world_size', lambda: 2)
    with mistake('mix_and_match.chunk_size', ['3', 'with_cp=True', '2 ranks']):
        derive_tuning_config(toy_cfg)
    toy_cfg.model.backbone.with_cp = False
    derive_tuning_config(toy_cfg)


@pytest.mark.parametrize(
    ('option', 'value'), [('chunk_size', 0), ('chunk_size', 2.0), ('bn_crops', -1)]
)
def test_values_out_of_range(toy_cfg, option, value):
    toy_cfg.mix_and_match[option] = value
    with mistake(f'mix_and_match.{option}', repr(value), 'integer'):
        derive_tuning_config(toy_cfg)
