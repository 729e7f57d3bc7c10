"""``tools/sweep_configs.py`` over a sample of mmseg's own configs, and over wrong folders."""

import json
import re
from collections import Counter
from pathlib import Path

import mmseg
import pytest
from mistakes import check_mistake, mistake
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

from mm_tuning_plugin.cli.common.derived_config_checks import loading_places
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
from mm_tuning_plugin.engine.config.initial_weights import remove_pretrained

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
    'segmenter/segmenter_vit-b_mask_8xb1-160k_ade20k-512x512.py': DERIVED,  # a local pretrained
    'fastfcn/fastfcn_r50-d32_jpu_psp_4xb2-80k_cityscapes-512x1024.py': DERIVED,  # behind a neck
    'mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py': DERIVED,  # heads of mmdet
    'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py': UNLOADABLE,  # imports mmdet
    'san/san-vit-b16_voc12aug-640x640.py': REFUSED,
    'vpd/vpd_sd_4xb8-25k_nyu-512x512.py': REFUSED,
    'swin/swin-tiny-patch4-window7_upernet_1xb8-20k_levir-256x256.py': REFUSED,  # two images
}
SAMPLE = find_configs(OWN)[::24]


@pytest.mark.parametrize('name', RULES)
def test_rules(name):
    outcome = derive_one(OWN / name, name)
    assert outcome.status == RULES[name], outcome.reason
    assert '\n' not in outcome.reason
    if outcome.status == REFUSED:
        assert 'cannot be tuned' in outcome.reason
    if name.startswith('mask2former'):
        assert outcome.reason.removeprefix('fine-tuning ') == 'needs mmdet'


@pytest.mark.parametrize(
    'name',
    [
        'beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py',  # LayerDecayOptimizerConstructor
        'unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py',
        'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
        'bisenetv2/bisenetv2_fcn_4xb4-amp-160k_cityscapes-1024x1024.py',  # AmpOptimWrapper
    ],
)
def test_backbone_and_optimizer_are_built(name):
    built = set()
    assert derive_one(OWN / name, name, built) == (name, DERIVED, '')
    assert len(built) == 1


def test_a_sample_of_all():
    outcomes = [derive_one(path, path.name) for path in SAMPLE]
    assert len(outcomes) > 25
    for outcome in outcomes:
        assert outcome.status in (DERIVED, REFUSED, UNLOADABLE), outcome
        if outcome.status == UNLOADABLE:
            # mmpretrain without a torchvision is as good as none
            assert outcome.reason in ('needs mmpretrain', 'needs torchvision', 'needs mmdet')
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
    assert re.search(r'^bad\.py: .*line 1\b', capsys.readouterr().err, re.M)


def _mutates(cfg, derived):
    cfg.model.backbone.depth = 7


def _keeps_the_weights(cfg, derived):
    derived.model.backbone.init_cfg = [dict(type='mmengine.Pretrained', checkpoint='x')]


def _unknown_transform(cfg, derived):
    derived.train_dataloader.dataset.dataset.pipeline.append(dict(type='NoSuch'))


def _unknown_backbone_argument(cfg, derived):
    derived.model.backbone.no_such = 1


class DropsBiases(DefaultOptimWrapperConstructor):
    def add_params(self, params, module, **options):
        params += [{'params': [p]} for p in module.parameters() if p.ndim > 1]


def _drops_parameters(cfg, derived):
    OPTIM_WRAPPER_CONSTRUCTORS.register_module(module=DropsBiases, force=True)
    derived.optim_wrapper.update(constructor='DropsBiases', paramwise_cfg=dict(a=1))


def _raises(cfg, derived):
    raise KeyError('depth')


@pytest.mark.parametrize(
    ('fault', 'reason'),
    [
        (_raises, "'depth'"),
        (_mutates, 'config itself'),
        (_keeps_the_weights, 'model.backbone.init_cfg.0'),
        (lambda cfg, derived: derived.update(runner_type='X'), 'runner_type'),
        (lambda cfg, derived: derived.update(x=len), 'SyntaxError'),
        (lambda cfg, derived: derived.update(__x=1), 'another'),
        (_unknown_transform, "'NoSuch'.*transform"),
        (lambda cfg, derived: derived.model.criterion.update(type='NoSuch'), "'NoSuch'.*model"),
        (lambda cfg, derived: derived.custom_hooks.append(dict(type='NoSuch')), "'NoSuch'.*hook"),
        (lambda cfg, derived: derived.train_cfg.update(type='NoSuch'), "'NoSuch'.*loop"),
        (_drops_parameters, r'optimizer .*\d+ of \d+'),
        (_unknown_backbone_argument, 'TypeError.*no_such'),
    ],
)
def test_a_derivation_that_does_wrong_is_seen(fault, reason, monkeypatch):
    import mm_tuning_plugin.engine as engine

    derive = engine.derive_tuning_config

    def spoilt(cfg):
        derived = derive(cfg)
        fault(cfg, derived)
        return derived

    monkeypatch.setattr(engine, 'derive_tuning_config', spoilt)
    name = 'fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
    outcome = derive_one(OWN / name, name, set())
    assert outcome.status == FAILED and re.search(reason, outcome.reason), outcome.reason


def test_an_exception_of_the_derivation_is_status_1(tmp_path, monkeypatch, capsys):
    import mm_tuning_plugin.engine as engine

    monkeypatch.setattr(engine, 'derive_tuning_config', lambda cfg: cfg['nothing'])
    (tmp_path / 'good.py').write_text('a = 1\n')
    with pytest.raises(SystemExit) as ended:
        entry([str(tmp_path)])
    assert ended.value.code == 1
    assert 'good.py: ' in capsys.readouterr().err


def test_places_that_load_weights():
    model = dict(
        type='A',
        pretrained=None,
        backbone=dict(type='TIMMBackbone'),
        neck=dict(init_cfg=dict(type='Normal')),
        decode_head=[dict(init_cfg=dict(type='Pretrained')), dict(a=dict(pretrained='x'))],
    )
    assert list(loading_places(model)) == [
        'backbone.pretrained', 'decode_head.0.init_cfg', 'decode_head.1.a.pretrained',
    ]  # fmt: skip
    assert not list(loading_places(remove_pretrained(model)))


def test_patterns(tmp_path):
    for name in ('a/1.py', 'a/2.txt', 'b/3.py', '_base_/4.py'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in find_configs(f'{tmp_path}/*/*')] == ['1.py', '3.py']
    assert [path.name for path in find_configs(f'{tmp_path}/**/3.*')] == ['3.py']
    place = f'{tmp_path}/*/5*'
    with mistake(place, 'no config', '.py'):
        find_configs(place)


@pytest.mark.parametrize(
    ('folder', 'fact'), [('nowhere', 'no such folder'), ('empty', 'no config')]
)
def test_nothing_to_sweep_is_a_mistake(folder, fact, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    assert entry([str(tmp_path / folder)]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('error: ')
    check_mistake(last.removeprefix('error: '), str(tmp_path / folder), fact)


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
