"""SIGINT and SIGTERM end a run with a checkpoint and one line, and it goes on to the bit."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import killing
import pytest
import torch
from launching import free_port
from mmengine.hooks import EMAHook
from mmengine.registry import HOOKS
from mmseg.evaluation import IoUMetric

from mm_tuning_plugin.cli.common.run import run
from mm_tuning_plugin.engine import single_stage
from mm_tuning_plugin.engine.resume import signals
from mm_tuning_plugin.engine.resume.signals import Interruption, OutliveSigterm

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


def while_measuring(signum):
    """Node retrieval, at an iteration of which there is no checkpoint."""
    from mm_tuning_plugin.evaluation import NodeRetrievalMetric

    in_process_call(NodeRetrievalMetric, 14, signum)  # the second of 12 nodes, of the second time


def while_validating(signum):
    in_process_call(IoUMetric, 6, signum)  # the second of the second validation


def while_validating_averages(signum):
    """Which a hook puts into the model for it, and a checkpoint must not take for the weights."""
    while_validating(signum)


def while_validating_what_is_not_known(signum):
    """What a hook of the user's own does as a validation begins cannot be taken back."""
    while_validating(signum)


def while_validating_an_epoch(signum):
    """Of 4 iterations; no checkpoint is due until the second epoch ends."""
    in_process_call(IoUMetric, 2, signum)


