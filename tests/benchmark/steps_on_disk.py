"""Steps that a few lines of Python run, and the journal in which they write what they do."""

import sys
from pathlib import Path
from typing import NamedTuple

SCRIPT = """
import os, signal, sys, time
from pathlib import Path

folder, product, code = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
checkpoint = folder / 'checkpoint'


def note(word):
    with open(folder.parent / 'journal', 'a') as file:
        file.write(f'{word} {folder.name}' + chr(10))


def words():
    return (folder.parent / 'journal').read_text().splitlines()


def wait_for(line):
    end = time.monotonic() + 300
    while line not in words():
        assert time.monotonic() < end, f'no {line!r} in time'
        time.sleep(0.01)


def stop(*_):
    checkpoint.write_text('half')
    note('stopped')
    raise SystemExit(143)


signal.signal(signal.SIGTERM, stop)
note('resumed' if checkpoint.exists() else 'begun')
if not checkpoint.exists():
    exec(code)
product.write_text('made')
note('done')
"""


class FakeStep(NamedTuple):
    """What the pool knows of a step; `cfg` is the code that it runs before it makes its product."""

    kind: str
    name: str
    folder: Path
    product: Path
    cfg: str = ''
    needs: tuple = ()
    iterations: int = 10
    flops: float = 1.0


def make_step(root, name, code='', needs=(), **fields):
    folder = root / name
    return FakeStep(
        'tuning', name, folder, folder / 'product', code, tuple(n.product for n in needs), **fields
    )


def command_of(step):
    return [sys.executable, '-S', '-c', SCRIPT, str(step.folder), str(step.product), step.cfg]


def journal(root):
    return (root / 'journal').read_text().split('\n')[:-1]
