"""A report before it has a format: sections of plain text, tables and figures; and as Markdown.

All text in a document is plain. The writers escape it for their format.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Union


class Table(NamedTuple):
    """A table.

    Attributes:
        columns: Heads.
        rows: Cells.
        marked: Indices of rows to be made conspicuous.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[int] = frozenset()


class Drawing(NamedTuple):
    """A figure: an SVG element, and what it shows."""

    svg: str
    caption: str


class Picture(NamedTuple):
    """A PNG file, which the page will hold, and what it shows."""

    file: Path
    caption: str


class Code(NamedTuple):
    """Text that is shown without changes."""

    text: str


class Verdict(NamedTuple):
    """One sentence on a row.

    Attributes:
        kind: ``gain``, ``loss``, ``none`` or ``unmeasured``.
        row: Of what it speaks.
        text: The sentence.
        marks: Reservations.
        anchor: Of the section with the details.
    """

    kind: str
    row: str
    text: str
    marks: Sequence[str]
    anchor: str


Block = Union[str, Table, Drawing, Picture, Code, Verdict]


class Section(NamedTuple):
    """A headed part of a document."""

    title: str
    blocks: Sequence[Block]
    anchor: str = ''


class Document(NamedTuple):
    """A report."""

    title: str
    sections: Sequence[Section]


def to_markdown(document: Document) -> str:
    """Write a document as Markdown that GitHub shows; figures are left out."""
    parts = [f'# {escape(document.title)}']
    for section in document.sections:
        parts.append(f'## {escape(section.title)}')
        verdicts = [_verdict(b) for b in section.blocks if isinstance(b, Verdict)]
        if verdicts:
            parts.append('\n'.join(verdicts))
        parts += [
            _block(b) for b in section.blocks if not isinstance(b, (Verdict, Drawing, Picture))
        ]
    return '\n\n'.join(parts) + '\n'


def escape(text: str) -> str:
    """Plain text as Markdown of one line that shows just this text, in a table's cell too."""
    text = ' '.join(text.split())
    text = text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')
    text = re.sub(r'([\\`*_|~$#])', r'\\\1', text)
    text = re.sub(r'\](?=[(\[:])', r'\\]', text)  # a link; an interval's brackets stay readable
    text = re.sub(r'^([-+=])(?=\s|$)', r'\\\1', text)
    return re.sub(r'^(\d+)([.)])(?=\s|$)', r'\1\\\2', text)


def _verdict(verdict: Verdict) -> str:
    marks = ''.join(f' **⚠ {escape(mark)}**' for mark in verdict.marks)
    return f'- **{escape(verdict.row)}**: {escape(verdict.text)}{marks}'


def _block(block: str | Table | Code) -> str:
    if isinstance(block, Code):
        fence = '`' * max(3, 1 + max(map(len, re.findall('`+', block.text)), default=0))
        return f'{fence}\n{block.text}\n{fence}'
    if isinstance(block, str):
        return escape(block)
    rows = [[escape(cell) for cell in line] for line in [block.columns, *block.rows]]
    lines = [rows[0], ['---'] * len(rows[0]), *rows[1:]]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
