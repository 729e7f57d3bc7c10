"""Checkpoints of a run: written whole, removed late, and never trusted unseen."""

from __future__ import annotations

import contextlib
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import CheckpointHook

from mm_tuning_plugin.checkpoint.pickles import DAMAGED
from mm_tuning_plugin.engine.histories import allow_histories
from mm_tuning_plugin.engine.messages import warn

NAMES = re.compile(r'(iter|epoch)_(\d+)\.pth')
POINTER = 'last_checkpoint'  # mmengine's file that names the latest one


def damage(path: Path) -> str | None:
    """What is wrong with a file of torch.save; None if all of its content is as it was written.

    torch reads its zip archives without looking at their checksums, so that a flipped bit would
    become a wrong weight. Every member is read once.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()
        if member is not None:
            return f'{member} does not fit its checksum'
        with allow_histories(), contextlib.suppress(pickle.UnpicklingError):
            # a class that is not allowed is no damage: the content is what was written
            torch.load(path, map_location='cpu', mmap=True)
    except (*DAMAGED, NotImplementedError) as error:
        return ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
    return None


def newest_sound(
    work_dir: Path, belongs: Callable[[Path], bool] = lambda path: True
) -> Path | None:
    """The newest checkpoint of a run that is undamaged; every newer one is named in a warning.

    Args:
        work_dir: Folder of the run; mmengine's pointer in it may name another one.
        belongs: Whether a sound checkpoint is one of this run.

    Returns:
        The file, or None: training starts at its beginning.
    """
    refused = []
    for path in _candidates(work_dir):
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


def _candidates(work_dir: Path) -> list[Path]:
    """All checkpoints by time of writing, the newest first."""
    folders = {work_dir}
    pointer = work_dir / POINTER
    if pointer.is_file():
        named = Path(pointer.read_text(encoding='utf-8', errors='replace').strip())
        folders |= {named.parent} if named.name else set()
    found = [path for folder in folders for path in folder.glob('*.pth')]
    found = [path for path in found if NAMES.fullmatch(path.name)]
    return sorted(found, key=lambda p: (p.stat().st_mtime_ns, _number(p)), reverse=True)


def _number(path: Path) -> int:
    return int(path.stem.rsplit('_', 1)[-1])


class CarefulCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, which removes an old checkpoint only once the new one is written.

    It stands in for mmengine's in both stages: with its order, a full disk costs the last
    checkpoint of a run that keeps one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.file_backend = _RemovesLater(None)  # a validation may come before `before_train`

    def before_train(self, runner: Any) -> None:
        """See mmengine; also take hold of what removes files."""
        super().before_train(runner)
        self.file_backend = _RemovesLater(self.file_backend)

    def after_val_epoch(self, runner: Any, metrics: dict) -> None:
        """See mmengine; what is saved from here on has the validation behind it."""
        runner.progress.validated = True
        super().after_val_epoch(runner, metrics)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self.file_backend.remove_now()

    def _save_best_checkpoint(self, runner: Any, metrics: dict) -> None:
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


def with_careful_hook(hook: Any) -> Any:
    """The config of a hook with our class in the place of mmengine's CheckpointHook."""
    names = ('CheckpointHook', 'mmengine.CheckpointHook', CheckpointHook)
    if isinstance(hook, dict) and hook.get('type') in names:
        return {**hook, 'type': CarefulCheckpointHook}
    return hook
