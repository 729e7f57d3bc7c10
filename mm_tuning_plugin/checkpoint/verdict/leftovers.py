"""What of a file is not loaded, under the file's own names: dropped on purpose, or unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from mm_tuning_plugin.checkpoint.match.fit import Fit


def sort_leftovers(
    tensors: Mapping[str, Tensor], fit: Fit, left: Iterable[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sorts the tensors that were not loaded.

    Args:
        tensors: All tensors of the file.
        fit: The tensors that were used.
        left: Names among those without a place that are not known to be harmless (`parts`).

    Returns:
        (dropped, unexpected), by names among `tensors`. Dropped on purpose: other networks of the
        file, and the list of `droppable_parts`. Unexpected: all others.
    """
    left = set(left)
    own = own_names(tensors, fit)
    dropped = [own[name] for name in fit.unused if name not in left]
    dropped += [name for name in tensors if not name.startswith(fit.prefix)]
    return tuple(dropped), tuple(own[name] for name in fit.unused if name in left)


def own_names(tensors: Mapping[str, Tensor], fit: Fit) -> dict[str, str]:
    """Translated names of leftovers -> their names in the file."""
    names = {id(tensor): name for name, tensor in tensors.items()}
    return {name: names.get(id(t), fit.prefix + name) for name, t in fit.unused.items()}
