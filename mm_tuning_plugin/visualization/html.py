"""A document as one HTML page without other files."""

from __future__ import annotations

import base64
import itertools
import re
from importlib import resources
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
from mm_tuning_plugin.visualization.report_colours import PAGE


def to_html(document: Document) -> str:
    """Write a document as an HTML5 page.

    Styles and figures are part of the page and there is no script. Every text is escaped, since
    names come from files that others may have written. The template is `report.html.j2`, the style
    `report.css.j2`, both beside this module.

    Raises:
        UserError: The extra `report` is not installed.
    """
    need_extra('report')
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read_template),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    figures = itertools.count(1)
    environment.filters.update(
        runs=_runs,
        numbered=lambda svg: Markup(own_ids(svg, f'figure{next(figures)}-')),
        embedded=_embedded,
    )
    style = Markup(environment.get_template('report.css.j2').render(colours=PAGE))
    page = environment.get_template('report.html.j2').render(document=document, style=style)
    return page + '\n'


def _read_template(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding='utf-8')


def _embedded(file: Path) -> str:
    """Return a PNG file as a data URL, so that the page contains it."""
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
