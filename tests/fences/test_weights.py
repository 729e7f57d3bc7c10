"""Rebuilding the package changes no weight: to the bit where the machine is the same.

``python -m pytest tests/fences --write-fences`` writes what a version gives. Write it only where
weights are meant to change, and say so in the changelog: finished tunings are then made anew.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
from courses import BOTH_STAGES, GROUPED, STEPS, TUNING, fine_tuned, machine, stack, summary, tuned

sys.path.append(str(Path(__file__).parents[1] / 'engine'))
FILE = Path(__file__).parent / 'weights.json'


def check(request, name, found):
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    if request.config.getoption('--write-fences'):
        known.setdefault(stack(), {})[name] = dict(found, machine=machine())
        FILE.write_text(json.dumps(known, indent=1, sort_keys=True) + '\n')
        return
    expected = known[stack()][name]
    assert found['numbers'] == pytest.approx(expected['numbers'], rel=1e-3)
    if machine() == expected['machine']:
        assert found['digest'] == expected['digest'], 'weights differ in bits'


@pytest.mark.parametrize('name', TUNING)
def test_stage_one(request, toy_cfg, name):
    check(request, f'tuning, {name}', summary(tuned(toy_cfg, TUNING[name])))


@pytest.mark.parametrize('name', BOTH_STAGES)
def test_both_stages(request, toy_cfg, name):
    check(request, f'both stages, {name}', summary(fine_tuned(toy_cfg, BOTH_STAGES[name])))


def test_both_stages_over_two_ranks(request, toy_cfg, tmp_path):
    from launching import forked

    toy_cfg.mix_and_match.update(GROUPED, max_iters=STEPS, checkpoint_interval=99)
    toy_cfg.train_cfg.update(max_iters=STEPS, val_interval=STEPS)
    toy_cfg.default_hooks.checkpoint.interval = STEPS
    toy_cfg.dump(tmp_path / 'config.py')
    run = tmp_path / 'run'
    status, told = forked([tmp_path / 'config.py', '--work-dir', run], tmp_path)
    assert status == [0, 0], told[-2000:]
    state = torch.load(run / f'iter_{STEPS}.pth', weights_only=False)['state_dict']
    check(request, 'both stages, two ranks', summary(state))
