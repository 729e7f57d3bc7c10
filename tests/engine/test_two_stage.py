"""The two-stage run, end to end, on a toy: what arrives where, and what must not."""

import copy
import json
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mistakes import mistake
from mmengine.config import Config
from mmengine.runner import Runner

from mm_tuning_plugin.checkpoint import hash_state_dict, save_backbone
from mm_tuning_plugin.engine import MixAndMatchRunner, derive_tuning_config
from mm_tuning_plugin.engine.runner import FineTuningRunner


def tuned_state(cfg):
    path = f'{cfg.work_dir}/tuning/tuned_backbone.pth'
    return torch.load(path, weights_only=True)


def final_state(cfg, iters=4):
    saved = torch.load(f'{cfg.work_dir}/iter_{iters}.pth', weights_only=False)
    return saved['state_dict']


def initial_weights(runner_class, cfg, handover=None):
    """Weights right before the first step, and what the random states draw next."""
    taken = {}

    class Stop(Exception):
        pass

    class Spy(runner_class):
        def load_or_resume(self):
            taken.update({k: v.clone() for k, v in self.model.state_dict().items()})
            raise Stop

    runner = Spy.from_cfg(copy.deepcopy(cfg))
    if handover is not None:
        runner.handover = handover
    with pytest.raises(Stop):
        runner.train()
    return taken, (random.random(), np.random.rand(), torch.rand(1).item())


@pytest.fixture(params=['points', 'patches', 'classified points'])
def kind(request):
    return request.param


def test_both_stages_run_and_the_tuned_weights_arrive(toy_cfg, kind):
    nodes = kind.split()[-1]
    toy_cfg.mix_and_match.update(nodes=nodes, size_range=(16, 32), patch_size=32)
    if kind == 'patches':
        toy_cfg.mix_and_match.update(loss='graph_triplet')
    if kind == 'classified points':
        toy_cfg.mix_and_match.update(loss='cross_entropy')
        classifier = derive_tuning_config(toy_cfg).model.embedding
        assert classifier.projection_channels == toy_cfg.model.decode_head.num_classes
        assert classifier.hidden_channels == 0 and classifier.normalise is False, 'it is linear'
    seen = {}
    plain_load = FineTuningRunner.load_or_resume

    def spy(self):
        seen['start'] = {k: v.clone() for k, v in self.model.backbone.state_dict().items()}
        plain_load(self)

    FineTuningRunner.load_or_resume = spy
    try:
        model = MixAndMatchRunner.from_cfg(toy_cfg).train()
    finally:
        FineTuningRunner.load_or_resume = plain_load
    tuned = tuned_state(toy_cfg)
    assert hash_state_dict(tuned['state_dict']) == hash_state_dict(seen['start'])
    assert tuned['meta']['hash_before'] != tuned['meta']['hash_after']
    assert tuned['meta']['iterations'] == 4
    assert hash_state_dict(model.backbone.state_dict()) != tuned['meta']['hash_after']
    stages = json.loads(Path(toy_cfg.work_dir, 'stages.json').read_text())
    assert 0 <= stages['tuning']['retrieval']['0']['retrieval/recall@1'] <= 1
    assert 0 <= stages['tuning']['retrieval']['4']['retrieval/recall@1'] <= 1
    assert stages['fine_tuning']['metrics']['mIoU'] >= 0


def test_stage_two_starts_as_plain_mmseg_but_for_the_tuned_backbone(toy_cfg, tmp_path):
    plain_cfg = copy.deepcopy(toy_cfg)
    plain_cfg.work_dir = str(tmp_path / 'plain')
    plain, plain_draws = initial_weights(Runner, plain_cfg)

    taken = {}

    class Stop(Exception):
        pass

    def spy(self):
        taken['weights'] = {k: v.clone() for k, v in self.model.state_dict().items()}
        raise Stop

    original, FineTuningRunner.load_or_resume = FineTuningRunner.load_or_resume, spy
    try:
        with pytest.raises(Stop):
            MixAndMatchRunner.from_cfg(toy_cfg).train()
    finally:
        FineTuningRunner.load_or_resume = original
    draws = random.random(), np.random.rand(), torch.rand(1).item()
    tuned = tuned_state(toy_cfg)['state_dict']
    assert plain.keys() == taken['weights'].keys()
    for name, value in taken['weights'].items():
        expected = tuned[name[9:]] if name.startswith('backbone.') else plain[name]
        assert torch.equal(value, expected), name
    assert any(not torch.equal(plain[f'backbone.{name}'], tuned[name]) for name in tuned)
    assert draws == plain_draws


