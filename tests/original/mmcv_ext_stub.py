"""A stand-in for ``mmcv._ext``, for the tests on the original stack only.

The original mmseg imports ``mmcv.ops`` wherever it defines a model, and ``mmcv.ops`` imports the
compiled module ``mmcv._ext``. mmcv-lite comes without it, and building mmcv takes a compiler and a
quarter of an hour. ``make test-original`` copies this file into its own environment as
``mmcv/_ext.py``, so that every process there can import mmseg. Nothing else ever does: the package
itself stubs nothing, and ``tools/doctor.py`` tells the stub from compiled ops.

No op is here. Each can be looked up, as the import wants, and raises when it is called; a test
that needs an op must run where mmcv is compiled, and must not rely on this file.
"""

from __future__ import annotations

from typing import Any, Callable


def __getattr__(name: str) -> Callable[..., Any]:
    """The op of that name, which raises as soon as it is called."""
    if name.startswith('__'):  # what the import system asks of any module
        raise AttributeError(name)

    def op(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            f'mmcv._ext.{name} is a stub that lets mmseg import without compiled ops; '
            'expected an mmcv with compiled ops'
        )

    return op
