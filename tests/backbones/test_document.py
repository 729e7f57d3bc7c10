"""docs/backbones.md is what its generator writes."""

from pathlib import Path

from mm_tuning_plugin.cli.backbones_doc import document

HERE = Path(__file__).parent


def test_the_document_is_current():
    written = HERE.parent.parent / 'docs' / 'backbones.md'
    assert written.read_text(encoding='utf-8') == document(str(HERE)), 'make docs'
