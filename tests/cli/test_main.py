import subprocess
import sys

import pytest

from mm_tuning_plugin import __version__
from mm_tuning_plugin.cli import main as cli
from mm_tuning_plugin.cli import run as running

HEAVY = ('torch', 'mmengine', 'mmcv', 'mmseg', 'matplotlib', 'pandas', 'scipy')
PROBE = (
    'import sys; from mm_tuning_plugin.cli.main import entry\n'
    'try: status = entry(sys.argv[1:])\n'
    'except SystemExit as end: status = end.code\n'
    f'print("heavy:", [name for name in {HEAVY} if name in sys.modules])\n'
    'sys.exit(status)'
)


@pytest.fixture(autouse=True)
def own_name(monkeypatch):
    monkeypatch.setattr(running, 'through_mm_tuning', False)


def called(*words):
    return subprocess.run([sys.executable, '-c', PROBE, *words], capture_output=True, text=True)


@pytest.mark.parametrize('words', [[], ['--help'], *([name, '--help'] for name in cli.COMMANDS)])
def test_help_is_quick_because_nothing_heavy_is_imported(words):
    done = called(*words)
    assert done.returncode == 0, done.stderr
    assert 'heavy: []' in done.stdout
    assert f'usage: mm-tuning {words[0] if len(words) == 2 else "COMMAND"}' in done.stdout


def test_the_overview_has_every_command_with_examples_and_exit_codes(capsys):
    assert cli.entry([]) == 0
    shown = capsys.readouterr().out
    for name, (_, what) in cli.COMMANDS.items():
        assert name in shown and what in shown
    assert 'mm-tuning train my_config.py' in shown and '128+n' in shown


def test_the_version(capsys):
    assert cli.entry(['--version']) == 0
    assert __version__ in capsys.readouterr().out


def test_an_unknown_command_is_one_line_with_the_nearest(capsys):
    assert cli.entry(['trian', 'my_config.py']) == 2
    error = capsys.readouterr().err.strip()
    assert error == "error: 'trian' found, expected a command of mm-tuning; the nearest is train"


def test_options_are_those_of_the_scripts(capsys, tmp_path):
    assert cli.entry(['train', str(tmp_path / 'none.py')]) == 2
    assert 'none.py' in capsys.readouterr().err
    assert cli.entry(['report', str(tmp_path)]) == 2
    assert 'no stages.json found' in capsys.readouterr().err


def test_as_a_module_it_is_the_same():
    done = subprocess.run(
        [sys.executable, '-m', 'mm_tuning_plugin', 'benchmrak'], capture_output=True, text=True
    )
    assert done.returncode == 2 and 'nearest is benchmark' in done.stderr
