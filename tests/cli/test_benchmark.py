"""``tools/benchmark.py`` as a person runs it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from mistakes import check_mistake

from mm_tuning_plugin.cli.benchmark import entry


@pytest.fixture
def plan(toy_cfg, tmp_path):
    """A plan of two arms on disk, and a folder for its results."""
    toy_cfg.train_cfg.max_iters = 24
    toy_cfg.default_hooks.checkpoint.interval = 2
    toy_cfg.param_scheduler[0].end = 24
    toy_cfg.dump(str(tmp_path / 'toy.py'))
    path = tmp_path / 'plan.py'
    path.write_text(
        "config = 'toy.py'\narms = ['direct', 'tuned']\nseeds = [0]\nfractions = [0.5]\n"
        'recall = dict(images=2, patches=2, size_range=(16, 32), patch_size=32)\n'
    )
    return str(path), tmp_path / 'bench'


def fails(capfd, *argv):
    assert entry([str(word) for word in argv]) == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('error: ')
    return last.removeprefix('error: ')


def test_a_dry_run_shows_the_work_and_does_none_of_it(plan, capfd):
    path, work_dir = plan
    assert entry([path, '--work-dir', str(work_dir), '--dry-run', '--workers', '2']) == 0
    lines = capfd.readouterr().out.strip().splitlines()
    steps = [line for line in lines if line.startswith('to do')]
    names = ['toy-random-direct-0.5-fold0-seed0', 'toy-random-tuned-0.5-fold0-seed0: tuning',
             'toy-random-tuned-0.5-fold0-seed0']  # fmt: skip
    assert [line.split('  ')[-1] for line in steps] == names
    assert [line.split()[2] for line in steps] == ['24', '4', '24']
    assert '2 jobs, 0 of them finished; 3 steps, 3 to do: 52 iterations' in lines[-2]
    assert lines[-1].startswith('an estimate of the time: ') and 'with 2 steps' in lines[-1]
    assert 'other code' not in '\n'.join(lines)
    (work_dir / 'cache' / 'tuning-x').mkdir()
    (work_dir / 'cache' / 'tuning-x' / 'record.json').write_text('{}')
    assert entry([path, '--work-dir', str(work_dir), '--dry-run']) == 0
    assert '1 of 1 results' in capfd.readouterr().out
    assert not (work_dir / 'jobs').exists() and not (work_dir / 'results.csv').exists()


def test_choices_of_the_command(plan, capfd):
    path, work_dir = plan
    argv = [path, '--work-dir', str(work_dir), '--dry-run', '--arms', 'direct-2x', '--seeds', '7',
            '8', '--fractions', '1', '--starts', 'random']  # fmt: skip
    assert entry(argv) == 0
    out = capfd.readouterr().out
    assert 'toy-random-direct-2x-1-fold0-seed7' in out and '2 jobs' in out
    assert 'tuned' not in out


def test_mistakes_are_one_line(plan, capfd, tmp_path):
    path, work_dir = plan
    at = ['--work-dir', work_dir]
    check_mistake(fails(capfd, path, *at, '--arms', 'x'), 'arms', "'x'", "'tuned'")
    line = fails(capfd, path, *at, '--starts', 'x')
    check_mistake(line, path, "--starts: ['x']", "['random']")
    check_mistake(fails(capfd, path, *at, '--fractions', '3'), 'fractions', '[3.0]', '1')
    lost = str(tmp_path / 'nowhere.py')
    check_mistake(fails(capfd, lost, *at), lost, 'FileNotFoundError')
    results = str(work_dir / 'results.csv')
    check_mistake(fails(capfd, path, *at, '--report-only'), results, 'no such file')
    (tmp_path / 'toy.py').write_text('a = (')
    check_mistake(fails(capfd, path, *at), str(tmp_path / 'toy.py'), 'SyntaxError')


def test_it_goes_on_after_a_kill_and_reports(plan, capfd, forked_processes):
    path, work_dir = plan
    argv = [path, '--work-dir', str(work_dir), '--workers', '1', '--arms', 'direct']
    process = subprocess.Popen(
        [sys.executable, '-m', 'mm_tuning_plugin.cli.benchmark', *argv],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    run = wait_for_checkpoint(work_dir, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert [row['status'] for row in rows_of(work_dir)] == ['missing']

    assert entry(argv) == 0
    assert [row['status'] for row in rows_of(work_dir)] == ['done']
    # the step outlived its pool, or a new process took up its checkpoint; it was not begun anew
    log = (run.parent / 'log.txt').read_text(encoding='utf-8')
    assert log.count('Iter(train) [ 1/24]') == 1
    assert 'results: ' in capfd.readouterr().out and (work_dir / 'report.html').is_file()
    written = json.loads((work_dir / 'plan.json').read_text(encoding='utf-8'))
    assert written['command'][:3] == ['python', 'tools/benchmark.py', path]
    assert written['jobs'] == 1 and written['recall']['images'] == 2
    (work_dir / 'report.html').unlink()
    assert entry([*argv, '--report-only']) == 0
    assert (work_dir / 'report.html').is_file()


def wait_for_checkpoint(work_dir, process):
    """The folder of the first run, once it has a checkpoint."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        assert process.poll() is None, 'it ended too early'
        found = list(work_dir.glob('jobs/*/run/iter_*.pth'))
        if found:
            return found[0].parent
        time.sleep(0.05)
    raise AssertionError('no checkpoint in time')


def rows_of(work_dir):
    import csv

    with open(work_dir / 'results.csv', encoding='utf-8') as file:
        return list(csv.DictReader(file))
