import contextlib
import io
import multiprocessing
import os
import signal
import subprocess
import time
from graphlib import CycleError

import pytest
from mistakes import check_mistake, mistake
from steps_on_disk import command_of, journal, make_step

from mm_tuning_plugin.benchmark.run import executors, pool
from mm_tuning_plugin.benchmark.run.executors import LocalExecutor, Slot, local_slots, visible_gpus
from mm_tuning_plugin.benchmark.run.locks import StepLock, lock_file
from mm_tuning_plugin.benchmark.run.pool import exit_status, run_steps
from mm_tuning_plugin.benchmark.run.progress import Display
from mm_tuning_plugin.errors import UserError


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(LocalExecutor, 'interval', 0.01)


def run(steps, slots=1, stream=None, **options):
    """Run steps in slots of no environment of their own, or in the given ones."""
    slots = [Slot(f'slot {i}', {}) for i in range(slots)] if isinstance(slots, int) else slots
    options = {'command_of': command_of, 'prepare': lambda step: None, **options}
    display = Display(steps, stream or io.StringIO())
    return run_steps(steps, LocalExecutor(slots), display=display, **options)


def test_the_command_of_a_step_is_a_process_that_names_a_mistake(tmp_path):
    step = make_step(tmp_path, 'step')._replace(folder=tmp_path / 'nowhere')
    done = subprocess.run(pool.step_command(step), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    check_mistake(last.removeprefix('error: '), str(step.folder), 'FileNotFoundError')


def of(outcomes, step):
    return outcomes[step.product]


def test_runs_in_the_given_order_as_far_as_needs_allow(tmp_path):
    start = make_step(tmp_path, 'start')
    tuned = make_step(tmp_path, 'tuned', needs=[start])
    last = make_step(tmp_path, 'last', needs=[tuned, start])
    direct = make_step(tmp_path, 'direct', needs=[start])
    alone = make_step(tmp_path, 'alone')
    told = []
    twin = start._replace(name='twin')  # its product is the same: it is never run
    steps = [last, start, tuned, twin, direct, alone]
    outcomes = run(steps, on_done=lambda step, outcome: told.append((step.name, outcome.status)))
    begun = [line[6:] for line in journal(tmp_path) if line.startswith('begun')]
    assert begun == ['start', 'tuned', 'last', 'direct', 'alone']
    assert told == [(name, 'done') for name in begun]
    assert {outcome.status for outcome in outcomes.values()} == {'done'}
    assert exit_status(outcomes) == 0


def test_fills_its_slots_and_no_more(tmp_path):
    meet = "wait_for('begun a'); wait_for('begun b'); time.sleep(0.1)"
    steps = [make_step(tmp_path, name, meet) for name in 'ab'] + [make_step(tmp_path, 'c')]
    assert exit_status(run(steps, slots=2)) == 0
    lines = journal(tmp_path)
    assert set(lines[:2]) == {'begun a', 'begun b'} and lines[2] in ('done a', 'done b')


def test_what_is_finished_is_not_run_again(tmp_path):
    first, second = make_step(tmp_path, 'first'), make_step(tmp_path, 'second')
    first.folder.mkdir()
    first.product.write_text('made before')
    told, prepared, stream = [], [], io.StringIO()
    outcomes = run(
        [first, second],
        stream=stream,
        on_done=lambda step, _: told.append(step.name),
        prepare=lambda step: prepared.append((step.name, step.folder.is_dir())),
    )
    assert told == ['first', 'second'] and prepared == [('second', True)]
    assert journal(tmp_path) == ['begun second', 'done second']
    assert of(outcomes, first).seconds == 0 < of(outcomes, second).seconds
    assert stream.getvalue().startswith('1 of 2 steps are finished already\n')


def test_a_failure_is_shown_twice_and_stops_only_those_behind_it(tmp_path):
    code = (
        "print(*(f'line {i}' for i in range(30)), '', 'error: no data', sep=chr(10)); sys.exit(2)"
    )
    start = make_step(tmp_path, 'start', code)
    tuned = make_step(tmp_path, 'tuned', needs=[start])
    behind = make_step(tmp_path, 'behind', needs=[tuned])
    other = make_step(tmp_path, 'other')
    stream, told = io.StringIO(), []
    outcomes = run(
        [behind, tuned, start, other], stream=stream, on_done=lambda step, _: told.append(step.name)
    )
    failed = of(outcomes, start)
    assert (failed.status, failed.error) == ('failed', 'ended with 2: error: no data')
    assert failed.tail == (*(f'line {i}' for i in range(21, 30)), 'error: no data')
    assert failed.log == start.folder / 'log.txt'
    reason = 'behind start, which failed: ended with 2: error: no data'
    assert of(outcomes, tuned).error == of(outcomes, behind).error == reason
    assert of(outcomes, other).status == 'done' and exit_status(outcomes) == 1
    assert sorted(told) == ['behind', 'other', 'start', 'tuned']
    at_once, at_the_end = stream.getvalue().split('3 of 4 steps failed:')
    assert at_once.index('| line 29') < at_once.index('done    other')
    for said in (at_once, at_the_end):
        assert said.count('failed  start ended with 2: error: no data\n    | line 21') == 1
        assert said.count(f'    {failed.log}\n') == 1 and f'failed  behind {reason}' in said


@pytest.mark.parametrize(
    ('code', 'error'),
    [
        ('os.kill(os.getpid(), 9)',
         'was ended by signal 9 (Killed), as happens where memory is short'),
        ('os.kill(os.getpid(), 6)', 'was ended by signal 6 (Aborted)'),
        ('sys.exit(3)', 'ended with 3: nothing was printed'),
        ('os._exit(0)', 'ended with 0, but its product is missing'),
    ],
)  # fmt: skip
def test_says_how_a_step_ended_and_runs_it_again_next_time(tmp_path, code, error):
    step, other = make_step(tmp_path, 'step', code), make_step(tmp_path, 'other')
    outcomes = run([step, other])
    assert of(outcomes, step).error == error and of(outcomes, other).status == 'done'
    assert exit_status(run([step._replace(cfg=''), other])) == 0
    assert journal(tmp_path) == [
        'begun step', 'begun other', 'done other', 'begun step', 'done step'
    ]  # fmt: skip


def test_the_tail_is_of_this_attempt(tmp_path):
    step = make_step(tmp_path, 'step', "print('first'); sys.exit(1)")
    run([step])
    assert of(run([step._replace(cfg='sys.exit(1)')]), step).tail == ()
    assert (step.folder / 'log.txt').read_text() == 'first\n'


def test_a_product_counts_however_the_process_ended(tmp_path):
    step = make_step(tmp_path, 'step', "product.write_text('made'); sys.exit(1)")
    assert of(run([step]), step).status == 'done'


def test_a_folder_may_make_room_for_another_step(tmp_path):
    def prepare(step):
        step.folder.rename(tmp_path / 'before')
        step.folder.mkdir()
        assert StepLock.acquire(step.folder) is None  # it is still ours

    step = make_step(tmp_path, 'step', "print('error: new'); sys.exit(1)")
    step.folder.mkdir()
    (step.folder / 'log.txt').write_text('old ' * 100)
    assert of(run([step], prepare=prepare), step).tail == ('error: new',)


def test_a_step_that_cannot_be_started_fails_alone(tmp_path):
    def prepare(step):
        if step.name == 'wrong':
            raise UserError('config', '3 found', 'expected 4')

    wrong, absent, right = (make_step(tmp_path, name) for name in ('wrong', 'absent', 'right'))
    outcomes = run(
        [wrong, absent, right],
        prepare=prepare,
        command_of=lambda step: ['/no/such'] if step.name == 'absent' else command_of(step),
    )
    assert of(outcomes, wrong).error.endswith('config: 3 found; expected 4')
    assert '[Errno 2]' in of(outcomes, absent).error and '/no/such' in of(outcomes, absent).error
    assert of(outcomes, right).status == 'done'
    assert exit_status(run([wrong, absent])) == 0  # the locks were let go


def test_refuses_needs_that_nothing_makes(tmp_path):
    lost = make_step(tmp_path, 'lost')
    step = make_step(tmp_path, 'step', needs=[lost])
    with mistake(str(lost.product), 'step'):
        run([step])
    lost.folder.mkdir()
    lost.product.write_text('a file of the user')
    assert exit_status(run([step])) == 0


def test_refuses_a_circle(tmp_path):
    first = make_step(tmp_path, 'first')
    second = make_step(tmp_path, 'second', needs=[first])
    with pytest.raises(CycleError):
        run([first._replace(needs=(second.product,)), second])


class Forked:
    """A pool in a process of its own, and what it said."""

    def __init__(self, tmp_path, steps, slots=1):
        self.said = tmp_path / 'said'
        self.process = multiprocessing.get_context('fork').Process(
            target=self._run, args=(steps, slots)
        )
        self.process.start()

    def _run(self, steps, slots):
        with (
            self.said.open('w') as file,
            contextlib.redirect_stderr(file),
            contextlib.redirect_stdout(file),
        ):
            raise SystemExit(exit_status(run(steps, slots, stream=file)))

    def end(self, signum=None):
        """Send a signal; return the exit status."""
        if signum is not None:
            os.kill(self.process.pid, signum)
        self.process.join(300)
        return self.process.exitcode


def wait_for(root, line):
    end = time.monotonic() + 300
    while not (root / 'journal').is_file() or line not in journal(root):
        assert time.monotonic() < end, f'no {line!r} in time'
        time.sleep(0.01)


@pytest.mark.parametrize(
    ('signum', 'name'), [(signal.SIGINT, 'SIGINT'), (signal.SIGTERM, 'SIGTERM')]
)
def test_asked_to_end_it_has_checkpoints_written_and_goes_on_from_them(tmp_path, signum, name):
    quick = make_step(tmp_path, 'quick')
    long = [make_step(tmp_path, name, 'time.sleep(60)') for name in ('one', 'two')]
    later = make_step(tmp_path, 'later', needs=long)
    steps = [quick, *long, later]
    forked = Forked(tmp_path, steps, slots=2)
    for line in ('done quick', 'begun one', 'begun two'):
        wait_for(tmp_path, line)
    assert forked.end(signum) == 128 + signum
    said = forked.said.read_text().splitlines()
    assert said[-2] == 'stopping: 2 running steps write their checkpoints'
    assert said[-1] == (
        f'interrupted by {name}: 1 of 4 steps are finished; the same command goes on from there'
    )
    assert {'stopped one', 'stopped two'} <= set(journal(tmp_path))
    before = len(journal(tmp_path))
    assert exit_status(run(steps)) == 0
    assert journal(tmp_path)[before:] == [
        'resumed one', 'done one', 'resumed two', 'done two', 'begun later', 'done later'
    ]  # fmt: skip


def test_a_step_that_will_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, 'GRACE', 0.2)
    code = "signal.signal(signal.SIGTERM, signal.SIG_IGN); note('deaf'); time.sleep(60)"
    forked = Forked(tmp_path, [make_step(tmp_path, 'step', code)])
    wait_for(tmp_path, 'deaf step')
    assert forked.end(signal.SIGTERM) == 143
    assert StepLock.acquire(tmp_path / 'step') is not None  # nobody is at it any more


