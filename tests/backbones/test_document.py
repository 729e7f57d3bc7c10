"""docs/backbones.md is what its generator writes."""

from pathlib import Path

from mm_tuning_plugin.cli.backbones_doc import document

HERE = Path(__file__).parent


def test_the_document_is_current():
    docs = HERE.parent.parent / 'docs'
    expected = document(str(HERE), docs / 'results' / 'configs')
    assert (docs / 'backbones.md').read_text(encoding='utf-8') == expected, 'make docs'
