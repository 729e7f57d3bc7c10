"""A document as one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import itertools
import re
from pathlib import Path

from mm_tuning_plugin.extras import need_extra
from mm_tuning_plugin.visualization.document import (
    Code,
    Document,
    Drawing,
    Picture,
    Table,
    Verdict,
)

HERE = Path(__file__).parent


def to_html(document: Document) -> str:
    """Write a document as an HTML5 page.

    The template is ``page.html.j2``, the style ``page.css``. Styles and figures stand in the page.
    There is no script, and every text is escaped: names come from files that others may have
    written.
    """
    need_extra('report')
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters['runs'] = _runs
    figures = itertools.count(1)
    environment.filters['numbered'] = lambda svg: Markup(own_ids(svg, f'figure{next(figures)}-'))
    environment.filters['embedded'] = _embedded
    page = environment.from_string((HERE / 'page.html.j2').read_text(encoding='utf-8'))
    style = (HERE / 'page.css').read_text(encoding='utf-8')
    return page.render(document=document, style=Markup(f'\n{style}')) + '\n'


def _embedded(file: Path) -> str:
    """A PNG file as the address of an image that lies in the page itself."""
    return f'data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}'


def own_ids(svg: str, prefix: str) -> str:
    """Put a prefix before each id of a figure, as a page may have each id once."""
    return re.sub(r'(?: id="|xlink:href="#|url\(#)', lambda found: found[0] + prefix, svg)


def _runs(blocks: list) -> list[tuple[str, list]]:
    """Neighbours of one kind together, as verdicts make one list and figures one grid."""
    runs: list[tuple[str, list]] = []
    for block in blocks:
        known = isinstance(block, (Verdict, Table, Drawing, Picture, Code))
        kind = type(block).__name__ if known else 'text'
        if not runs or runs[-1][0] != kind:
            runs.append((kind, []))
        runs[-1][1].append(block)
    return runs
