"""A document as one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import itertools
import re
from pathlib import Path

import jinja2
from markupsafe import Markup

from mm_tuning_plugin.visualization.document import (
    Code,
    Document,
    Drawing,
    Picture,
    Table,
    Verdict,
)

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; color: #1b1b1b; background: #fff;
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; border-top: 1px solid #ccc; padding-top: 1rem; }
h1, h2, p, li, figcaption { overflow-wrap: anywhere; }
p { max-width: 48rem; margin: .6rem 0; }
a { color: #004a8f; }
ul.verdicts { list-style: none; margin: 0; padding: 0; }
ul.verdicts li { border-left: .4rem solid #767676; background: #f5f5f5; margin: 0 0 .6rem;
  padding: .6rem .8rem; }
ul.verdicts li.gain { border-color: #0072b2; }
ul.verdicts li.loss { border-color: #d55e00; }
.mark { display: inline-block; background: #ffe9a8; color: #4a3300; border: 1px solid #8a6100;
  border-radius: .2rem; padding: 0 .4rem; font-size: .9rem; font-weight: 600; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid #ccc; padding: .3rem .55rem; text-align: left; vertical-align: top;
  white-space: nowrap; }
th { white-space: normal; min-width: 4rem; }
td.long { white-space: normal; min-width: 14rem; overflow-wrap: anywhere; }
th { background: #ececec; }
tr.marked td { background: #fff6dc; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2rem; margin: 1rem 0; }
figure { margin: 0; flex: 1 1 26rem; max-width: 34rem; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; }
figure.picture { flex-basis: 100%; max-width: 100%; overflow-x: auto; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { font-size: .9rem; color: #333; }
pre { overflow-x: auto; background: #f5f5f5; padding: .6rem .8rem; font-size: .9rem; }
@media print { body { max-width: none; } ul.verdicts li, figure, tr { break-inside: avoid; } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ document.title }}</title>
<style>{{ style }}</style>
</head>
<body>
<main>
<h1>{{ document.title }}</h1>
{% for section in document.sections %}
<section{% if section.anchor %} id="{{ section.anchor }}"{% endif %}>
<h2>{{ section.title }}</h2>
{% for kind, blocks in section.blocks | runs %}
{% if kind == 'Verdict' %}
<ul class="verdicts">
{% for verdict in blocks %}
<li class="{{ verdict.kind }}"><a href="#{{ verdict.anchor }}"><strong>{{ verdict.row }}</strong></a>:
{{ verdict.text }}{% for mark in verdict.marks %} <span class="mark">⚠ {{ mark }}</span>{% endfor %}</li>
{% endfor %}
</ul>
{% elif kind == 'Drawing' %}
<div class="figures">
{% for drawing in blocks %}
<figure>
{{ drawing.svg | numbered }}
<figcaption>{{ drawing.caption }}</figcaption>
</figure>
{% endfor %}
</div>
{% elif kind == 'Picture' %}
<div class="figures">
{% for picture in blocks %}
<figure class="picture">
<img src="{{ picture.file | embedded }}" alt="{{ picture.caption }}">
<figcaption>{{ picture.caption }}</figcaption>
</figure>
{% endfor %}
</div>
{% elif kind == 'Table' %}
{% for table in blocks %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ section.title }}: table">
<table>
<thead><tr>{% for column in table.columns %}<th scope="col">{{ column }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr{% if loop.index0 in table.marked %} class="marked"{% endif %}>
{%- for cell in row %}<td{% if cell | length > 36 %} class="long"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
{% elif kind == 'Code' %}
{% for code in blocks %}
<pre tabindex="0">{{ code.text }}</pre>
{% endfor %}
{% else %}
{% for text in blocks %}
<p>{{ text }}</p>
{% endfor %}
{% endif %}
{% endfor %}
</section>
{% endfor %}
</main>
</body>
</html>
"""  # noqa: E501


def to_html(document: Document) -> str:
    """Write a document as an HTML5 page.

    Styles and figures stand in the page, there is no script, and every text is escaped: names come
    from files that others may have written.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters['runs'] = _runs
    figures = itertools.count(1)
    environment.filters['numbered'] = lambda svg: Markup(own_ids(svg, f'figure{next(figures)}-'))
    environment.filters['embedded'] = _embedded
    return environment.from_string(_PAGE).render(document=document, style=Markup(_STYLE)) + '\n'


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
