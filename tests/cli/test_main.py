"""``mm-tuning``: one name for all commands, with the options of the scripts."""

import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from mistakes import check_mistake

from mm_tuning_plugin import __version__
from mm_tuning_plugin.cli.common.usage import STATUSES
from mm_tuning_plugin.cli.main import COMMANDS, SOME_FAILED, entry

ROOT = Path(__file__).parents[2]
HEAVY = ('torch', 'mmengine', 'mmcv', 'mmseg', 'numpy', 'matplotlib')


def help_of(capsys, call):
    with pytest.raises(SystemExit) as ended:
        call()
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_lists_every_command_and_the_statuses(capsys):
    assert entry(['--help']) == 0
    out = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert re.search(rf'^  {name} +{re.escape(command.summary)}$', out, re.MULTILINE)
        assert f'  mm-tuning {name} {command.example}'.rstrip() in out.splitlines()
    for status in ('0', '1', '2', '130, 143'):
        assert re.search(rf'^  {status} +\w', out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize('name', COMMANDS)
def test_a_command_has_the_help_of_its_script(name, capsys):
    """Every option, text and default: there is one parser."""
    module = importlib.import_module(f'mm_tuning_plugin.cli.{COMMANDS[name].module}')
    ours = help_of(capsys, lambda: entry([name, '--help']))
    scripts = help_of(capsys, lambda: module.entry(['--help']))
    assert ours.startswith(f'usage: mm-tuning {name} ')
    assert f'  mm-tuning {name}' in ours and f'  python tools/{module.SCRIPT}' in scripts
    assert 'exit status:\n  0 ' in ours
    plain = scripts.replace(f'python tools/{module.SCRIPT}', 'CALL').replace(module.SCRIPT, 'CALL')
    assert ours.replace(f'mm-tuning {name}', 'CALL').split() == plain.split()
    assert (ROOT / 'tools' / module.SCRIPT).is_file()


@pytest.mark.parametrize('name', COMMANDS)
def test_examples_parse(name):
    """What help shows as an example is taken by the parser that shows it."""
    module = importlib.import_module(f'mm_tuning_plugin.cli.{COMMANDS[name].module}')
    text = module.build_parser('CALL').format_help()
    shown = re.findall(r'^  CALL ?(.*)$', text, re.MULTILINE)
    assert shown
    for arguments in [*shown, COMMANDS[name].example]:
        module.build_parser().parse_args(arguments.split())


def test_help_imports_nothing_heavy():
    """Of any command: torch and mmengine alone would take seconds."""
    code = f"""
import contextlib, io, sys
from mm_tuning_plugin.cli.main import COMMANDS, SOME_FAILED, entry
from mm_tuning_plugin.cli.common.usage import STATUSES
with contextlib.redirect_stdout(io.StringIO()):
    entry(['--help'])
    for name in COMMANDS:
        with contextlib.suppress(SystemExit):
            entry([name, '--help'])
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert not heavy, heavy
assert all(f'mm_tuning_plugin.cli.{{name}}' in sys.modules for name in COMMANDS)
"""
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ('argv', 'where', 'problem', 'remedy'),
    [
        (['trian'], 'COMMAND', "'trian'", 'use train'),
        (['DEMO'], 'COMMAND', "'DEMO'", 'use demo'),
        (['my_config.py'], 'COMMAND', "'my_config.py'", 'use '),
        (['--seed', '1'], '--seed', 'mm-tuning', ''),
        ([], 'COMMAND', 'none', '--help'),
    ],
)
def test_no_such_command_is_one_line(argv, where, problem, remedy, capsys):
    assert entry(argv) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith('error: ') and captured.err.count('\n') == 1
    check_mistake(captured.err.removeprefix('error: '), where, problem, (remedy, *COMMANDS))
    assert captured.out == ''


def test_version(capsys):
    assert entry(['--version']) == 0
    assert capsys.readouterr().out == f'{__version__}\n'


def test_statuses_of_a_command_are_handed_on(capsys):
    assert entry(['train', 'nowhere.py']) == 2
    line = capsys.readouterr().err.removeprefix('error: ')
    check_mistake(line, 'nowhere.py', 'no such file')
    with pytest.raises(SystemExit) as ended:
        entry(['train', 'nowhere.py', '--no-such-option'])
    assert ended.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('mm-tuning train: error: ') and '--no-such-option' in line


def test_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['x', 'convert', '--help'])
    out = help_of(capsys, lambda: runpy.run_module('mm_tuning_plugin', run_name='__main__'))
    assert out.startswith('usage: python -m mm_tuning_plugin convert ')


def test_the_console_entry_is_declared():
    declared = re.search(r"'mm-tuning = ([\w.]+):(\w+)'", (ROOT / 'setup.py').read_text())
    assert getattr(importlib.import_module(declared[1]), declared[2]) is entry


def test_the_document_has_every_command_and_status():
    text = (ROOT / 'docs' / 'commands.md').read_text(encoding='utf-8')
    for name, command in COMMANDS.items():
        script = importlib.import_module(f'mm_tuning_plugin.cli.{command.module}').SCRIPT
        assert f'| `mm-tuning {name}` | `tools/{script}` |' in text
    for status, meaning in {**STATUSES, '1': SOME_FAILED}.items():
        row = re.search(rf'^\| {status} \| (.*) \|$', text, re.MULTILINE)[1]
        assert meaning in row or meaning == row.split(';')[0], status
