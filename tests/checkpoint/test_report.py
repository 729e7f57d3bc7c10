"""The report as a short table and as JSON."""

import json

from mm_tuning_plugin.checkpoint.verdict.report import Layout, LoadReport


def report(stages, **changes):
    values = dict(
        path='a.pth',
        layout=Layout('state_dict', 'module.', 'timm ViT'),
        rule='',
        arguments={},
        num_loaded=3,
        share=0.5,
        missing=(),
        dropped=(),
        unexpected=(),
        resized={},
        filled=(),
        notes=(),
        stages=stages,
        hash_before='a' * 64,
        hash_after='b' * 64,
    )
    return LoadReport(**{**values, **changes})


def rows(text):
    return [line.split()[0] for line in text.splitlines() if ' / ' in line]


def test_many_full_stages_make_one_row():
    stages = {'patch_embed': (10, 10), **{f'layers.{i}': (5, 5) for i in range(24)}, 'ln1': (2, 2)}
    text = str(report(stages))
    assert rows(text) == ['patch_embed', 'layers.0', 'ln1']
    assert 'layers.0 .. layers.23' in text and '120 /' in text.replace(',', '')


def test_a_stage_that_lacks_something_keeps_its_row():
    stages = {f'layers.{i}': (4 if i == 8 else 5, 5) for i in range(16)}
    text = str(report(stages))
    assert 'layers.0 .. layers.7' in text and 'layers.9 .. layers.15' in text
    assert next(line for line in text.splitlines() if line.startswith('  layers.8 ')).endswith(
        '80%'
    )


def test_few_stages_are_told_one_by_one():
    text = str(report({'stem': (1, 1), 'layer1': (2, 2), 'layer2': (3, 3)}))
    assert rows(text) == ['stem', 'layer1', 'layer2']


def test_json_has_every_field():
    record = json.loads(report({'stem': (1, 2)}, notes=('a note',)).to_json())
    assert set(record) == set(LoadReport._fields)
    assert record['layout']['container'] == 'state_dict' and record['stages'] == {'stem': [1, 2]}
