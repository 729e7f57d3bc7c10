"""What timm cuts off a network of which only features are wanted (``features_only=True``).

It drops what follows the last level that is read, so that a file of the whole network holds more
than the backbone, and rightly so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import nn

_CHAINS = ('FeatureDictNet', 'FeatureHookNet')
_LISTED = re.compile(r'(.+)\.(\d+)')


def is_chain(backbone: nn.Module) -> bool:
    """Whether a module is timm's chain of a network's first modules, up to the last that is read.

    What is not in it comes after it.
    """
    return any(
        kind.__module__.startswith('timm.') and kind.__name__ in _CHAINS
        for kind in type(backbone).__mro__
    )


def cut_off(backbone: nn.Module, targets: Iterable[str]) -> tuple[str, ...]:
    """Blocks that a network of timm's had when it was built, and has no longer.

    Args:
        backbone: Its ``feature_info`` names the modules that give the levels of the whole network.
        targets: Names of its tensors.

    Returns:
        Names of modules, such as ``blocks.7``.
    """
    info = getattr(backbone, 'feature_info', None)
    info = getattr(info, 'info', info)
    levels = info if isinstance(info, (list, tuple)) else ()
    names = [str(level.get('module')) for level in levels if isinstance(level, Mapping)]
    if not names:
        return ()
    last: dict[str, int] = {}
    for target in targets:
        parts = target.split('.')
        for i, part in enumerate(parts):
            if i and part.isdigit():
                parent = '.'.join(parts[:i])
                last[parent] = max(int(part), last.get(parent, -1))
    gone = []
    for found in filter(None, map(_LISTED.fullmatch, names)):
        parent, index = found.group(1), int(found.group(2))
        if parent in last:
            gone += [f'{parent}.{i}' for i in range(last[parent] + 1, index + 1)]
    return tuple(dict.fromkeys(gone))
