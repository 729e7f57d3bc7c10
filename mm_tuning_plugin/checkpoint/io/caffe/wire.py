"""The wire format of protocol buffers, as much of it as Caffe's files use.

A message is a row of fields, each a tag (number and type, a varint) and a value. Source: the
encoding page of the protocol buffers' documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}
_MAX_VARINT = 10  # bytes


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: Of the field in the schema.
        kind: VARINT, FIXED64, BYTES or FIXED32.
        value: An int for VARINT, else the bytes, without a copy; of numbers of a fixed size that
            follow each other under one tag, as unpacked ones do, all of them together.
    """

    number: int
    kind: int
    value: int | memoryview


def fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message, in order.

    Raises:
        ValueError: The bytes are no message: a value ends beyond them, or a tag is none.
    """
    at, end = 0, len(message)
    while at < end:
        start = at
        tag, at = varint(message, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise ValueError(f'a field of number 0 at byte {at}')
        if kind == VARINT:
            value, at = varint(message, at)
            yield Field(number, kind, value)
            continue
        if kind == BYTES:
            size, at = varint(message, at)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise ValueError(f'a field of unknown type {kind} at byte {at}')
        if size > end - at:
            raise ValueError(f'a field of {size} bytes at byte {at}, of which {end - at} are there')
        numbers, behind = message[at : at + size], at + size
        tag_size = at - start
        if kind in _FIXED and message[behind : behind + tag_size] == message[start:at]:
            numbers, behind = _run(message, start, tag_size, size)
        yield Field(number, kind, numbers)
        at = behind


def _run(message: memoryview, start: int, tag_size: int, size: int) -> tuple[memoryview, int]:
    """Read the values of consecutive equal fields from `start` on; return them and the end."""
    step = tag_size + size
    most = (len(message) - start) // step
    tag = np.frombuffer(message[start : start + tag_size], np.uint8)
    parts, count, block = [], 0, 64
    while count < most:  # in growing blocks: the cost is that of the row, not of the message
        taken = min(block, most - count)
        at = start + count * step
        rows = np.frombuffer(message[at : at + taken * step], np.uint8).reshape(taken, step)
        same = (rows[:, :tag_size] == tag).all(axis=1)
        equal = taken if same.all() else int(same.argmin())
        parts.append(rows[:equal, tag_size:].tobytes())
        count += equal
        if equal < taken:
            break
        block *= 2
    return memoryview(b''.join(parts)), start + count * step


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """Read an integer of variable length; return it and the position after it.

    Raises:
        ValueError: It does not end.
    """
    value = 0
    for index in range(_MAX_VARINT):
        if at + index >= len(message):
            break
        byte = message[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError(f'an integer without an end at byte {at}')


def varints(packed: memoryview) -> list[int]:
    """All integers of a packed field."""
    values, at = [], 0
    while at < len(packed):
        value, at = varint(packed, at)
        values.append(value)
    return values
