import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import fake_slurm
import pytest
from mistakes import mistake
from steps_on_disk import command_of, journal, make_step

from mm_tuning_plugin.benchmark.run import slurm
from mm_tuning_plugin.benchmark.run.pool import exit_status, run_steps
from mm_tuning_plugin.benchmark.run.progress import Display
from mm_tuning_plugin.benchmark.run.slurm import JOB_FILE, SlurmExecutor, parse_options

submitit = pytest.importorskip('submitit')
OPTIONS = dict(timeout_min=60)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(SlurmExecutor, 'interval', 0.05)
    monkeypatch.setattr(slurm, 'ASKED_EVERY', 0.5)
    monkeypatch.setattr(slurm, 'ASKED_EVERY_WHILE_STOPPING', 0.2)
    root = str(Path(slurm.__file__).parents[2])
    monkeypatch.setenv('PYTHONPATH', f'{root}:{os.environ.get("PYTHONPATH", "")}')


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A cluster whose commands are on the path; the folder of its jobs."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    fake_slurm.install(folder)
    # submitit's one watcher knows jobs by their numbers, those of other clusters among them
    monkeypatch.setattr(submitit.SlurmJob, 'watcher', type(submitit.SlurmJob.watcher)())
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
    return folder


def run(steps, executor, stream=None, **options):
    display = Display(steps, stream or io.StringIO())
    return run_steps(
        steps,
        executor,
        display=display,
        command_of=command_of,
        prepare=lambda step: None,
        **options,
    )


def wait_for(root, line):
    end = time.monotonic() + 300
    while not (root / 'journal').is_file() or line not in journal(root):
        assert time.monotonic() < end, f'no {line!r} in time'
        time.sleep(0.01)


def descendants(pid):
    found = subprocess.run(['pgrep', '-P', pid], capture_output=True, text=True).stdout.split()
    return [*found, *(other for child in found for other in descendants(child))]


def test_reads_options():
    given = ['partition=gpu', 'timeout_min=240', 'cpus-per-task=8', '--qos=long', 'mem_gb=32']
    assert parse_options(given) == dict(
        slurm_partition='gpu', timeout_min=240, cpus_per_task=8, slurm_qos='long', mem_gb=32
    )
    for wrong in ('gpu', '=3'):
        with mistake('--slurm', repr(wrong), 'NAME=VALUE'):
            parse_options([wrong])


def test_is_refused_in_one_line_without_submitit(monkeypatch):
    monkeypatch.setitem(sys.modules, 'submitit', None)
    with mistake('--slurm', 'submitit', 'pip install submitit'):
        SlurmExecutor(OPTIONS)


