"""SIGINT and SIGTERM end a run with a checkpoint and one line, and it goes on to the bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import killing
import pytest

from mm_tuning_plugin.engine.signals import Interruption, OutliveSigterm

ROOT = Path(__file__).parents[2]


def send(signum):
    os.kill(os.getpid(), signum)


def while_tuning(signum):
    from mm_tuning_plugin.models import MixAndMatchTuner

    plain = MixAndMatchTuner._loss

    def loss(self, *batch):
        if int(self.step) == 2:
            send(signum)
        return plain(self, *batch)

    MixAndMatchTuner._loss = loss


def while_validating(signum):
    from mmseg.evaluation import IoUMetric

    plain, calls = IoUMetric.process, []

    def process(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 6:  # the second of the second validation
            send(signum)
        plain(self, *args, **kwargs)

    IoUMetric.process = process


def while_validating_other_weights(signum):
    """The averaged ones, which a hook puts into the model for it."""
    while_validating(signum)


def between_the_stages(signum):
    from mm_tuning_plugin.engine.hooks import SaveBackboneHook

    plain = SaveBackboneHook.after_train

    def after_train(self, runner):
        plain(self, runner)
        send(signum)

    SaveBackboneHook.after_train = after_train


MOMENTS = {
    while_tuning: 'iteration 3 of 4 is kept in {work_dir}/tuning/iter_3.pth',
    while_validating: 'iteration 4 of 5 is kept in {work_dir}/iter_4.pth',
    while_validating_other_weights: 'iteration 4 of 5 is kept in {work_dir}/iter_4.pth',
    between_the_stages: 'between the stages',
}


@pytest.mark.parametrize('moment', MOMENTS, ids=lambda moment: moment.__name__)
def test_it_ends_with_a_checkpoint_and_one_line_and_goes_on_to_the_bit(toy_cfg, tmp_path, moment):
    toy_cfg.train_cfg.update(max_iters=5, val_interval=2)
    toy_cfg.default_hooks.checkpoint.interval = 3
    toy_cfg.train_dataloader.num_workers = 2
    if moment is while_validating_other_weights:
        toy_cfg.custom_hooks = [dict(type='EMAHook', momentum=0.2)]
    signum = signal.SIGINT if moment is while_tuning else signal.SIGTERM
    whole = killing.in_folder(toy_cfg, tmp_path / 'whole')
    assert killing.forked(whole)[0] == 0

    status, log = killing.forked(toy_cfg, lambda: moment(signum))
    assert status == 128 + signum, log
    expected = MOMENTS[moment].format(work_dir=toy_cfg.work_dir)
    last = log.strip().splitlines()[-1]
    assert last.startswith(f'interrupted by {signum.name}: {expected}')
    assert '--resume' in last and 'Traceback' not in log

    toy_cfg.resume = True
    status, log = killing.forked(toy_cfg)
    assert status == 0, log
    assert not killing.differing(killing.results(toy_cfg), killing.results(whole))


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_to_the_whole_group(toy_cfg, tmp_path, signum):
    """From outside to a real process and its workers, as a terminal, Slurm and torchrun send it."""
    toy_cfg.train_cfg.update(max_iters=100_000, val_interval=100_000)
    toy_cfg.train_dataloader.num_workers = 2
    toy_cfg.runner_type = 'mm_tuning_plugin.MixAndMatchRunner'
    toy_cfg.dump(tmp_path / 'config.py')
    code = (
        'import sys; from mmengine.config import Config; from mmengine.registry import RUNNERS; '
        "RUNNERS.build(Config.fromfile(sys.argv[1])).train(); print('finished')"
    )
    process = subprocess.Popen(
        [sys.executable, '-c', code, str(tmp_path / 'config.py')],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    waited = time.time()
    while not list(Path(toy_cfg.work_dir).glob('iter_*.pth')) and time.time() - waited < 120:
        time.sleep(0.2)
    os.killpg(process.pid, signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum, err
    last = err.strip().splitlines()[-1]
    assert last.startswith(f'interrupted by {signum.name}: iteration ') and 'finished' not in out
    assert Path(last.split(' is kept in ')[1].split(';')[0]).is_file()
    assert 'Traceback' not in err


def test_a_checkpoint_hook_that_saves_no_optimizer(toy_cfg):
    toy_cfg.mix_and_match.enabled = False
    toy_cfg.default_hooks.checkpoint.update(save_optimizer=False, interval=3)

    def ask_in_the_second_iteration():
        from mmengine.hooks import IterTimerHook

        plain = IterTimerHook.after_train_iter

        def after_train_iter(self, runner, *args, **kwargs):
            plain(self, runner, *args, **kwargs)
            if runner.iter == 1:
                send(signal.SIGTERM)

        IterTimerHook.after_train_iter = after_train_iter

    status, log = killing.forked(toy_cfg, ask_in_the_second_iteration)
    assert status == 128 + signal.SIGTERM, log
    assert 'iteration 2 of 4 is kept in' in log
    status, log = killing.forked(killing.in_folder(toy_cfg, toy_cfg.work_dir, resume=True))
    assert status == 0, log
    assert 'no state of the optimizer found' in log


def test_handlers_are_given_back_and_patience_ends():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interruption() as interruption:
        assert not interruption.asked()
        send(signal.SIGINT)
        assert interruption.asked() and interruption.signum == signal.SIGINT
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
            time.sleep(1)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_worker_ends_with_its_parent_however_early_that_is_killed(monkeypatch):
    """Also one that sees no other parent than the system's from its start."""
    monkeypatch.setattr('mm_tuning_plugin.engine.signals.PARENT_IS_LOOKED_FOR', 0.1)
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        start = OutliveSigterm(None)
        if os.fork() == 0:
            time.sleep(0.5)  # the parent is gone by now
            os.write(writing, str(os.getpid()).encode())
            start(0)
            time.sleep(30)
        os._exit(0)
    os.waitpid(parent, 0)
    worker = int(os.read(reading, 20))
    waited = time.time()
    while os.path.exists(f'/proc/{worker}/stat') and time.time() - waited < 10:
        if Path(f'/proc/{worker}/stat').read_text().split()[2] == 'Z':
            break  # dead, and nobody asked for it yet
        time.sleep(0.1)
    else:
        assert not os.path.exists(f'/proc/{worker}'), 'still there'
