"""The steps of a benchmark as jobs of a cluster, by way of submitit.

The pool runs where it was started and schedules as on one machine, but a step waits in the
cluster's queue instead of for a slot. The folders must be on a file system that the nodes share. If
the cluster stops a job because of its time limit or for another job, the job writes a checkpoint
and is queued again to continue.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mm_tuning_plugin.benchmark.run.executors import THREADS
from mm_tuning_plugin.errors import UserError

FOLDER = 'slurm'  # of submitit's files, below a step's folder
JOB_FILE = 'slurm_job.txt'  # the number of the job that is at a step
# Asked to end, a step has so long until it is killed: less than the 90 s that submitit gives.
PATIENCE = 75.0
# Seconds between two questions to the cluster's accounting, for jobs that end without a word.
ASKED_EVERY, ASKED_EVERY_WHILE_STOPPING = 60.0, 5.0
LOOKED_EVERY = 0.1  # seconds between two looks at whether the command has ended
TIMEOUTS = 20  # a job may reach its time limit so often
ENDED_BY_SIGTERM = (128 + signal.SIGTERM, -signal.SIGTERM)
SHARED = (
    'name', 'timeout_min', 'mem_gb', 'nodes', 'cpus_per_task', 'gpus_per_node', 'tasks_per_node',
    'stderr_to_stdout',
)  # fmt: skip
"""What submitit calls the same on every cluster; all else is an option of sbatch's."""


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Read ``--slurm`` options.

    Args:
        pairs: 'NAME=VALUE', named as submitit's parameters or as sbatch's options.

    Returns:
        Keyword arguments of submitit's ``update_parameters``.

    Raises:
        UserError: An option without '='.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition('=')
        name = name.strip('-').replace('-', '_')
        if not equals or not name:
            raise UserError(
                '--slurm', f'{pair!r} found', 'expected NAME=VALUE, as in partition=gpu'
            )
        key = name if name in SHARED or name.startswith('slurm_') else f'slurm_{name}'
        options[key] = int(value) if value.isdecimal() else value
    return options


class RunStep:
    """What a job runs on its node: the step's command, its output to the step's log.

    Args:
        command: Program and arguments.
        log: What it prints is appended here.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.command = list(command)
        self.log = log
        self.process: subprocess.Popen | None = None

    def __call__(self) -> int:
        """Run the command; return its exit status, minus the signal that killed it."""
        cores = os.environ.get('SLURM_CPUS_PER_TASK')
        threads = {name: cores for name in THREADS if cores and name not in os.environ}
        # submitit's signals come to the whole job; an ignored one stays ignored in the command
        before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        try:
            with self.log.open('ab') as file:
                self.process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, 'PYTHONUNBUFFERED': '1', **threads},
                )
        finally:
            signal.signal(signal.SIGUSR2, before)
        try:
            # Not wait(), whose lock would keep a signal's `checkpoint` from seeing the process end.
            while (status := self.process.poll()) is None:
                time.sleep(LOOKED_EVERY)
            if status in ENDED_BY_SIGTERM:
                # The cluster's first word to a job that it cancels, or puts into the queue again:
                # what comes next ends this job. With a result now, it would not be queued.
                time.sleep(PATIENCE)
            return status
        except BaseException:
            self._stop()
            raise

    def checkpoint(self) -> Any:
        """Called by submitit before the job is stopped; returns the job to queue instead."""
        from submitit.helpers import DelayedSubmission

        self._stop()
        return DelayedSubmission(RunStep(self.command, self.log))

    def _stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()


class SlurmExecutor:
    """Submits each command as a job.

    Args:
        options: From `parse_options`.
        max_jobs: Most jobs in the queue or running at once.
        cluster: 'slurm'; submitit's 'local' runs jobs as processes of this machine.

    Raises:
        UserError: submitit is not installed, there is no Slurm, or an option is unknown.
    """

    interval = 5.0

    def __init__(
        self, options: dict[str, Any], max_jobs: int = 100, cluster: str = 'slurm'
    ) -> None:
        self.options, self.cluster, self.max_jobs = dict(options), cluster, max_jobs
        self.handles: list[JobHandle] = []
        self._asked = time.monotonic()
        if 'timeout_min' not in self.options:
            raise UserError(
                '--slurm', 'no timeout_min found', 'expected timeout_min=MINUTES of a job'
            )
        with tempfile.TemporaryDirectory() as folder:  # report a mistake before any step
            _make_executor(Path(folder), self.options, cluster)

    def free(self) -> bool:
        """Whether one more job may be submitted."""
        return len(self.handles) < self.max_jobs

    def start(self, name: str, command: Sequence[str], log: Path, lock: int) -> JobHandle:
        """Submit a command, unless the job of a pool that was killed is still at it.

        See `Executor`; the lock is the pool's alone, for no descriptor reaches another machine.

        Raises:
            UserError: The cluster refuses such a job.
        """
        job = self._left_behind(log.parent)
        if job is None:
            executor = _make_executor(log.parent, {**self.options, 'name': name}, self.cluster)
            try:
                job = executor.submit(RunStep(command, log))
            except Exception as error:  # the message of sbatch
                reason = ' '.join(str(error).split())
                raise UserError(
                    '--slurm', f'{self.cluster} takes no job ({reason})', 'correct the options'
                ) from error
            (log.parent / JOB_FILE).write_text(job.job_id, encoding='utf-8')
        self.handles.append(JobHandle(job, log, self))
        return self.handles[-1]

    def ask(self, every: float) -> None:
        """Ask the cluster for the states of all jobs, if the last time was long enough ago."""
        if self.cluster == 'slurm' and time.monotonic() - self._asked >= every:
            self._asked = time.monotonic()
            self.handles[0].job.watcher.update()  # one for all

    def _left_behind(self, folder: Path) -> Any:
        """The job that a step's folder names, if the cluster still has it."""
        path = folder / JOB_FILE
        if self.cluster != 'slurm' or not path.is_file():
            return None
        from submitit import SlurmJob

        job = SlurmJob(folder / FOLDER, path.read_text(encoding='utf-8').strip())
        job.watcher.update()  # not what it remembers of other jobs
        return None if job.done() or job.state == 'UNKNOWN' else job