def test_a_pool_that_is_killed_leaves_no_step_to_be_run_twice(tmp_path):
    steps = [make_step(tmp_path, 'step', "wait_for('go on')"), make_step(tmp_path, 'other')]
    forked = Forked(tmp_path, steps)
    wait_for(tmp_path, 'begun step')
    assert forked.end(signal.SIGKILL) == -9

    def go_on(step, outcome):
        with (tmp_path / 'journal').open('a') as file:
            file.write('go on\n')

    stream = io.StringIO()
    outcomes = run(
        steps, stream=stream, on_done=lambda *told: told[0].name == 'other' and go_on(*told)
    )
    assert exit_status(outcomes) == 0
    assert journal(tmp_path) == ['begun step', 'begun other', 'done other', 'go on', 'done step']
    left = f'step: left to process {forked.process.pid} on '
    assert stream.getvalue().count(left) == 1 and 'done    step elsewhere' in stream.getvalue()


def test_two_pools_share_the_work(tmp_path):
    start = make_step(tmp_path, 'start', 'time.sleep(0.1)')
    steps = [
        start,
        *(make_step(tmp_path, f'step{i}', 'time.sleep(0.05)', [start]) for i in range(8)),
    ]
    forked = Forked(tmp_path, steps, slots=2)
    outcomes = run(steps, slots=2)
    assert forked.end() == 0 and exit_status(outcomes) == 0
    begun = sorted(line for line in journal(tmp_path) if line.startswith('begun'))
    assert begun == sorted(f'begun {step.name}' for step in steps)
    assert 'elsewhere' in forked.said.read_text()


