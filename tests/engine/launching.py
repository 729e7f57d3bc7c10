"""Starting real ranks: commands, environments, and what the probe in each rank told."""

import json
import os
import re
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import killing
from mmengine.registry import HOOKS

from mm_tuning_plugin.cli.train import entry
from mm_tuning_plugin.engine import distributed

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


def forked(argv, folder, **variables):
    """Two ranks of ``tools/train.py`` without a launcher, forked: everything is imported already.

    Args:
        argv: Arguments of the script.
        folder: Receives what each rank prints.
        **variables: Of the environment, beside those of the ranks.

    Returns:
        The exit status of each rank, and what both printed.
    """
    port, logs = free_port(), [Path(folder) / f'rank{rank}.log' for rank in (0, 1)]

    def work(rank):
        os.environ.update({name: str(value) for name, value in variables.items()})
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
        os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
        sys.path.insert(0, str(PROBE))
        sys.modules.pop('rank_probe', None)  # it reads the environment when it is imported
        HOOKS.module_dict.pop('RankProbe', None)
        status = entry([str(argument) for argument in (*argv, '--launcher', 'pytorch')])
        distributed._leave_cpu_ranks()  # which a process that was not forked does at its exit
        return status

    ranks = [killing.started(partial(work, rank), log) for rank, log in enumerate(logs)]
    return [killing.ended(rank) for rank in ranks], ''.join(log.read_text() for log in logs)


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
