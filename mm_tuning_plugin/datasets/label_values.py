"""Which label values are classes, which are ignored, and which are a mistake."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mm_tuning_plugin.errors import UserError

IGNORE = 255
"""The one value that ignored pixels have inside this package, whatever the user's config says."""


def usable_label_table(num_classes: int, ignore_values: Iterable[int]) -> np.ndarray:
    """Tabulate what becomes of each label value that a byte can hold.

    A label l is usable if 0 <= l < num_classes and it is not 255 and not in `ignore_values`.

    Args:
        num_classes: Number of classes.
        ignore_values: Values of the user's that mean "ignore": the head's ``ignore_index`` and the
            preprocessor's ``seg_pad_val``. Those outside 0..255 are none of the table's; see
            `map_labels`.

    Returns:
        (256,) int16: the class itself, 255 where ignored, -1 where the value is a mistake.
    """
    table = np.full(256, -1, dtype=np.int16)
    table[:num_classes] = np.arange(min(num_classes, 256))
    table[[value for value in ignore_values if 0 <= value <= 255]] = IGNORE
    table[IGNORE] = IGNORE
    return table


def map_labels(
    seg_map: np.ndarray, table: np.ndarray, source: str, ignore_values: Iterable[int] = ()
) -> np.ndarray:
    """Map a label map to classes and 255.

    Args:
        seg_map: (H, W) whole numbers of any type.
        table: From `usable_label_table`.
        source: What to call the label map in an error: its path.
        ignore_values: As for the table. Values outside 0..255 are ignored, too.

    Returns:
        (H, W) int16, every value a class or 255.

    Raises:
        UserError: A value is neither a class nor ignored, or no whole number.
    """
    outside: list[int] = []
    if seg_map.dtype == np.uint8:  # the usual case: all values are in the table
        mapped = table.take(seg_map)
    else:
        seg_map = as_integers(seg_map, source)
        inside = (seg_map >= 0) & (seg_map <= 255)
        mapped = np.where(inside, table.take(np.where(inside, seg_map, 0)), np.int16(-1))
        outside = [value for value in ignore_values if not 0 <= value <= 255]
        if outside:
            mapped[np.isin(seg_map, outside)] = IGNORE
    if mapped.min(initial=0) < 0:
        found = sorted({int(v) for v in np.unique(seg_map[mapped < 0])})
        ignored = sorted({*outside, *np.flatnonzero(table == IGNORE).tolist()})
        raise UserError(
            source,
            f'label values {_shorten(found)} found, where 0 to '
            f'{int((table[:IGNORE] >= 0).sum() and table[table < IGNORE].max())} or one of the '
            f'ignored {ignored} are expected',
            'check the number of classes and reduce_zero_label',
        )
    return mapped


def as_integers(seg_map: np.ndarray, source: str) -> np.ndarray:
    """A label map of whole numbers as integers of at most 64 bits with a sign.

    mmseg's ``PackSegInputs`` casts whatever it is given to int64, and so is it read here; but a
    fraction that it would cut off without a word is a mistake.

    Args:
        seg_map: Of any type.
        source: What to call the label map in an error: its path.

    Raises:
        UserError: A value is no whole number.
    """
    kind = seg_map.dtype.kind
    if kind == 'f':
        with np.errstate(invalid='ignore'):  # not a number, or beyond 64 bits: reported below
            integers = seg_map.astype(np.int64)
        wrong = seg_map[integers != seg_map]
        if wrong.size:
            raise UserError(
                source,
                f'label value {wrong.flat[0]:g} found',
                'expected whole numbers: fine-tuning would cut off the fraction without a word',
            )
        return integers
    if kind not in 'iub':
        raise UserError(
            source,
            f'a label map of type {seg_map.dtype} found',
            'expected integers, or whole numbers of a floating-point type',
        )
    if seg_map.dtype == np.uint64:
        return seg_map.astype(np.int64)
    return seg_map.astype(np.uint8) if kind == 'b' else seg_map


def _shorten(values: list[int], most: int = 5) -> str:
    text = ', '.join(map(str, values[:most]))
    return f'{text}, ... ({len(values)} values)' if len(values) > most else text
