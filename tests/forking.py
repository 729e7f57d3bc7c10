"""Processes of this package's commands that begin by a fork instead of an interpreter's start.

A new interpreter imports torch, mmengine and mmseg for five seconds and more; a forked one has
them.
Each family of commands is also started for real, by a test that says so.
"""

import inspect
import os
import random
import runpy
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = 'mm_tuning_plugin'
UNSEEDED = 67280421310721  # the seed of torch's CPU generator in a new process
STREAMS = (('stdin', 'r', 'p2cread'), ('stdout', 'w', 'c2pwrite'), ('stderr', 'w', 'errwrite'))


class Popen(subprocess.Popen):
    """`subprocess.Popen` that forks for ``python -m mm_tuning_plugin...`` and ``python tools/...``.

    What a process may expect of its start holds: arguments, folder, environment, streams, session,
    signals as they are by default, no file of its parent's open but those passed on, no logger,
    scope or random state left over.
    """

    def _execute_child(self, args, *rest):
        words = [os.fspath(word) for word in args] if isinstance(args, (list, tuple)) else [args]
        if not is_ours(words):
            return super()._execute_child(args, *rest)
        bound = inspect.signature(super()._execute_child).bind(args, *rest).arguments
        given = {name.removeprefix('unused_'): value for name, value in bound.items()}
        self.pid = os.fork()
        if self.pid == 0:
            _become(words[1:], given)
        self._child_created = True
        pipes = ('p2cread', 'p2cwrite', 'c2pread', 'c2pwrite', 'errread', 'errwrite')
        self._close_pipe_fds(*(given[name] for name in pipes))


def is_ours(words):
    """Whether a command runs this package by this interpreter."""
    if len(words) < 2 or words[0] != sys.executable:
        return False
    if words[1] == '-m':
        return words[2].split('.')[0] == PACKAGE
    return words[1].endswith('.py') and Path(words[1]).resolve().parent == ROOT / 'tools'


@pytest.fixture
def forked_processes(imported, monkeypatch):
    """Let every command of this package start by a fork; those that it starts, too."""
    monkeypatch.setattr(subprocess, 'Popen', Popen)


def _become(words, given):
    """Be the process that the command asks for; never returns."""
    status = 1
    try:
        _take_over(given)
        status = _run(words)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def _take_over(given):
    """Streams, folder, environment, session and signals."""
    if given['start_new_session']:
        os.setsid()
    kept = set(given['pass_fds'])
    for number, (name, mode, pipe) in enumerate(STREAMS):
        if given[pipe] not in (-1, number):
            os.dup2(given[pipe], number)
        setattr(sys, name, os.fdopen(number, mode, buffering=1, closefd=False))
        kept.add(number)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in map(int, os.listdir('/proc/self/fd')):
        # not closed: objects of the parent's must not find another file under their numbers
        if number not in kept and number != nothing and os.path.exists(f'/proc/self/fd/{number}'):
            os.dup2(nothing, number, inheritable=False)
    if given['cwd'] is not None:
        os.chdir(given['cwd'])
    if given['env'] is not None:
        os.environ.clear()
        os.environ.update(given['env'])
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            plain = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, plain)
    _forget()


def _forget():
    """Instances by name and random states of the parent's."""
    import numpy as np
    import torch
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer
    from mmseg.visualization import SegLocalVisualizer
    from torch.utils.data._utils import signal_handling

    signal_handling._SIGCHLD_handler_set = False
    for kind in (Visualizer, SegLocalVisualizer, MessageHub, MMLogger, DefaultScope):
        kind._instance_dict.clear()
    torch.manual_seed(UNSEEDED)
    np.random.seed()
    random.seed()


def _run(words):
    """Run a module or a script as ``__main__``; its exit status."""
    paths = [path for path in os.environ.get('PYTHONPATH', '').split(os.pathsep) if path]
    sys.path[:0] = paths
    try:
        if words[0] == '-m':
            sys.argv = words[1:]
            sys.path.insert(0, os.getcwd())
            sys.modules.pop(words[1], None)  # runpy warns of one that was imported before
            runpy.run_module(words[1], run_name='__main__', alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, str(Path(words[0]).resolve().parent))
            runpy.run_path(words[0], run_name='__main__')
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    return 0
