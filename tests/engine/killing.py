"""Runs of the toy project in forked processes that are killed at chosen moments.

A forked process has everything imported, so that a whole two-stage run takes a second or two.
"""

import copy
import importlib
import json
import os
import signal
import sys
import threading
from pathlib import Path

import torch

# Imported once here instead of in every process.
for package in ('mmseg', 'mm_tuning_plugin'):
    for module in ('datasets', 'engine', 'evaluation', 'models', 'visualization'):
        importlib.import_module(f'{package}.{module}')


def in_folder(cfg, folder, resume=False):
    """A copy of a config with another work_dir."""
    cfg = copy.deepcopy(cfg)
    cfg.work_dir, cfg.resume = str(folder), resume
    return cfg


def train(cfg):
    from mm_tuning_plugin.engine import MixAndMatchRunner

    MixAndMatchRunner.from_cfg(cfg).train()


def forked(cfg, prepare=lambda: None, after=None, signum=signal.SIGKILL, log=None, train=train):
    """Train in a forked process; returns (exit status or minus the signal, what it printed).

    Args:
        cfg: Config of the run.
        prepare: Called in the process first.
        after: Seconds after which it is sent a signal; None: it is left alone.
        signum: That signal.
        log: File for what it prints; None: beside the work_dir.
        train: What is done with the config.
    """
    log = log or Path(cfg.work_dir).with_suffix('.log')

    def call():
        prepare()
        from mm_tuning_plugin.cli.common.run import run

        return run(lambda _: train(cfg))

    process = started(call, log)
    timer = threading.Timer(after or 0, os.kill, (process, signum))
    if after is not None:
        timer.start()
    status = ended(process)
    timer.cancel()
    return status, log.read_text()


def started(call, log):
    """Call a function in a forked process; returns the process.

    Args:
        call: Returns the exit status.
        log: File to which the process prints.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    process = os.fork()
    if process == 0:
        status = 1
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.stdout, sys.stderr = os.fdopen(1, 'w'), os.fdopen(2, 'w')
            status = call()
        except SystemExit as ended:
            status = int(ended.code)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return process


def ended(process):
    """Wait for a process; returns its exit status or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def at_event(number, act):
    """Make the process act at its `number`-th event; returns the list that counts them.

    Events are hooks called, and halves of checkpoints written, files synchronised and renamed: a
    kill at any of them is one at another moment of the run.
    """
    from mmengine.fileio import LocalBackend
    from mmengine.runner import Runner

    seen = []

    def happens(what):
        seen.append(what)
        if len(seen) == number:
            act()

    def before(owner, name, label):
        plain = getattr(owner, name)

        def wrapped(*args, **kwargs):
            happens(label)
            return plain(*args, **kwargs)

        setattr(owner, name, wrapped)

    def put(self, obj, path):
        with open(path, 'wb') as file:
            file.write(obj[: len(obj) // 2])
            file.flush()
            happens('half a checkpoint')
            file.write(obj[len(obj) // 2 :])

    LocalBackend.put = put
    before(Runner, 'call_hook', 'hook')
    before(os, 'fsync', 'fsync')
    before(os, 'replace', 'replace')
    return seen


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def last_checkpoint(cfg):
    """The file of a run's last iteration."""
    by_epoch = 'max_epochs' in cfg.train_cfg
    last = f'epoch_{cfg.train_cfg.max_epochs}' if by_epoch else f'iter_{cfg.train_cfg.max_iters}'
    return f'{cfg.work_dir}/{last}.pth'


def results(cfg):
    """Weights at the end of the stages that ran, and the state of the optimizer."""
    saved = torch.load(last_checkpoint(cfg), weights_only=False)
    found = dict(saved['state_dict'])
    for index, state in saved['optimizer']['state'].items():
        found[f'momentum {index}'] = state['momentum_buffer']
    stages = Path(cfg.work_dir, 'stages.json')  # which a plain Runner does not write
    if stages.is_file():
        metrics = json.loads(stages.read_text())['fine_tuning']['metrics']
        found.update({f'metric {name}': torch.tensor(value) for name, value in metrics.items()})
    tuned = Path(cfg.work_dir, 'tuning', 'tuned_backbone.pth')
    if cfg.mix_and_match.get('enabled', True):
        weights = torch.load(tuned, weights_only=True)['state_dict']
        found.update({f'tuned {name}': value for name, value in weights.items()})
    return found


def differing(a, b):
    """Names under which two results differ."""
    same = {k for k in a.keys() & b.keys() if torch.equal(a[k].nan_to_num(-1), b[k].nan_to_num(-1))}
    return sorted((a.keys() | b.keys()) - same)
