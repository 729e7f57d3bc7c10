"""docs/backbones.md is what its generator writes."""

from pathlib import Path

import backbones_page
import cases
import cases_further
import pytest
from backbones_page import document, rows
from mmengine.registry import DefaultScope
from stubbed import import_further

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / 'docs'
# A row of each kind: each cell is filled in one of them, and says what it seldom says.
OF_EACH_KIND = {
    **{name: cases.BACKBONES[name] for name in ('BEiT', 'DDRNet', 'FastSCNN', 'ICNet', 'UNet')},
    **{name: cases_further.TIMM[name] for name in ('TIMMBackbone vit',)},
    **{name: cases_further.PRETRAIN[name] for name in ('DaViT', 'DeiT3', 'PoolFormer')},
}


def stored():
    return (DOCS / 'backbones.md').read_text(encoding='utf-8')


def as_line(cells):
    return f'| {" | ".join(cells)} |'


@pytest.mark.filterwarnings('ignore')
def test_rows_are_what_is_measured():
    import_further()
    lines = stored().splitlines()
    with DefaultScope.overwrite_default_scope('mmseg'):
        wrong = [row for row in map(as_line, rows(cases, OF_EACH_KIND)) if row not in lines]
    assert not wrong, 'make docs'


def test_all_but_the_rows_is_current(monkeypatch):
    """Every case has a row, in its place; what stands around them is the generator's."""
    cells = {}
    for line in stored().splitlines():
        if line.startswith('| '):
            row = tuple(line[2:-2].split(' | '))
            cells.setdefault(row[0], []).append(row)

    def row_of(own, some):
        for name, case in some.items():
            row = cells[name].pop(0)
            assert row[1] == ('-' if case.exchanged else backbones_page.shown(case.config))
            yield row

    monkeypatch.setattr(backbones_page, 'rows', row_of)
    assert stored() == document(str(HERE), DOCS / 'results' / 'configs'), 'make docs'


@pytest.mark.walk
def test_the_document_is_current():
    assert stored() == document(str(HERE), DOCS / 'results' / 'configs'), 'make docs'
