"""The code blocks of the documentation."""

import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import mmseg

from mm_tuning_plugin.cli.main import entry

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


def run(words, monkeypatch):
    """Run a command in this process, which has imported what it needs; its exit status."""
    if words[0] == 'mm-tuning':
        return entry(words[1:])
    assert words[0] == 'python'
    if words[1] == '-c':
        exec(words[2], {})
        return 0
    script = ROOT / words[1]
    if any(word.startswith('runner_type=') for word in words):  # mmseg's own script
        script = Path(mmseg.__path__[0], '.mim', words[1])
    monkeypatch.setattr(sys, 'argv', [str(script), *words[2:]])
    try:
        runpy.run_path(str(script), run_name='__main__')
    except SystemExit as end:
        return end.code or 0
    return 0
