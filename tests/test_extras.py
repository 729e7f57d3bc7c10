"""Packages of optional extras: nothing but the command that needs one imports it."""

import re
import subprocess
import sys

import pytest
from mistakes import check_mistake, mistake

from mm_tuning_plugin.cli import benchmark, demo
from mm_tuning_plugin.extras import need_extra

# mmengine itself requires matplotlib, and the fork of mmseg scipy: both are imported before the
# others are blocked, so that only our own imports fail. A module that is None cannot be imported.
BLOCKED = """
import sys
import mmengine.runner, mmengine.visualization, mmseg.apis, mmseg.datasets, mmseg.models
for name in ('jinja2', 'pandas', 'scipy', 'sklearn'):
    sys.modules[name] = None
"""
TRAIN = """
import mm_tuning_plugin.engine, mm_tuning_plugin.inspection
from mm_tuning_plugin.cli.train import entry
sys.exit(entry(sys.argv[1:]))
"""


def test_both_stages_run_without_the_extras_and_name_the_one_of_the_report(toy_cfg, tmp_path):
    toy_cfg.mix_and_match.update(max_iters=2, images_per_batch=2, pictures=(), report=True)
    toy_cfg.dump(str(tmp_path / 'toy.py'))
    command = [sys.executable, '-c', BLOCKED + TRAIN, str(tmp_path / 'toy.py')]
    work_dir = tmp_path / 'run'
    done = subprocess.run(
        [*command, '--work-dir', str(work_dir)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if 'mm_tuning_plugin[' in line]
    assert len(lines) == 1 and "pip install 'mm_tuning_plugin[report]'" in lines[0]
    assert (work_dir / 'stages.json').is_file() and not (work_dir / 'report.html').exists()


@pytest.mark.parametrize('command, words', [
    (benchmark, ['plan.py', '--work-dir', 'bench']), (demo, ['--work-dir', 'demo']),
])  # fmt: skip
@pytest.mark.parametrize('name', ['pandas', 'jinja2'])
def test_a_comparison_needs_its_extras_before_it_runs(
    monkeypatch, tmp_path, capfd, command, words, name
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, name, None)
    assert command.entry(words) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1].removeprefix('error: ')
    check_mistake(line, 'benchmark', name, "pip install 'mm_tuning_plugin[benchmark]'")
    assert not list(tmp_path.iterdir())


def test_only_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'scipy', None)
    with mistake('benchmark', problem=re.compile('^scipy not'), remedy='[benchmark]'):
        need_extra('benchmark')
