"""What makes a result besides its config: versions, commit, device."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import torch


def device_name() -> str:
    """What a run is computed on: the GPU, or the processor."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path('/proc/cpuinfo')  # not on every system
    lines = info.read_text(encoding='utf-8').splitlines() if info.is_file() else []
    named = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return named[0] if named else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """The versions that make a result."""
    import mmcv
    import mmengine
    import mmseg
    import torch

    import mm_tuning_plugin

    modules = (mm_tuning_plugin, torch, mmengine, mmcv, mmseg)
    return {module.__name__: module.__version__ for module in modules}


def commit() -> str | None:
    """Return the commit of this package's repository, '+' if files differ; None without git."""
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ['git', '-C', str(root), *words], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    # an installed package may be inside another repository
    if git('ls-files', '--error-unmatch', 'mm_tuning_plugin/__init__.py') is None:
        return None
    changed = git('status', '--porcelain', '--untracked-files=no')
    return f'{git("rev-parse", "HEAD")}{"+" if changed else ""}'