@pytest.mark.parametrize(
    ('options', 'name'),
    [
        (dict(), 'timeout_min'),
        (dict(OPTIONS, slurm_partitoin='gpu'), "'partitoin'"),
        (dict(timeout_min='long'), '"timeout_min"'),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(cluster, options, name):
    with mistake('--slurm', name):
        SlurmExecutor(options)


def test_is_refused_where_there_is_no_slurm(monkeypatch):
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    with mistake('--slurm', '"srun"'):
        SlurmExecutor(OPTIONS)


def test_runs_a_plan_by_submitits_local_executor(tmp_path):
    start = make_step(tmp_path, 'start', "print('error: no data'); sys.exit(2)")
    behind = make_step(tmp_path, 'behind', needs=[start])
    other = make_step(tmp_path, 'other', "print('fine')")
    outcomes = run([start, behind, other], SlurmExecutor(OPTIONS, cluster='local'))
    assert outcomes[start.product].error == 'ended with 2: error: no data'
    assert outcomes[behind.product].error.startswith('behind start, which failed')
    assert outcomes[other.product].status == 'done'
    assert (other.folder / 'log.txt').read_text() == 'fine\n'
    assert not (other.folder / JOB_FILE).exists()


def test_a_job_that_is_stopped_for_another_writes_a_checkpoint_and_goes_on(tmp_path):
    step = make_step(tmp_path, 'step', 'time.sleep(60)')
    executor = SlurmExecutor(OPTIONS, cluster='local')

    def preempt():
        wait_for(tmp_path, 'begun step')
        for pid in descendants(executor.handles[0].job.job_id):  # the step's own process is one
            os.kill(int(pid), signal.SIGUSR2)

    thread = threading.Thread(target=preempt)
    thread.start()
    assert exit_status(run([step], executor)) == 0
    thread.join()
    assert journal(tmp_path) == ['begun step', 'stopped step', 'resumed step', 'done step']


def test_runs_a_plan_on_a_cluster(tmp_path, cluster):
    first = make_step(tmp_path, 'first', "print('hello')")
    second = make_step(tmp_path, 'second', needs=[first])
    options = parse_options(['partition=gpu', 'timeout_min=60', 'gpus_per_node=1'])
    assert exit_status(run([first, second], SlurmExecutor(options, max_jobs=1))) == 0
    script = (cluster / '1.sh').read_text()
    for line in ('partition=gpu', 'time=60', 'gpus-per-node=1', 'job-name=first'):
        assert f'#SBATCH --{line}\n' in script
    assert (first.folder / 'log.txt').read_text() == 'hello\n'


def test_has_most_jobs_at_once(tmp_path):
    steps = [make_step(tmp_path, name, 'time.sleep(0.2)') for name in 'ab']
    assert exit_status(run(steps, SlurmExecutor(OPTIONS, max_jobs=1, cluster='local'))) == 0
    assert journal(tmp_path) == ['begun a', 'done a', 'begun b', 'done b']


def test_a_job_that_vanishes_is_a_failure(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(submitit.SlurmJob, '_results_timeout_s', 0)
    step = make_step(tmp_path, 'step', 'os.kill(os.getppid(), 9); os._exit(1)')
    (outcome,) = run([step], SlurmExecutor(OPTIONS)).values()
    assert outcome.error == 'ended with 1: job 1 gave no result: CANCELLED'
    assert any('has not produced any output' in line for line in outcome.tail)


def test_asks_for_the_states_of_jobs_now_and_then(cluster, monkeypatch, tmp_path):
    asked = []
    watcher = SimpleNamespace(update=lambda: asked.append('sacct'))
    job = SimpleNamespace(watcher=watcher, done=lambda: False, cancel=lambda check: None)
    executor = SlurmExecutor(OPTIONS)
    executor.handles += [slurm.JobHandle(job, tmp_path / 'log', executor) for _ in range(2)]
    monkeypatch.setattr(slurm, 'ASKED_EVERY', 600)
    monkeypatch.setattr(slurm, 'ASKED_EVERY_WHILE_STOPPING', 0)
    first, second = executor.handles
    assert first.poll() is second.poll() is None and asked == []
    first.terminate()
    first.poll()
    assert asked == ['sacct']
    monkeypatch.setattr(slurm, 'ASKED_EVERY_WHILE_STOPPING', 600)
    first.poll()
    assert asked == ['sacct']


def test_asked_to_end_it_cancels_its_jobs_and_goes_on_later(tmp_path, cluster):
    step = make_step(tmp_path, 'step', 'time.sleep(60)')

    def interrupt():
        wait_for(tmp_path, 'begun step')
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(SystemExit) as ended:
        run([step], SlurmExecutor(OPTIONS))
    assert ended.value.code == 130
    wait_for(tmp_path, 'stopped step')
    assert exit_status(run([step], SlurmExecutor(OPTIONS))) == 0
    assert journal(tmp_path)[-2:] == ['resumed step', 'done step']


def test_the_job_of_a_pool_that_was_killed_is_taken_over(tmp_path, cluster):
    step = make_step(tmp_path, 'step', "wait_for('go on')")
    step.folder.mkdir()
    executor = SlurmExecutor(OPTIONS)
    executor.start(step.name, command_of(step), step.folder / 'log.txt', -1)
    wait_for(tmp_path, 'begun step')  # and the pool is gone

    def go_on():
        end = time.monotonic() + 300
        while not later.handles and time.monotonic() < end:
            time.sleep(0.01)
        with (tmp_path / 'journal').open('a') as file:
            file.write('go on\n')

    later = SlurmExecutor(OPTIONS)
    threading.Thread(target=go_on).start()
    assert exit_status(run([step], later)) == 0
    assert journal(tmp_path) == ['begun step', 'go on', 'done step']
    assert len(list(cluster.glob('*.sh'))) == 1
