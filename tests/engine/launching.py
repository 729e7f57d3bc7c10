"""Starting real ranks: commands, environments, and what the probe in each rank told."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROBE = Path(__file__).parent / 'probe'


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def environment(first='', **variables):
    """Of a rank on the CPU that finds this checkout, this interpreter as python, and the probe.

    Commands in the folder `first` come before all others.
    """
    folders = [str(first), str(Path(sys.executable).parent), os.environ['PATH']]
    path = os.pathsep.join(filter(None, folders))
    places = [str(ROOT), str(PROBE), os.environ.get('PYTHONPATH', '')]
    launcher = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')
    inherited = {k: v for k, v in os.environ.items() if k not in launcher}
    return {
        **inherited,
        'PATH': path,
        'PYTHONPATH': os.pathsep.join(filter(None, places)),
        'CUDA_VISIBLE_DEVICES': '-1',
        'OMP_NUM_THREADS': '1',
        **{name: str(value) for name, value in variables.items()},
    }


def documented(mark, replacements):
    """The one command of docs/distributed.md that has `mark` in it, with words replaced."""
    text = (ROOT / 'docs' / 'distributed.md').read_text(encoding='utf-8')
    (command,) = [block for block in re.findall(r'```sh\n(.*?)```', text, re.S) if mark in block]
    for word, value in replacements.items():
        assert word in command
        command = command.replace(word, str(value))
    return command.replace('\\\n', ' ').strip()


def start(command, cwd, **variables):
    """Run a line of shell as a user would."""
    return subprocess.run(
        ['bash', '-c', command],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(**variables),
        check=False,
        timeout=300,
    )


def with_probe(cfg):
    """Let the probe into both stages of a config."""
    cfg.custom_imports = dict(imports=['rank_probe'], allow_failed_imports=False)
    cfg.custom_hooks = [dict(type='RankProbe')]
    cfg.mix_and_match.keep_hooks = ['RankProbe']
    return cfg


def without(cfg, *splits):
    """Leave a split out: a rank starts sooner with less to say of its config."""
    for split in splits:
        for part in ('dataloader', 'cfg', 'evaluator'):
            cfg[f'{split}_{part}'] = None


def told(folder):
    """The events of each rank, in order: {rank: [event, ...]}."""
    return {
        int(path.stem[len('rank') :]): [json.loads(line) for line in path.open()]
        for path in sorted(Path(folder).glob('rank*.jsonl'))
    }


def events(rank, kind):
    return [event for event in rank if event['event'] == kind]