def test_without_tuning_the_run_is_plain_mmseg_to_the_last_bit(toy_cfg, tmp_path):
    plain_cfg = copy.deepcopy(toy_cfg)
    plain_cfg.work_dir = str(tmp_path / 'plain')
    Runner.from_cfg(plain_cfg).train()
    toy_cfg.mix_and_match.enabled = False
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    plain, ours = final_state(plain_cfg), final_state(toy_cfg)
    assert all(torch.equal(plain[name], ours[name]) for name in plain)


def test_nothing_of_stage_one_shows_in_stage_two(toy_cfg):
    from mmengine.logging import MessageHub
    from mmengine.visualization import Visualizer

    MixAndMatchRunner.from_cfg(toy_cfg).train()
    scalars = MessageHub.get_current_instance().log_scalars
    assert not [name for name in scalars if 'retrieval' in name or 'triplets' in name]
    saved = torch.load(f'{toy_cfg.work_dir}/iter_4.pth', weights_only=False)
    assert not [name for name in saved['state_dict'] if 'embedding' in name or name == 'step']
    assert 'mm_tuning_plugin' not in saved
    text = next(iter(Path(toy_cfg.work_dir).glob('2*/2*.log'))).read_text()
    assert 'SaveBackboneHook' not in text and 'retrieval/recall' not in text
    assert Visualizer.get_current_instance().instance_name == 'visualizer'
    scalars_file = next(Path(toy_cfg.work_dir).glob('2*/vis_data/scalars.json'))
    assert 'triplets' not in scalars_file.read_text()


def test_the_derived_config_runs_alone_and_gives_the_same_weights(toy_cfg, tmp_path):
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    written = Config.fromfile(f'{toy_cfg.work_dir}/tuning/tuning_config.py')
    assert 'runner_type' not in written and 'mix_and_match' not in written
    written.work_dir = str(tmp_path / 'alone')
    Runner.from_cfg(written).train()
    alone = torch.load(tmp_path / 'alone' / 'tuned_backbone.pth', weights_only=True)
    tuned = tuned_state(toy_cfg)
    assert alone['meta']['hash_after'] == tuned['meta']['hash_after']


def test_the_users_config_is_not_touched(toy_cfg):
    before = toy_cfg.pretty_text
    derived = derive_tuning_config(toy_cfg)
    derived.model.backbone.depth = 50
    MixAndMatchRunner.from_cfg(toy_cfg)
    assert toy_cfg.pretty_text == before


def test_a_finished_tuning_is_used_again(toy_cfg, caplog):
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    first = tuned_state(toy_cfg)
    written = os.stat(f'{toy_cfg.work_dir}/tuning/tuned_backbone.pth').st_mtime_ns
    toy_cfg.train_dataloader.num_workers = 1
    toy_cfg.log_level = 'WARNING'
    runner = MixAndMatchRunner.from_cfg(toy_cfg)
    runner.train()
    assert runner.stages['tuning']['reused'] is True
    assert tuned_state(toy_cfg)['meta'] == first['meta']
    again = os.stat(f'{toy_cfg.work_dir}/tuning/tuned_backbone.pth').st_mtime_ns
    assert again == written


def test_other_settings_are_an_error_that_names_them_unless_overwritten(toy_cfg):
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    before = tuned_state(toy_cfg)['meta']['hash_after']
    toy_cfg.mix_and_match.temperature = 0.2
    problem = re.compile(r'\bmix_and_match\.temperature\b.*\b0\.1\b.*\b0\.2\b')
    with mistake(f'{toy_cfg.work_dir}/tuning', problem, '--overwrite'):
        MixAndMatchRunner.from_cfg(toy_cfg).train()
    assert tuned_state(toy_cfg)['meta']['hash_after'] == before
    toy_cfg.mix_and_match.overwrite = True
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    assert tuned_state(toy_cfg)['meta']['hash_after'] != before
    kept = Path(toy_cfg.work_dir, 'tuning', 'tuned_backbone.previous.pth')
    assert torch.load(kept, weights_only=True)['meta']['hash_after'] == before


@pytest.mark.parametrize(
    ('content', 'remedy'), [('text', 'torch.save'), ('cut', 'file'), ('foreign', "'state_dict'")]
)
def test_a_finished_tuning_that_cannot_be_read_is_named(toy_cfg, content, remedy):
    tuning = Path(toy_cfg.work_dir, 'tuning')
    tuning.mkdir(parents=True)
    path = tuning / 'tuned_backbone.pth'
    torch.save({'a': torch.ones(3)}, path)
    if content != 'foreign':
        path.write_bytes(b'hello' if content == 'text' else path.read_bytes()[:200])
    with mistake(str(path), remedy=remedy):
        MixAndMatchRunner.from_cfg(toy_cfg).train()
    assert path.exists()