def test_what_another_pool_could_not_make_is_tried_here(tmp_path):
    step, lock = make_step(tmp_path, 'step'), StepLock.acquire(tmp_path / 'step')
    other = make_step(tmp_path, 'other')
    outcomes = run([step, other], on_done=lambda done, _: done is other and lock.release())
    assert exit_status(outcomes) == 0 and journal(tmp_path)[-1] == 'done step'


def test_the_lock_of_the_dead_blocks_nobody(tmp_path):
    step = make_step(tmp_path, 'step')
    lock_file(step.folder).write_text('process 1 on another-machine')
    assert exit_status(run([step])) == 0


def test_an_error_of_the_callers_leaves_nothing_running(tmp_path):
    steps = [
        make_step(tmp_path, 'long', 'time.sleep(60)'),
        make_step(tmp_path, 'short', "wait_for('begun long')"),
    ]

    def on_done(step, outcome):
        raise KeyError(step.name)

    with pytest.raises(KeyError, match='short'):
        run(steps, slots=2, on_done=on_done)
    assert journal(tmp_path)[-1] == 'stopped long'


def test_children_see_the_environment_of_their_slot(tmp_path):
    code = (
        "note('on ' + os.environ['CUDA_VISIBLE_DEVICES'] + ' ' + os.environ['OMP_NUM_THREADS'])\n"
        "[wait_for(f'begun {name}') for name in 'abcd']"
    )
    steps = [make_step(tmp_path, name, code) for name in 'abcd']
    slots = local_slots(jobs_per_gpu=2, gpus=['0', '3'], environ={})
    assert exit_status(run(steps, slots)) == 0
    threads = slots[0].env['OMP_NUM_THREADS']
    seen = sorted(line.rsplit(' ', 1)[0] for line in journal(tmp_path) if line.startswith('on'))
    assert seen == [f'on {gpu} {threads}' for gpu in '0033']


