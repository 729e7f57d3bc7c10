"""timm's networks of which only features are wanted: ``stages.0`` is ``stages_0`` there."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .rules import Naming, Tensors, rename_all


def flattened(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """The names of a whole network, for one whose sequences were flattened (``FeatureListNet``).

    Only the first dot of a name is changed, and only if the backbone has a module of that name.
    """
    roots = {name.split('.')[0] for name in targets}

    def short(name: str) -> str:
        first, _, rest = name.partition('.')
        second, dot, rest = rest.partition('.')
        joined = f'{first}_{second}'
        return f'{joined}{dot}{rest}' if joined in roots and first not in roots else name

    return rename_all(tensors, short)


RANK = 1
NAMINGS = (Naming('timm, flattened', flattened, square=False),)
