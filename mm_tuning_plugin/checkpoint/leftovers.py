"""What of a file is not loaded: dropped on purpose, or unknown."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .fit import Fit
from .stages import Stages

# What stands beside a backbone under the same prefix and is no part of its features: heads of
# pretext tasks and classifiers, queues, decoders, loose tokens, stages and norms behind the
# backbone's own last one.
_ON_PURPOSE = re.compile(
    r'(^|[._])(fc\d*|heads?|classifier|pooler|proj|projectors?|projection|prototypes?|predictor|'
    r'queue|decoder|decode|auxiliary|neck|mask|loss|centers?|last_layer|logit_scale|norm\d?|'
    r'dist_token|fc_norm|incre_modules|downsamp_modules|final_layer|features|ln\d|layernorm|layer\d|stages?\d?|num_batches_tracked)([._\d]|$)'
)


def sort_leftovers(
    tensors: Mapping[str, Tensor], fit: Fit, stages: Stages
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sorts what was not loaded.

    Args:
        tensors: All tensors of the file.
        fit: What was taken of them.
        stages: Of the backbone.

    Returns:
        (dropped, unexpected) under the file's own names. Dropped on purpose: other networks of the
        file, heads, queues, decoders. Unexpected: what lies inside a stage of the backbone and
        found no place there, or is not known.
    """
    own = {id(tensor): name for name, tensor in tensors.items()}
    dropped: list[str] = []
    unexpected: list[str] = []
    for name, tensor in fit.unused.items():
        inside = stages.of_foreign(name) is not None
        known = not inside and _ON_PURPOSE.search(name)
        (dropped if known else unexpected).append(own.get(id(tensor), fit.prefix + name))
    dropped += [name for name in tensors if not name.startswith(fit.prefix)]
    return tuple(dropped), tuple(unexpected)
