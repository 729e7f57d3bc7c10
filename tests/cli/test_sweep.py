"""``tools/sweep_configs.py`` over a sample of mmseg's own configs, and over wrong folders."""

import json
from collections import Counter
from pathlib import Path

import mmseg
import pytest

from mm_tuning_plugin.cli.sweep import (
    DERIVED,
    FAILED,
    REFUSED,
    UNLOADABLE,
    counts_table,
    derive_one,
    entry,
    find_configs,
)

OWN = Path(mmseg.__path__[0], '.mim', 'configs')
# One for every rule that a config of mmseg asks for.
RULES = {
    'knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py': DERIVED,  # no direct num_classes
    'ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024.py': DERIVED,  # heads in a list
    'point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py': DERIVED,
    'icnet/icnet_r18-d8_4xb2-80k_cityscapes-832x832.py': DERIVED,  # a nested backbone
    'bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024.py': DERIVED,
    'stdc/stdc1_4xb12-80k_cityscapes-512x1024.py': DERIVED,
    'deeplabv3/deeplabv3_r101-d8_4xb4-20k_voc12aug-512x512.py': DERIVED,  # data sets joined
    'unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py': DERIVED,  # a data set repeated
    'beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py': DERIVED,  # rates that decay by layer
    'san/san-vit-b16_voc12aug-640x640.py': REFUSED,
    'vpd/vpd_sd_4xb8-25k_nyu-512x512.py': REFUSED,
}
SAMPLE = find_configs(OWN)[::12]


@pytest.mark.parametrize('name', RULES)
def test_rules(name):
    outcome = derive_one(OWN / name, name)
    assert outcome.status == RULES[name], outcome.reason
    assert '\n' not in outcome.reason
    if outcome.status == REFUSED:
        assert 'cannot be tuned: it ' in outcome.reason


def test_a_twelfth_of_all():
    outcomes = [derive_one(path, path.name) for path in SAMPLE]
    assert len(outcomes) > 50
    for outcome in outcomes:
        assert outcome.status in (DERIVED, REFUSED, UNLOADABLE), outcome
        if outcome.status == UNLOADABLE:
            assert outcome.reason in ('needs mmpretrain', 'needs mmdet')
    assert sum(outcome.status == DERIVED for outcome in outcomes) >= 0.9 * len(outcomes)


def test_a_folder_of_ones_own(tmp_path, capsys):
    good = OWN / 'fcn' / 'fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
    (tmp_path / 'a').mkdir()
    (tmp_path / '_base_').mkdir()
    (tmp_path / 'a' / 'good.py').write_text(f'_base_ = {str(good)!r}\n')
    (tmp_path / 'no_data.py').write_text(f'_base_ = {str(good)!r}\ntrain_dataloader = None\n')
    (tmp_path / 'imports.py').write_text("custom_imports = dict(imports='not_there_at_all')\n")
    (tmp_path / '_base_' / 'part.py').write_text('a = 1\n')
    assert entry([str(tmp_path), '--json', str(tmp_path / 'out.json')]) == 0
    said = capsys.readouterr().out
    assert said.startswith('3 configs of ') and '| 1 | derived |' in said
    record = json.loads((tmp_path / 'out.json').read_text())
    assert record['counts'] == {DERIVED: 1, REFUSED: 1, UNLOADABLE: 1}
    assert record['configs']['a/good.py'] == DERIVED
    assert record['configs']['no_data.py'].startswith('refused: train_dataloader')
    assert 'not_there_at_all' in record['configs']['imports.py']


def test_what_is_neither_derived_nor_refused_is_status_1(tmp_path, capsys):
    (tmp_path / 'bad.py').write_text('a = (')
    with pytest.raises(SystemExit) as ended:
        entry([str(tmp_path)])
    assert ended.value.code == 1
    assert 'bad.py: cannot be read' in capsys.readouterr().err


@pytest.mark.parametrize('fault', ['changed', 'left', 'unwritable', 'raises'])
def test_a_derivation_that_does_wrong_is_seen(fault, monkeypatch):
    from mmengine.config import Config

    import mm_tuning_plugin.engine as engine

    def derive(cfg):
        if fault == 'raises':
            raise KeyError('backbone')
        if fault == 'changed':
            cfg.model.backbone.depth = 7
        extra = {'left': {'runner_type': 'X'}, 'unwritable': {'x': lambda: 0}}.get(fault, {})
        return Config(dict(a=1, **extra))

    monkeypatch.setattr(engine, 'derive_tuning_config', derive)
    name = 'fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
    assert derive_one(OWN / name, name).status == FAILED


@pytest.mark.parametrize('folder', ['nowhere', 'empty'])
def test_nothing_to_sweep_is_a_mistake(folder, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    assert entry([str(tmp_path / folder)]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('error: ') and folder in last and 'expected' in last


@pytest.mark.parametrize('which', ['fork', 'original'])
def test_the_committed_counts_hold_no_failure(which):
    path = Path(__file__).parents[2] / 'docs' / 'results' / 'configs' / f'{which}.json'
    record = json.loads(path.read_text())
    assert sum(record['counts'].values()) == len(record['configs']) >= 681
    assert FAILED not in record['counts']
    found = Counter(outcome.split(':')[0] for outcome in record['configs'].values())
    assert found == record['counts']


def test_the_table_counts():
    from mm_tuning_plugin.cli.sweep import Outcome

    table = counts_table([Outcome('a.py', DERIVED, '')] * 2 + [Outcome('b.py', REFUSED, 'no')])
    assert table.splitlines()[2:] == [
        '| 2 | derived |  | `a.py` |',
        '| 1 | refused | no | `b.py` |',
    ]
