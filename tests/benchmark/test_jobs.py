import json
import sys

import pytest
from mmengine.config import Config

from mm_tuning_plugin.benchmark import jobs
from mm_tuning_plugin.benchmark.arms import Job
from mm_tuning_plugin.benchmark.jobs import run_command, run_job
from mm_tuning_plugin.errors import UserError


def python(code):
    return [sys.executable, '-c', code]


def test_keeps_what_is_printed_and_reports_progress(tmp_path):
    code = (
        "print('stage 1 of 2: tuning')\n"
        "print('07/01 - mmengine - INFO - Iter(train) [ 10/400]  lr: 1e-2')\n"
        "print('stage 2 of 2: fine-tuning')\n"
        "import sys; print('Iter(train) [1000/1000]', file=sys.stderr)\n"
        "print('Iter(val) [5/9]')\n"
    )
    seen = []
    run_command(python(code), tmp_path / 'log.txt', lambda *report: seen.append(report))
    assert sorted(seen) == [('1', 10, 400), ('2', 1000, 1000)]
    assert 'Iter(train) [1000/1000]' in (tmp_path / 'log.txt').read_text(encoding='utf-8')


@pytest.mark.parametrize(
    ('code', 'message'),
    [
        ("print('error: data: none found\\n\\n'); raise SystemExit(2)",
         'the run ended with 2: error: data: none found'),
        ('raise SystemExit(3)', 'the run ended with 3: nothing was printed'),
        ("raise KeyError('x')", "the run ended with 1: KeyError: 'x'"),
        ("import sys; sys.stdout.buffer.write(b'bad \\xff byte'); sys.exit(1)",
         'the run ended with 1: bad \ufffd byte'),
    ],
)  # fmt: skip
def test_a_failing_run_says_its_last_line_and_its_log(tmp_path, code, message):
    log = tmp_path / 'log.txt'
    with pytest.raises(UserError) as error:
        run_command(python(code), log)
    assert str(error.value) == f'{log}: {message}'


@pytest.fixture
def job():
    return Job('tuned-seed0', 'tuned', 0, Config({'train_cfg': {'max_iters': 3}}))


class FakeRuns:
    """Stands in for `run_command`: writes the results of a run, unless it is told to fail."""

    def __init__(self):
        self.commands = []
        self.failing = False

    def __call__(self, command, log, progress=None):
        self.commands.append(command)
        if self.failing:
            raise UserError('failed')
        folder = log.parent / 'run'
        folder.mkdir(exist_ok=True)
        results = json.dumps({'run': len(self.commands)})
        (folder / 'stages.json').write_text(results, encoding='utf-8')


@pytest.fixture
def runs(monkeypatch):
    fake = FakeRuns()
    monkeypatch.setattr(jobs, 'run_command', fake)
    return fake


def test_runs_once_with_the_config_in_its_folder(tmp_path, job, runs):
    folder = tmp_path / 'a' / job.name
    assert run_job(job, folder) == {'run': 1}
    (command,) = runs.commands
    assert command[0] == sys.executable and '--overwrite' in command
    assert command[command.index('--work-dir') + 1] == str(folder / 'run')
    assert Config.fromfile(folder / 'config.py').train_cfg.max_iters == 3
    assert run_job(job, folder) == {'run': 1} and len(runs.commands) == 1


def test_another_config_runs_again(tmp_path, job, runs):
    run_job(job, tmp_path)
    changed = job._replace(cfg=Config({'train_cfg': {'max_iters': 4}}))
    assert run_job(changed, tmp_path) == {'run': 2}


def test_a_failed_run_is_not_finished(tmp_path, job, runs):
    run_job(job, tmp_path)
    changed = job._replace(cfg=Config({'train_cfg': {'max_iters': 4}}))
    runs.failing = True
    with pytest.raises(UserError):
        run_job(changed, tmp_path)
    runs.failing = False
    # neither the old results nor the failed run are taken for the changed job's
    assert run_job(changed, tmp_path) == {'run': 3}
