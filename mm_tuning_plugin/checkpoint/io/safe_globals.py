"""Allow-list of the objects in checkpoints besides tensors, and the stand-ins that replace them.

Training scripts pickle their arguments, log histories and numpy scalars next to the weights.
``torch.load(weights_only=True)`` refuses them unless they are allow-listed. They are not needed
here, so they are not built: a stand-in that drops its state replaces each *name* of the list below.
Code of argparse, numpy, mmengine or omegaconf never runs, and they need not be installed. Other
names are refused.

mmengine's checkpoints also contain `builtins.getattr`, for the statistics of a HistoryBuffer.
`history_statistic` replaces it and knows only these statistics.
"""

from __future__ import annotations

import collections
import contextlib
import pickle
from collections.abc import Iterator
from typing import Any, Callable

import torch

# torch before 2.6 cannot allow-list under another name.
ALLOWS_NAMES = tuple(int(part) for part in torch.__version__.split('.')[:2]) >= (2, 6)
HISTORY_STATISTICS = ('min', 'max', 'current', 'mean')


class Opaque:
    """Replaces an object that is not needed: accepts any state and keeps nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> Opaque:  # noqa: D102
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class OpaqueHistory(Opaque):
    """Takes the place of mmengine's HistoryBuffer."""


class PlainDict:
    """Replaces a class derived from dict by a plain ordered one.

    The weights may be in such a dictionary, so its items are kept.
    """

    def __new__(cls, *args: object, **kwargs: object) -> Any:  # noqa: D102
        return collections.OrderedDict(*[arg for arg in args[:1] if isinstance(arg, dict)])


def history_statistic(owner: object, name: object, *default: object) -> Opaque:
    """Answers ``getattr`` in a pickle, for the statistics of a HistoryBuffer only.

    Args:
        owner: What the attribute is asked of; only `OpaqueHistory` is answered.
        name: One of `HISTORY_STATISTICS`.
        *default: Never used; a pickle could pass it.

    Raises:
        pickle.UnpicklingError: If another attribute is requested.
    """
    if owner is not OpaqueHistory or name not in HISTORY_STATISTICS:
        raise pickle.UnpicklingError('unsupported GLOBAL builtins.getattr beyond HistoryBuffer')
    return Opaque()


_OPAQUE = (
    'argparse.Namespace',
    'builtins.bool',
    'builtins.dict',
    'builtins.float',
    'builtins.int',
    'builtins.list',
    'builtins.slice',
    'builtins.str',
    'builtins.tuple',
    'datetime.datetime',
    'datetime.timedelta',
    'numpy.core.multiarray._reconstruct',
    'numpy.core.multiarray.scalar',
    'numpy._core.multiarray._reconstruct',
    'numpy._core.multiarray.scalar',
    'numpy.dtype',
    'numpy.ndarray',
    'omegaconf.base.ContainerMetadata',
    'omegaconf.base.Metadata',
    'omegaconf.dictconfig.DictConfig',
    'omegaconf.listconfig.ListConfig',
    'omegaconf.nodes.AnyNode',
    'pathlib.Path',
    'pathlib.PosixPath',
    'pathlib.PurePosixPath',
    'pathlib._local.PosixPath',
    'torch.torch_version.TorchVersion',
    'types.SimpleNamespace',
    'typing.Any',
)
_DICTS = (
    'addict.addict.Dict',
    'collections.defaultdict',
    'easydict.EasyDict',
    'fvcore.common.config.CfgNode',
    'lightning.fabric.utilities.data.AttributeDict',
    'lightning.pytorch.utilities.parsing.AttributeDict',
    'lightning_fabric.utilities.data.AttributeDict',
    'mmcv.utils.config.ConfigDict',
    'mmengine.config.config.ConfigDict',
    'pytorch_lightning.utilities.parsing.AttributeDict',
    'yacs.config.CfgNode',
)
STAND_INS: dict[str, Any] = {
    **dict.fromkeys(_OPAQUE, Opaque),
    **dict.fromkeys(_DICTS, PlainDict),
    'mmengine.logging.history_buffer.HistoryBuffer': OpaqueHistory,
    'builtins.getattr': history_statistic,
}


@contextlib.contextmanager
def stand_ins() -> Iterator[None]:
    """Makes exactly `STAND_INS` the allow-list of ``torch.load(weights_only=True)``.

    What others allow-listed in this process is put aside meanwhile and put back at the end, so
    that the list is narrow and no real class is mixed with a stand-in. torch before 2.6 can't
    allow-list under another name: there the list stays empty, and fewer files are read.
    """
    if not ALLOWS_NAMES:
        yield
        return
    before = torch.serialization.get_safe_globals()
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (stand_in, name) for name, stand_in in STAND_INS.items()
    ]
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(allowed)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