class Interrupted(Exception):
    pass


def interrupt_at(monkeypatch, hook_class, iteration):
    def raise_at(self, runner, *args, **kwargs):
        if runner.iter + 1 == iteration:
            raise Interrupted

    monkeypatch.setattr(hook_class, 'after_train_iter', raise_at)


def test_resume_continues_stage_one_at_its_iteration(toy_cfg, tmp_path, monkeypatch):
    whole = copy.deepcopy(toy_cfg)
    whole.work_dir = str(tmp_path / 'whole')
    MixAndMatchRunner.from_cfg(whole).train()

    from mm_tuning_plugin.engine.hooks.node_statistics import NodeStatisticsHook

    with monkeypatch.context() as patch:
        interrupt_at(patch, NodeStatisticsHook, 4)
        with pytest.raises(Interrupted):
            MixAndMatchRunner.from_cfg(toy_cfg).train()
    tuning = Path(toy_cfg.work_dir) / 'tuning'
    assert (tuning / 'iter_2.pth').exists() and not (tuning / 'tuned_backbone.pth').exists()
    iterations = []
    from mm_tuning_plugin.models import MixAndMatchTuner

    plain = MixAndMatchTuner._loss
    monkeypatch.setattr(
        MixAndMatchTuner,
        '_loss',
        lambda self, *batch: iterations.append(int(self.step)) or plain(self, *batch),
    )
    toy_cfg.resume = True
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    assert iterations == [2, 3]
    assert tuned_state(toy_cfg)['meta']['hash_after'] == tuned_state(whole)['meta']['hash_after']
    assert tuned_state(toy_cfg)['meta']['hash_before'] == tuned_state(whole)['meta']['hash_before']
    assert tuned_state(toy_cfg)['meta']['retrieval'].keys() == {'0', '4'}


def test_resume_continues_stage_two_with_optimizer_and_schedule(toy_cfg, tmp_path, monkeypatch):
    from mmengine.hooks import IterTimerHook

    def stop(self, runner, *args, **kwargs):
        if 'tuning' not in runner.work_dir and runner.iter + 1 == 3:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(IterTimerHook, 'after_train_iter', stop)
        with pytest.raises(Interrupted):
            MixAndMatchRunner.from_cfg(toy_cfg).train()
    resumed = []
    plain = Runner.resume
    monkeypatch.setattr(
        Runner, 'resume', lambda self, path, **k: resumed.append(path) or plain(self, path, **k)
    )
    toy_cfg.resume = True
    runner = MixAndMatchRunner.from_cfg(toy_cfg)
    runner.train()
    assert runner.stages['tuning']['reused'] is True
    assert [Path(path).name for path in resumed] == ['iter_2.pth']
    half, saved = (
        torch.load(f'{toy_cfg.work_dir}/iter_{i}.pth', weights_only=False) for i in (2, 4)
    )
    assert saved['meta']['iter'] == 4
    # 4 iterations of one schedule, which ends at 0; two from its beginning would end elsewhere.
    assert saved['param_schedulers'][0]['_last_value'] == [0.0]
    assert half['param_schedulers'][0]['_last_value'] != [0.0]
    assert saved['optimizer']['state'][0]['momentum_buffer'].abs().sum() > 0


def test_an_unfinished_tuning_without_resume_starts_over(toy_cfg, monkeypatch):
    from mm_tuning_plugin.engine.hooks.node_statistics import NodeStatisticsHook

    with monkeypatch.context() as patch:
        interrupt_at(patch, NodeStatisticsHook, 4)
        with pytest.raises(Interrupted):
            MixAndMatchRunner.from_cfg(toy_cfg).train()
    toy_cfg.mix_and_match.temperature = 0.2
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    assert tuned_state(toy_cfg)['meta']['retrieval'].keys() == {'0', '4'}


def test_tune_once_and_fine_tune_many(toy_cfg, tmp_path):
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    other = copy.deepcopy(toy_cfg)
    other.work_dir = str(tmp_path / 'other')
    other.mix_and_match.tuned_backbone = f'{toy_cfg.work_dir}/tuning/tuned_backbone.pth'
    MixAndMatchRunner.from_cfg(other).train()
    assert not (tmp_path / 'other' / 'tuning').exists()
    first, second = final_state(toy_cfg), final_state(other)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other.mix_and_match.tuned_backbone = str(tmp_path / 'none.pth')
    with mistake(other.mix_and_match.tuned_backbone, remedy='backbone'):
        MixAndMatchRunner.from_cfg(other).train()


