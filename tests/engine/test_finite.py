"""Tuning whose loss or weights are no longer finite ends with one line, and leaves no backbone."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mistakes import mistake

from mm_tuning_plugin.engine import FiniteHook, MixAndMatchRunner
from mm_tuning_plugin.engine.hooks.finite import TOLERATED_IN_A_ROW
from mm_tuning_plugin.models import MixAndMatchTuner

NAN = float('nan')


def left_of(cfg):
    """Names of the weight files in the folders of both stages."""
    return {path.name for path in Path(cfg.work_dir).rglob('*.pth')}


def spoil(monkeypatch, step, value=NAN, name='layer4.1.bn2.running_var'):
    """Let one tensor of the backbone become `value` in a training step, counted from 1."""
    plain = MixAndMatchTuner.train_step

    def train_step(self, *args, **kwargs):
        outputs = plain(self, *args, **kwargs)
        if int(self.step) == step:
            self.backbone.state_dict()[name].fill_(value)
        return outputs

    monkeypatch.setattr(MixAndMatchTuner, 'train_step', train_step)


def test_a_loss_that_is_not_finite_ends_tuning(toy_cfg):
    toy_cfg.mix_and_match.update(lr=1e30, max_iters=6, retrieval_images=0)
    where, problem = re.compile(r'iteration \d of 6$'), re.compile(r'\b(nan|inf)\b.* 1e\+30\b')
    with mistake(where, problem, 'mix_and_match.lr'):
        MixAndMatchRunner.from_cfg(toy_cfg).train()
    assert 'tuned_backbone.pth' not in left_of(toy_cfg)
    assert not list(Path(toy_cfg.work_dir).glob('*.pth'))  # stage two did not begin
    for path in Path(toy_cfg.work_dir).rglob('*.pth'):
        weights = torch.load(path, weights_only=False)['state_dict'].values()
        assert all(bool(torch.isfinite(value).all()) for value in weights)


def test_a_lower_rate_tunes_in_the_same_folder(toy_cfg):
    toy_cfg.mix_and_match.update(lr=1e30, retrieval_images=0)
    with mistake(re.compile('iteration'), '1e+30', 'mix_and_match.lr'):
        MixAndMatchRunner.from_cfg(toy_cfg).tune()
    toy_cfg.mix_and_match.lr = 0.01
    assert MixAndMatchRunner.from_cfg(toy_cfg).tune().is_file()


@pytest.mark.parametrize('value', [NAN, float('-inf')])
def test_no_checkpoint_is_written_of_weights_that_are_not_finite(toy_cfg, monkeypatch, value):
    spoil(monkeypatch, step=2, value=value)  # the loss does not see running statistics
    problem = re.compile(r'\b1 of \d+ .*\bbackbone\.layer4\.1\.bn2\.running_var\b')
    with mistake(re.compile(r'iteration 2$'), problem, 'mix_and_match.lr'):
        MixAndMatchRunner.from_cfg(toy_cfg).train()
    assert left_of(toy_cfg) == set()


def test_no_backbone_is_written_of_weights_that_are_not_finite(toy_cfg, monkeypatch):
    toy_cfg.mix_and_match.checkpoint_interval = 3
    spoil(monkeypatch, step=4)
    monkeypatch.setattr(FiniteHook, 'exchange_over_ranks', lambda self, runner: None)
    with mistake(re.compile('backbone.*iteration 4$'), '1 of '):
        MixAndMatchRunner.from_cfg(toy_cfg).train()
    assert 'tuned_backbone.pth' not in left_of(toy_cfg)


def losses(hook, *values, scaler=None):
    """Show a hook iterations with these losses."""
    wrapper = SimpleNamespace(get_lr=lambda: {'lr': [0.01]})
    if scaler is not None:
        wrapper.loss_scaler = SimpleNamespace(is_enabled=lambda: scaler)
    for i, value in enumerate(values):
        runner = SimpleNamespace(iter=i, max_iters=90, optim_wrapper=wrapper)
        hook.after_train_iter(runner, i, None, {'loss': torch.tensor(value)})


def test_a_loss_scaler_makes_up_for_a_few_in_a_row(capsys):
    inf = float('inf')
    losses(FiniteHook(), *([inf] * TOLERATED_IN_A_ROW + [1.0]) * 3, scaler=True)
    assert len(re.findall(r'iteration \d+ of 90: .*\binf\b', capsys.readouterr().out)) == 3
    with mistake(re.compile('iteration 12 of 90$'), ['inf', '11th', '10'], '--amp'):
        losses(FiniteHook(), 1.0, *[inf] * (TOLERATED_IN_A_ROW + 1), scaler=True)


@pytest.mark.parametrize('scaler', [None, False])
def test_without_a_loss_scaler_at_work_the_first_ends_it(scaler):
    losses(FiniteHook(), 1.0, 0.0, -2.0, scaler=scaler)
    with mistake(re.compile('iteration 2 of 90$'), ['nan', '0.01']):
        losses(FiniteHook(), 1.0, NAN, scaler=scaler)
