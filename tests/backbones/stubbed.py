"""timm and mmpretrain, imported over a stub of torchvision that leaves no trace."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STUBS = str(Path(__file__).parent.parent / 'stubs')


@contextmanager
def stubbed_torchvision() -> Iterator[None]:
    """Make ``import torchvision`` find the stub inside; afterwards it is absent again.

    Other packages of this process, transformers for one, ask whether torchvision is there.
    """
    sys.path.insert(0, STUBS)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(STUBS)
        for name in [name for name in sys.modules if name.split('.')[0] == 'torchvision']:
            del sys.modules[name]
        importlib.invalidate_caches()


def import_further() -> None:
    """Import timm and mmpretrain; show mmseg, which could not import it, timm."""
    from mmseg.models.backbones import timm_backbone

    with stubbed_torchvision():
        import mmpretrain.models  # noqa: F401
        import timm
    timm_backbone.timm = timm