def test_slots_share_out_the_cores(monkeypatch):
    monkeypatch.setattr(executors, 'usable_cores', lambda: 8)

    def threads(**options):
        return [
            slot.env.get('OMP_NUM_THREADS')
            for slot in local_slots(**{'environ': {}, 'gpus': [], **options})
        ]

    assert threads() == ['2'] * 4
    assert threads(workers=3) == ['2'] * 3
    assert threads(workers=16) == ['1'] * 16
    assert threads(gpus=['0', '1'], jobs_per_gpu=2) == ['2'] * 4
    assert threads(workers=2, environ={'OMP_NUM_THREADS': '1'}) == [None] * 2  # inherited
    names = [slot.name for slot in local_slots(gpus=['0', '1'], jobs_per_gpu=2, environ={})]
    assert names == ['GPU 0', 'GPU 1', 'GPU 0', 'GPU 1']


@pytest.mark.parametrize('options', [dict(workers=0), dict(jobs_per_gpu=-1), dict(workers=True)])
def test_refuses_no_slot(options):
    ((name, value),) = options.items()
    with mistake(name, repr(value), '1'):
        local_slots(gpus=[], **options)


def test_gpus_are_those_that_torch_sees(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert visible_gpus({'CUDA_VISIBLE_DEVICES': '0,1'}) == []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert visible_gpus({}) == ['0', '1']
    assert visible_gpus({'CUDA_VISIBLE_DEVICES': '3, GPU-ab'}) == ['3', 'GPU-ab']
