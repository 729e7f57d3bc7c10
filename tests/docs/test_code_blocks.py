"""Every code block of README and docs: commands are ones that there are, Python is a config."""

import importlib
import re
from pathlib import Path

import mmseg
import pytest
from blocks import ROOT, blocks, commands
from mmengine.config import Config

from mm_tuning_plugin.cli.main import COMMANDS as COMMANDS_OF_MAIN
from mm_tuning_plugin.engine import derive_tuning_config

TOOLS = {
    'benchmark.py': 'benchmark', 'convert_checkpoint.py': 'convert', 'demo.py': 'demo',
    'doctor.py': 'doctor', 'report.py': 'report', 'sweep_configs.py': 'sweep',
    'train.py': 'train',
}  # fmt: skip
COMMANDS = [
    pytest.param(words, id=f'{block.page}: {" ".join(words)[:60]}')
    for block in blocks('sh')
    for words in commands(block.code)
]
CONFIGS = [
    pytest.param(block.code, id=f'{block.page}-{number}')
    for number, block in enumerate(blocks('python'))
    if not block.title  # pages whose blocks are files are followed from top to bottom
]


def test_every_block_says_what_it_is():
    wrong = [(b.page, b.language, b.code[:40]) for b in blocks() if b.language not in KINDS]
    assert not wrong


KINDS = ('sh', 'python', 'text')


@pytest.mark.parametrize('words', COMMANDS)
def test_a_command_is_one_that_there_is(words):
    program, *arguments = words
    if program == 'make':
        targets = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.M)
        assert arguments[0] in targets
    elif program == 'pip':
        named = re.findall(r"'\.\[([\w,]+)\]'|\.\[([\w,]+)\]", ' '.join(arguments))
        extras = re.findall(r"^        '([\w-]+)':", (ROOT / 'setup.py').read_text(), re.M)
        assert arguments[0] == 'install'
        assert {name for pair in named for group in pair if group for name in group.split(',')} <= {
            *extras
        }
    elif program == 'bash':
        own = Path(mmseg.__path__[0]) / '.mim'  # mmseg's scripts, of an installed wheel
        assert (ROOT / arguments[0]).is_file() or (own / arguments[0]).is_file()
    elif program == 'mm-tuning':
        command, *options = arguments
        parser_of(COMMANDS_OF_MAIN[command][0]).parse_args(options)
    else:
        assert program in ('python', 'torchrun', 'srun')
        check_script(arguments)


def check_script(arguments):
    """The script is there, and its parser takes what is behind it."""
    if '-c' in arguments:
        compile(arguments[arguments.index('-c') + 1], 'command', 'exec')
        return
    if not any(word.endswith('.py') for word in arguments):
        importlib.import_module(arguments[arguments.index('-m') + 1])
        return
    at = next(i for i, word in enumerate(arguments) if re.match(r'tools/.*\.py$', word))
    script, options = ROOT / arguments[at], arguments[at + 1 :]
    if script.name not in TOOLS:  # measurements, without a module of their own
        text = script.read_text()
        assert [word for word in options if word.startswith('--') and f"'{word}'" not in text] == []
        return
    assert script.is_file()
    parser_of(TOOLS[script.name]).parse_args(options)


def parser_of(module):
    return importlib.import_module(f'mm_tuning_plugin.cli.{module}').build_parser()


@pytest.mark.parametrize('code', CONFIGS)
def test_python_is_a_config(code, toy_cfg, tmp_path, monkeypatch):
    """It reads as one; over the reader's own config stage one can be derived from it."""
    monkeypatch.chdir(tmp_path)
    toy_cfg.dump('your_config.py')
    Path('block.py').write_text(code)
    cfg = Config.fromfile('block.py')
    if 'arms' in cfg:
        return  # a plan
    options = cfg.get('mix_and_match') or {}
    merged = Config({**toy_cfg, 'mix_and_match': {**options, 'checkpoint': None}})
    derive_tuning_config(merged)
