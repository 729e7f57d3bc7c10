"""Checkpoints of a run: written whole, removed late, and never trusted unseen."""

from __future__ import annotations

import contextlib
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mm_tuning_plugin.checkpoint.io.pickles import DAMAGED
from mm_tuning_plugin.config_types import class_of
from mm_tuning_plugin.engine.common.messages import warn
from mm_tuning_plugin.engine.resume.history_globals import allow_histories


def damage(path: Path) -> str | None:
    """Return what is wrong with a file of torch.save; None if its content is undamaged.

    torch reads its zip archives without looking at their checksums, so that a flipped bit would
    become a wrong weight. Every member is read once.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()
        if member is not None:
            return f'{member} does not fit its checksum'
        with allow_histories(), contextlib.suppress(pickle.UnpicklingError):
            # a class that is not allowed is not damage
            content = torch.load(path, map_location='cpu', mmap=True)
            if not isinstance(content, dict) or not {'meta', 'state_dict'} <= content.keys():
                return "no 'meta' and 'state_dict' in it"
    except (*DAMAGED, NotImplementedError) as error:
        return ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
    return None


class Places(NamedTuple):
    """Folder and file names of a run's checkpoints.

    Attributes:
        folders: Their folders.
        names: Patterns of their names.
    """

    folders: tuple[Path, ...]
    names: tuple[str, ...] = (r'iter_\d+\.pth', r'epoch_\d+\.pth')


def places(work_dir: Path, hooks: Iterable[Hook] = ()) -> Places:
    """Find a run's checkpoints: in its folder, and where its CheckpointHooks write them."""
    folders, names = [work_dir], [*Places._field_defaults['names']]
    for hook in hooks:
        if isinstance(hook, CheckpointHook):
            names.append(re.escape(hook.filename_tmpl).replace(re.escape('{}'), r'\d+'))
            if hook.out_dir is not None and '://' not in str(hook.out_dir):
                folders.append(Path(hook.out_dir, work_dir.name))  # as mmengine puts them
    return Places(tuple(folders), tuple(names))


def newest_sound(where: Places, belongs: Callable[[Path], bool] = lambda path: True) -> Path | None:
    """The newest checkpoint of a run that is undamaged; every newer one is named in a warning.

    Args:
        where: Where to look.
        belongs: Whether a sound checkpoint is one of this run.

    Returns:
        The file, or None: training starts at its beginning.
    """
    refused = []
    for path in _candidates(where):
        reason = damage(path)
        if reason is None and belongs(path):
            break
        refused.append(f'{path}: {f"damaged: {reason}" if reason else "of an earlier run"}')
    else:
        path = None
    for what in refused:
        instead = f'{path} is resumed from' if path else 'this stage starts at its beginning'
        warn(f'{what}; expected a checkpoint of this run: {instead}')
    return path


def _candidates(where: Places) -> list[Path]:
    """All checkpoints by time of writing, the newest first."""
    found = {path for folder in where.folders for path in folder.glob('*.pth')}
    found = {path for path in found if any(re.fullmatch(name, path.name) for name in where.names)}
    return sorted(found, key=lambda p: (p.stat().st_mtime_ns, len(p.name), p.name), reverse=True)


class CarefulCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, which removes an old checkpoint only once the new one is written.

    It replaces mmengine's in both stages. With mmengine's order, a full disk costs the last
    checkpoint of a run that keeps one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.file_backend = _RemovesLater(None)  # a validation may come before `before_train`

    def before_train(self, runner: Runner) -> None:
        """See mmengine; also take hold of what removes files, and of what a resumed run wrote last.

        Without it a resumed run would neither keep the score of its first validation nor publish
        its last checkpoint, as an uninterrupted one does.
        """
        super().before_train(runner)
        last = runner.message_hub.runtime_info.get('last_ckpt')
        if runner.iter > 0 and self.last_ckpt is None and last is not None:
            self.last_ckpt = last if self.file_backend.exists(last) else None
        self.file_backend = _RemovesLater(self.file_backend)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self.file_backend.remove_now()

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self.file_backend.remove_now()


class _RemovesLater:
    """A file backend that puts removals off."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.put_off: list[tuple[Callable, str]] = []

    def remove(self, path: str) -> None:
        self.put_off.append((self.backend.remove, path))

    def rmtree(self, path: str) -> None:
        self.put_off.append((self.backend.rmtree, path))

    def remove_now(self) -> None:
        while self.put_off:
            remove, path = self.put_off.pop(0)
            remove(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


def with_careful_hook(hook: Hook | dict) -> Any:
    """The config of a hook with our class in the place of mmengine's CheckpointHook."""
    if isinstance(hook, dict) and class_of(hook, HOOKS) is CheckpointHook:
        return {**hook, 'type': CarefulCheckpointHook}
    return hook