class JobHandle:
    """A job of a cluster; gives its place back when it has ended."""

    def __init__(self, job: Any, log: Path, executor: SlurmExecutor) -> None:
        self.job, self.log, self.executor = job, log, executor
        self._status: int | None = None
        self._stopping = False

    def poll(self) -> int | None:
        """See `Handle`. The cluster's message on a broken job goes into the step's log."""
        if self._status is None:
            self.executor.ask(ASKED_EVERY_WHILE_STOPPING if self._stopping else ASKED_EVERY)
            if self.job.done():
                self._status = self._end()
                self.executor.handles.remove(self)
        return self._status

    def terminate(self) -> None:
        """See `Handle`: Slurm sends SIGTERM to all of the job, and SIGKILL ``KillWait`` later."""
        self._stopping = True
        self.job.cancel(check=False)

    def kill(self) -> None:
        """See `Handle`: the cluster does."""
        self.terminate()

    def _end(self) -> int:
        folder = self.log.parent
        (folder / JOB_FILE).unlink(missing_ok=True)
        os.utime(folder)  # so that a network file system looks for the product again
        if self._stopping:
            return -signal.SIGTERM  # it may have been stopped before it wrote anything
        error = self.job.exception()
        if error is None:
            return int(self.job.result())
        with self.log.open('a', encoding='utf-8') as file:
            file.write(f'{error}\njob {self.job.job_id} gave no result: {self.job.state}\n')
        return 1


def _make_executor(folder: Path, options: dict[str, Any], cluster: str) -> Any:
    """Submitit's executor.

    Raises:
        UserError: See `SlurmExecutor`.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError('--slurm', 'submitit is not installed', 'pip install submitit') from error
    try:
        limit = {f'{cluster}_max_num_timeout': TIMEOUTS}
        executor = submitit.AutoExecutor(folder=folder / FOLDER, cluster=cluster, **limit)
        executor.update_parameters(**options)
    except (RuntimeError, ValueError, NameError, TypeError, AssertionError) as error:
        raise UserError(
            '--slurm',
            ' '.join(f'{type(error).__name__}: {error}'.split()),
            'expected a Slurm cluster, and options that submitit knows',
        ) from error
    return executor
