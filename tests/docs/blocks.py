"""The code blocks of the documentation."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for pattern in ('*.md', 'docs/*.md', 'docs/results/README.md', 'configs/*/README.md')
    for path in ROOT.glob(pattern)
    if path.name != 'CHANGELOG.md'
)
FENCE = re.compile(r'^```(?P<info>[^\n]*)\n(?P<code>.*?)^```$', re.M | re.S)


class Block(NamedTuple):
    """One fenced block."""

    page: str
    language: str
    title: str
    code: str


def blocks(*languages):
    """All blocks of the pages, or those of some languages."""
    found = []
    for page in PAGES:
        for match in FENCE.finditer(page.read_text(encoding='utf-8')):
            language, _, rest = match['info'].partition(' ')
            title = re.search(r'title="([^"]+)"', rest)
            found.append(
                Block(
                    str(page.relative_to(ROOT)), language, title[1] if title else '', match['code']
                )
            )
    return [block for block in found if not languages or block.language in languages]


def commands(code):
    """The commands of a block as lists of words, without what sets environment variables."""
    joined = code.replace('\\\n', ' ')
    lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [
        words[next((i for i, word in enumerate(words) if not re.match(r'^[A-Z_]+=', word)), 0) :]
        for words in lines
        if words
    ]
