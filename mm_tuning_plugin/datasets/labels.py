"""Which label values are classes, which are ignored, and which are a mistake."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mm_tuning_plugin.errors import UserError

IGNORE = 255
"""The one value that ignored pixels have inside this package, whatever the user's config says."""


def usable_label_table(num_classes: int, ignore_values: Iterable[int]) -> np.ndarray:
    """Tabulate what becomes of each label value.

    A label l is usable if 0 <= l < num_classes and it is none of `ignore_values` or 255.

    Args:
        num_classes: Number of classes.
        ignore_values: Values of the user's that mean "ignore": the head's ``ignore_index`` and the
            preprocessor's ``seg_pad_val``. Values outside 0..255 cannot occur in a label map and
            are passed over.

    Returns:
        (256,) int16: the class itself, 255 where ignored, -1 where the value is a mistake.
    """
    table = np.full(256, -1, dtype=np.int16)
    table[:num_classes] = np.arange(min(num_classes, 256))
    table[[value for value in ignore_values if 0 <= value <= 255]] = IGNORE
    table[IGNORE] = IGNORE
    return table


def map_labels(seg_map: np.ndarray, table: np.ndarray, source: str) -> np.ndarray:
    """Map a label map to classes and 255.

    Args:
        seg_map: (H, W) integers.
        table: From `usable_label_table`.
        source: What to call the label map in an error: its path.

    Returns:
        (H, W) int16, every value a class or 255.

    Raises:
        UserError: A value is neither a class nor ignored.
    """
    if seg_map.dtype == np.uint8:  # the usual case: no value lies outside the table
        mapped = table.take(seg_map)
    else:
        inside = (seg_map >= 0) & (seg_map <= 255)
        mapped = np.where(inside, table.take(np.where(inside, seg_map, 0)), np.int16(-1))
    if mapped.min(initial=0) < 0:
        found = sorted({int(v) for v in np.unique(seg_map[mapped < 0])})
        ignored = sorted(int(v) for v in np.flatnonzero(table == IGNORE))
        raise UserError(
            f'{source}: label values {_shorten(found)} found, expected 0 to '
            f'{int((table[:IGNORE] >= 0).sum() and table[table < IGNORE].max())} or one of the '
            f'ignored {ignored}; is the number of classes or reduce_zero_label right?'
        )
    return mapped


def _shorten(values: list[int], most: int = 5) -> str:
    text = ', '.join(map(str, values[:most]))
    return f'{text}, ... ({len(values)} values)' if len(values) > most else text