def test_tune_once_as_safetensors(toy_cfg, tmp_path):
    tuned = MixAndMatchRunner.from_cfg(toy_cfg).tune()
    other = tuned.with_suffix('.safetensors')
    assert not other.exists()
    toy_cfg.mix_and_match.safetensors = True
    assert MixAndMatchRunner.from_cfg(toy_cfg).tune() == tuned  # of the tuning that is finished
    taken = []
    for path in (tuned, other):
        toy_cfg.mix_and_match.update(tuned_backbone=str(path))
        toy_cfg.work_dir = str(tmp_path / path.suffix)
        MixAndMatchRunner.from_cfg(toy_cfg).train()
        taken.append(hash_state_dict(final_state(toy_cfg)))
    assert taken[0] == taken[1]


def test_both_arms_start_from_the_checkpoint(toy_cfg, tmp_path):
    donor, _ = initial_weights(
        Runner,
        Config({**toy_cfg.to_dict(), 'randomness': dict(seed=99), 'work_dir': str(tmp_path / 'd')}),
    )
    start = {k: v for k, v in donor.items() if k.startswith('backbone.')}
    torch.save(dict(state_dict=start), tmp_path / 'start.pth')
    toy_cfg.mix_and_match.checkpoint = str(tmp_path / 'start.pth')
    toy_cfg.model.pretrained = 'open-mmlab://never/asked/for'
    expected = hash_state_dict({k[9:]: v for k, v in start.items()})
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    assert tuned_state(toy_cfg)['meta']['hash_before'] == expected
    assert (Path(toy_cfg.work_dir) / 'tuning' / 'load_report.json').exists()

    direct = copy.deepcopy(toy_cfg)
    direct.work_dir = str(tmp_path / 'direct')
    direct.mix_and_match.enabled = False
    runner = MixAndMatchRunner.from_cfg(direct)
    taken = {}

    handover = runner._start_handover()

    def keep(backbone):
        handover(backbone)
        taken['hash'] = hash_state_dict(backbone.state_dict())

    runner._start_handover = lambda: keep
    runner.train()
    assert taken['hash'] == expected


def test_a_tuned_file_of_another_backbone_is_refused(toy_cfg, tmp_path):
    save_backbone(tmp_path / 'other.pth', {'conv.weight': torch.ones(1)}, {})
    toy_cfg.mix_and_match.tuned_backbone = str(tmp_path / 'other.pth')
    with mistake(toy_cfg.mix_and_match.tuned_backbone, ['120', 'ResNet'], '120'):
        MixAndMatchRunner.from_cfg(toy_cfg).train()


def test_adamw_keeps_the_users_optimizer_and_learning_rate(toy_cfg):
    toy_cfg.optim_wrapper = dict(
        type='OptimWrapper',
        accumulative_counts=4,
        clip_grad=dict(max_norm=1.0),
        optimizer=dict(type='AdamW', lr=6e-5, weight_decay=0.01),
        paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0)}),
    )
    toy_cfg.auto_scale_lr = dict(enable=True, base_batch_size=16)
    derived = derive_tuning_config(toy_cfg)
    assert derived.optim_wrapper.optimizer == dict(type='AdamW', lr=6e-5, weight_decay=0.01)
    assert derived.optim_wrapper.clip_grad == dict(max_norm=1.0)
    assert 'accumulative_counts' not in derived.optim_wrapper
    assert derived.auto_scale_lr is None
    MixAndMatchRunner.from_cfg(toy_cfg).train()


def test_sgd_follows_the_papers_schedule(toy_cfg):
    toy_cfg.mix_and_match.max_iters = 8000
    derived = derive_tuning_config(toy_cfg)
    assert derived.optim_wrapper.optimizer == dict(
        type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4
    )
    assert derived.param_scheduler[0].milestones == [6000]
    toy_cfg.mix_and_match.lr = 0.1
    assert derive_tuning_config(toy_cfg).optim_wrapper.optimizer.lr == 0.1


def test_amp_wrapper_is_kept(toy_cfg):
    toy_cfg.optim_wrapper.type = 'AmpOptimWrapper'
    toy_cfg.optim_wrapper.loss_scale = 'dynamic'
    derived = derive_tuning_config(toy_cfg)
    assert derived.optim_wrapper.type == 'AmpOptimWrapper'
    assert derived.optim_wrapper.loss_scale == 'dynamic'