def in_process_call(metric, number, signum):
    plain, calls = metric.process, []

    def process(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            send(signum)
        assert len(calls) <= number, 'the batch is the last'
        plain(self, *args, **kwargs)

    metric.process = process


def between_the_stages(signum):
    from mm_tuning_plugin.engine.hooks.save_backbone import SaveBackboneHook

    plain = SaveBackboneHook.after_train

    def after_train(self, runner):
        plain(self, runner)
        send(signum)

    SaveBackboneHook.after_train = after_train


TUNING = {
    while_tuning: 'iteration 3 of 4 is kept in {work_dir}/tuning/iter_3.pth',
    while_measuring: 'iteration 3 of 4 is kept in {work_dir}/tuning/iter_3.pth',
    between_the_stages: 'between the stages',
}
FINE_TUNING = {
    while_validating: 'iteration 4 of 5 is kept in {work_dir}/iter_4.pth',
    while_validating_averages: 'iteration 4 of 5 is kept in {work_dir}/iter_4.pth',
    while_validating_an_epoch: 'iteration 4 of 8 is kept in {work_dir}/iter_4.pth',
    while_validating_what_is_not_known: 'iteration 3 of 5 is kept in {work_dir}/iter_3.pth',
}


def interrupt_and_go_on(cfg, moment, expected):
    """A run that is interrupted at a moment, and ends with one line; then to its end."""
    signum = signal.SIGINT if moment is while_tuning else signal.SIGTERM
    status, log = killing.forked(cfg, lambda: moment(signum))
    assert status == 128 + signum, log
    last = log.strip().splitlines()[-1]
    assert last.startswith(f'interrupted by {signum.name}: {expected.format(**cfg)}')
    assert '--resume' in last and 'Traceback' not in log
    return killing.forked(killing.in_folder(cfg, cfg.work_dir, resume=True))


@pytest.mark.parametrize('moment', TUNING, ids=lambda moment: moment.__name__)
def test_tuning_goes_on_to_the_bit(toy_cfg, uninterrupted, moment):
    toy_cfg.train_dataloader.num_workers = 2
    toy_cfg.mix_and_match.update(val_interval=3, checkpoint_interval=2, retrieval_images=8)
    whole = uninterrupted(toy_cfg)
    status, log = interrupt_and_go_on(toy_cfg, moment, TUNING[moment])
    assert status == 0, log
    assert not killing.differing(killing.results(toy_cfg), killing.results(whole))
    measured = [
        torch.load(f'{cfg.work_dir}/tuning/tuned_backbone.pth', weights_only=True)['meta']
        for cfg in (toy_cfg, whole)
    ]
    assert (
        measured[0]['retrieval'] == measured[1]['retrieval'] and len(measured[0]['retrieval']) == 3
    )


@pytest.mark.parametrize('moment', FINE_TUNING, ids=lambda moment: moment.__name__)
def test_fine_tuning_goes_on_to_the_bit(toy_cfg, uninterrupted, moment):
    toy_cfg.mix_and_match = dict(enabled=False)
    toy_cfg.train_cfg.update(max_iters=5, val_interval=2)
    toy_cfg.default_hooks.checkpoint.update(interval=3, save_best='mIoU')
    toy_cfg.train_dataloader.num_workers = 2
    if moment is while_validating_averages:
        toy_cfg.custom_hooks = [dict(type='EMAHook', momentum=0.2)]
    if moment is while_validating_what_is_not_known:
        toy_cfg.custom_hooks = [dict(type='OthersAverages', momentum=0.2)]
    if moment is while_validating_an_epoch:
        toy_cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
        toy_cfg.train_dataloader.sampler.type = 'DefaultSampler'
        toy_cfg.default_hooks.checkpoint.update(by_epoch=True, interval=2)
    whole = uninterrupted(toy_cfg)
    status, log = interrupt_and_go_on(toy_cfg, moment, FINE_TUNING[moment])
    assert status == 0, log
    assert not killing.differing(killing.results(toy_cfg), killing.results(whole))
    assert not killing.differing(*(best(cfg) for cfg in (toy_cfg, whole)))


def best(cfg):
    """What a run kept of its best validation, and what it knows of it at its end."""
    (path,) = Path(cfg.work_dir).glob('best_*.pth')
    last = torch.load(killing.last_checkpoint(cfg), weights_only=False)
    known = last['message_hub']['runtime_info']
    assert Path(known['best_ckpt']).name == path.name
    score = {f'best {path.name}': torch.tensor(known['best_score'])}
    return {**torch.load(path, weights_only=False)['state_dict'], **score}


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    """Runs that nothing interrupts, each config's once."""
    done = {}

    def run(cfg):
        key = str({name: part for name, part in cfg.to_dict().items() if name != 'work_dir'})
        if key not in done:
            done[key] = killing.in_folder(cfg, tmp_path_factory.mktemp('whole') / 'run')
            assert killing.forked(done[key])[0] == 0
        return done[key]

    return run


@HOOKS.register_module()
class OthersAverages(EMAHook):
    """Does in its own way what mmengine's does."""

    def before_val_epoch(self, runner):
        super().before_val_epoch(runner)


@pytest.fixture
def endless(toy_cfg):
    """A run with loading workers that only a signal ends."""
    toy_cfg.train_cfg.update(max_iters=100_000, val_interval=100_000)
    toy_cfg.train_dataloader.num_workers = 2
    return toy_cfg


def signal_group(cfg, process, signum):
    """Send a signal to a process and its workers once fine-tuning has a checkpoint."""
    waited = time.time()
    while not list(Path(cfg.work_dir).glob('iter_*.pth')) and time.time() - waited < 120:
        time.sleep(0.1)
    os.killpg(process, signum)


def check_end(signum, status, out, err):
    assert status == 128 + signum, err
    last = err.strip().splitlines()[-1]
    assert last.startswith(f'interrupted by {signum.name}: iteration ') and 'finished' not in out
    assert Path(last.split(' is kept in ')[1].split(';')[0]).is_file()
    assert 'Traceback' not in err


def test_an_interrupt_to_the_whole_group(endless, tmp_path):
    """As a terminal sends it: to a session's process and its workers."""

    def train():
        os.setsid()
        return run(lambda _: killing.train(endless))

    process = killing.started(train, log := tmp_path / 'log')
    signal_group(endless, process, signal.SIGINT)
    status = killing.ended(process)
    check_end(signal.SIGINT, status, log.read_text(), log.read_text())


def test_a_termination_of_the_whole_group(endless, tmp_path):
    """From outside to a real process and its workers, as Slurm and torchrun send it."""
    toy_cfg = endless
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
    signal_group(toy_cfg, process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    check_end(signal.SIGTERM, process.returncode, out, err)


@pytest.mark.parametrize('what', ['check_data', 'weights'])
def test_before_an_iteration_it_ends_at_once(toy_cfg, what):
    """While data are looked at, and while stage two gets its weights."""
    toy_cfg.mix_and_match = dict(enabled=False)

    def be_slow(*args, **kwargs):
        send(signal.SIGTERM)
        time.sleep(60)

    def prepare():
        from mm_tuning_plugin.engine import runner

        if what == 'weights':
            runner.FineTuningRunner._init_model_weights = be_slow
        else:
            runner.check_data = be_slow

    begun = time.time()
    status, log = killing.forked(toy_cfg, prepare)
    assert status == 128 + signal.SIGTERM and time.time() - begun < 30, log
    last = log.strip().splitlines()[-1]
    assert last.startswith('interrupted by SIGTERM: before an iteration began; --resume')
    assert 'Traceback' not in log and not list(Path(toy_cfg.work_dir).glob('*.pth'))


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
    assert 'iteration 2 of 4 ' in log
    status, log = killing.forked(killing.in_folder(toy_cfg, toy_cfg.work_dir, resume=True))
    assert status == 0, log
    assert re.search(r'WARNING - .*\.pth: .*\boptimizer\b', log)


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


def test_where_nothing_is_lost_a_signal_does_not_wait(capsys, monkeypatch):
    with pytest.raises(SystemExit) as ended, Interruption() as interruption:
        interruption.idle('at rest')
        if (child := os.fork()) == 0:  # a loading worker
            send(signal.SIGTERM)
            os._exit(interruption.signum)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == signal.SIGTERM
        send(signal.SIGTERM)
        time.sleep(60)
    assert ended.value.code == 143
    assert capsys.readouterr().err == 'interrupted by SIGTERM: at rest\n'

    with Interruption() as interruption:
        interruption.idle('at rest')
        interruption.busy()
        send(signal.SIGTERM)
        assert interruption.asked()

    monkeypatch.setattr('mm_tuning_plugin.engine.resume.signals.get_world_size', lambda: 2)
    with pytest.raises(SystemExit), Interruption() as interruption:
        interruption.idle('at rest')
        send(signal.SIGTERM)
        assert interruption.signum == signal.SIGTERM, 'the other rank must know first'
        interruption.end_if_idle()
    assert 'at rest' in capsys.readouterr().err


def test_the_single_stage_of_a_proxy_is_interrupted_alike(toy_cfg, monkeypatch):
    class Slow:
        interruption = None

        def train(self):
            assert self.interruption is not None
            send(signal.SIGTERM)
            time.sleep(60)

    monkeypatch.setattr(single_stage.ResumableRunner, 'from_cfg', lambda cfg: Slow())
    with pytest.raises(SystemExit) as ended:
        single_stage.train_alone(toy_cfg)
    assert ended.value.code == 143


def test_a_signal_to_one_rank_during_a_validation_ends_both(toy_cfg, tmp_path):
    """With the iteration kept and the validation repeated whole; nothing waits for ever."""
    norm = dict(type='GN', num_groups=2)  # BatchNorm's statistics are each rank's own
    toy_cfg.model.backbone.norm_cfg = toy_cfg.model.decode_head.norm_cfg = norm
    toy_cfg.update(launcher='pytorch', mix_and_match=dict(enabled=False))
    toy_cfg.train_cfg.update(max_iters=3, val_interval=2)
    toy_cfg.default_hooks.checkpoint.update(interval=5, save_best='mIoU')
    for status, log in two_ranks(whole := killing.in_folder(toy_cfg, tmp_path / 'whole')):
        assert status == 0, log

    begun = time.time()
    ends = two_ranks(toy_cfg, lambda: in_process_call(IoUMetric, 1, signal.SIGTERM), only=1)
    assert [status for status, _ in ends] == [143, 143] and time.time() - begun < 60, ends
    assert 'interrupted by SIGTERM: iteration 2 of 3 is kept in' in ends[0][1]
    kept = torch.load(f'{toy_cfg.work_dir}/iter_2.pth', weights_only=False)['resume_state']
    assert [rank['validated'] for rank in kept['ranks']] == [False, False]

    toy_cfg.resume = True
    for status, log in two_ranks(toy_cfg):
        assert status == 0, log
    assert not killing.differing(killing.results(toy_cfg), killing.results(whole))
    assert not killing.differing(*(best(cfg) for cfg in (toy_cfg, whole)))


def two_ranks(cfg, prepare=lambda: None, only=None):
    """Train on two ranks, on one of which something is prepared: [(status, log), ...]."""
    variables = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))

    def work(rank):
        os.environ.update(variables, RANK=str(rank), LOCAL_RANK=str(rank))
        if rank == only:
            prepare()
        return run(lambda _: killing.train(cfg))

    folder = Path(cfg.work_dir)
    logs = [folder.parent / f'{folder.name} {cfg.resume} {rank}.log' for rank in (0, 1)]
    ranks = [killing.started(partial(work, rank), log) for rank, log in enumerate(logs)]
    return [(killing.ended(rank), log.read_text()) for rank, log in zip(ranks, logs)]


