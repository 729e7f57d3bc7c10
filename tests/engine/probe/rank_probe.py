"""What a rank of a real run does: imported by a config's ``custom_imports`` in every rank.

Writes one JSON line for each event to ``PROBE/rankR.jsonl``: every file opened for writing, renamed
onto or removed below ``PROBE_WATCH``, and what the hook sees. ``PROBE_KILL=STAGE:ITERATION`` kills
the rank as a machine that goes down would: no handler, no clean-up.
"""

import json
import os
import signal
import sys
import time

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from yapf.yapflib import yapf_api

from mm_tuning_plugin.checkpoint import hash_state_dict

# mmengine lays out its config's text again for every checkpoint: most of the time of a toy run.
yapf_api.FormatCode = lambda text, **options: (text, True)
WATCHED = os.environ.get('PROBE_WATCH')


def tell(**event):
    rank = os.environ.get('RANK', '0')
    line = (json.dumps(event) + '\n').encode()
    # Neither recorded nor buffered: a killed rank has told all.
    path = os.path.join(os.environ['PROBE'], f'rank{rank}.jsonl')
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line)
    os.close(file)


def written_paths(event, args):
    if event == 'open':
        path, mode, flags = args
        if mode is None:
            return [path] if (flags or 0) & (os.O_WRONLY | os.O_RDWR) else []
        return [path] if set(mode) & set('wax+') else []
    if event == 'os.rename':
        return [args[1]]
    return [args[0]] if event in ('os.remove', 'os.truncate') else []


def watch(event, args):
    if event not in ('open', 'os.rename', 'os.remove', 'os.truncate'):
        return
    for path in written_paths(event, args):
        if isinstance(path, (str, os.PathLike)):
            note(event, os.fspath(path))


def note(event, path):
    path = os.path.abspath(os.fsdecode(path))
    if path.startswith(WATCHED + os.sep):
        tell(event=event, path=os.path.relpath(path, WATCHED))


def watch_torch_save():
    """It opens a path in C++, where no audit hook sees it."""
    plain = torch.save

    def save(content, target, *args, **kwargs):
        if isinstance(target, (str, os.PathLike)):
            note('open', os.fspath(target))
        return plain(content, target, *args, **kwargs)

    torch.save = save


@HOOKS.register_module()
class RankProbe(Hook):
    """Tell where a stage begins, what it draws and with which weights it ends."""

    def stage(self, runner):
        return 'tuning' if os.path.basename(runner.work_dir) == 'tuning' else 'fine_tuning'

    def before_train(self, runner):
        tell(event='start', stage=self.stage(runner), iter=runner.iter)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        stage = self.stage(runner)
        if os.environ.get('PROBE_KILL') == f'{stage}:{runner.iter}':
            os.kill(os.getpid(), signal.SIGKILL)
        if stage == 'tuning':
            nodes = [labels.tolist() for labels in data_batch['labels']]
            points = [points.tolist() for points in data_batch['points']]
            paths = data_batch['meta']['img_path']
            tell(event='draw', iter=runner.iter, nodes=list(zip(paths, nodes, points)))

    def after_train(self, runner):
        model = getattr(runner.model, 'module', runner.model)
        # Running statistics are each rank's own; the main rank's are saved.
        weights = hash_state_dict(dict(model.named_parameters()))
        tell(event='end', stage=self.stage(runner), iter=runner.iter, weights=weights)
        if self.stage(runner) == 'tuning' and runner.rank == 0 and runner.world_size > 1:
            time.sleep(1)  # the main rank is slow to write: do the others wait for the file?


if WATCHED:
    sys.addaudithook(watch)
    watch_torch_save()