@pytest.mark.parametrize(
    ('paces', 'hears'), [((0.5, 0.01), 5), ((0.01, 3.0), 5), ((1e-9, 1e-9), 5), ((0.5, 0.01), None)]
)
def test_ranks_ask_at_the_same_batches_and_seldom(monkeypatch, paces, hears):
    """Two ranks of unequal speed, with 50 and 40 batches, in two threads of an all_reduce."""
    batches, clocks, asked = (50, 40), [0.0, 0.0], ([], [])
    both, heard = threading.Barrier(2, timeout=20), [None, None]
    rank = threading.local()

    def all_reduce(tensor, op):
        heard[rank.index] = tensor.clone()
        both.wait()
        tensor.copy_(getattr(torch, {'max': 'maximum', 'min': 'minimum'}[op])(*heard))
        both.wait()

    monkeypatch.setattr(signals, 'all_reduce', all_reduce)
    monkeypatch.setattr(signals, 'is_distributed', lambda: True)
    monkeypatch.setattr(signals.time, 'monotonic', lambda: clocks[rank.index])

    def validate(index):
        rank.index = index
        interruption, rounds = Interruption(), signals.Rounds(batches[index])
        for batch in range(batches[index]):
            if rounds.due(batch):
                asked[index].append(batch)
                if rounds.ask(batch, interruption):
                    return
            clocks[index] += paces[index]
            if index == 1 and batch == hears:
                interruption.signum = int(signal.SIGTERM)  # one rank alone hears it

    ranks = [threading.Thread(target=validate, args=(index,)) for index in (0, 1)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join(30)
    assert not any(thread.is_alive() for thread in ranks) and not both.broken
    assert asked[0] == asked[1] and asked[0][0] == 0
    steps = [b - a for a, b in zip(asked[0], asked[0][1:])]
    slowest = max(paces)
    assert all(step * slowest <= max(signals.RANKS_ASK, slowest) for step in steps)
    assert asked[0][-1] < min(batches), 'no rank waits for one that is done'
    if hears is not None:
        assert asked[0][-2] <= hears < asked[0][-1], 'the first time after the signal is the last'
    if slowest < 1:
        assert max(steps) > 1


def test_a_worker_ends_with_its_parent_however_early_that_is_killed(monkeypatch):
    """Also one that sees no other parent than the system's from its start."""
    monkeypatch.setattr('mm_tuning_plugin.engine.resume.signals.PARENT_IS_LOOKED_FOR', 0.1)
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
