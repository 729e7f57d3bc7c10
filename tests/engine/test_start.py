import re

import pytest
import torch
from mistakes import mistake
from mmengine.config import Config
from mmengine.model import PretrainedInit

from mm_tuning_plugin.engine import MixAndMatchRunner, derive_tuning_config
from mm_tuning_plugin.engine.config.initial_weights import (
    adopt_self_supervised,
    remove_pretrained,
    split_start,
)

PRETRAINED = dict(type='Pretrained', checkpoint='open-mmlab://resnet50')


def test_everything_that_loads_weights_goes_and_other_inits_stay():
    model = dict(
        pretrained='torchvision://resnet50',
        backbone=dict(
            type='ICNet',
            init_cfg=PRETRAINED,
            backbone_cfg=dict(type='ResNetV1c', pretrained='open-mmlab://resnet50_v1c'),
        ),
        decode_head=[dict(init_cfg=dict(type='Normal', std=0.01)), dict(init_cfg=[PRETRAINED])],
    )
    freed = remove_pretrained(model)
    assert freed['pretrained'] is None
    assert 'init_cfg' not in freed['backbone']
    assert freed['backbone']['backbone_cfg']['pretrained'] is None
    assert freed['decode_head'][0]['init_cfg']['type'] == 'Normal'
    assert 'init_cfg' not in freed['decode_head'][1]
    assert model['pretrained'] == 'torchvision://resnet50'


def test_an_init_cfg_may_name_its_class():
    init = dict(type=PretrainedInit, checkpoint='x')
    assert remove_pretrained(dict(type='ResNet', init_cfg=init)) == dict(type='ResNet')


def test_timms_wrapper_is_told_not_to_load():
    freed = remove_pretrained(dict(type='TIMMBackbone', checkpoint_path='a.pth'))
    assert freed == dict(type='TIMMBackbone', pretrained=False)


def test_the_option_replaces_what_the_config_says(tmp_path):
    start = tmp_path / 'start.pth'
    torch.save({}, start)
    model = dict(pretrained='x://y', backbone=dict(type='ResNet', init_cfg=PRETRAINED))
    assert split_start(model, str(start)) == (dict(type='ResNet'), str(start))


def test_a_local_file_of_the_config_is_read_by_our_loader(tmp_path):
    start = tmp_path / 'start.pth'
    torch.save({}, start)
    for model in (
        dict(pretrained=str(start), backbone=dict(type='ResNet')),
        dict(backbone=dict(type='ResNet', pretrained=str(start))),
        dict(backbone=dict(type='ResNet', init_cfg=dict(type='Pretrained', checkpoint=str(start)))),
    ):
        backbone, checkpoint = split_start(model, None)
        assert checkpoint == str(start)
        assert backbone.get('pretrained') is None and 'init_cfg' not in backbone


def test_anything_else_of_the_config_is_left_to_mmseg():
    model = dict(pretrained='open-mmlab://resnet50', backbone=dict(type='ResNet'))
    backbone = dict(type='ResNet', pretrained='open-mmlab://resnet50')
    assert split_start(model, None) == (backbone, None)
    model = dict(backbone=dict(type='ResNet', init_cfg=PRETRAINED))
    assert split_start(model, None) == (model['backbone'], None)


def test_a_missing_file_and_a_segmentors_weights_are_refused():
    with mistake('nowhere.pth', remedy='backbone'):
        split_start(dict(backbone=dict(type='ResNet')), 'nowhere.pth')
    with mistake('model.init_cfg', 'segmentor', 'mix_and_match.checkpoint'):
        split_start(dict(backbone=dict(type='ResNet'), init_cfg=PRETRAINED), None)


SELF_SUPERVISED = dict(type='mm_tuning_plugin.SelfSupervised', checkpoint='moco.pth')


def with_start(place, init_cfg, **options):
    model = dict(type='EncoderDecoder', backbone=dict(type='SwinTransformer'))
    (model if place == 'model' else model['backbone'])['init_cfg'] = init_cfg
    return Config(dict(model=model, mix_and_match=options))


@pytest.mark.parametrize('place', ['model', 'backbone'])
@pytest.mark.parametrize('form', [dict, list])
def test_self_supervised_becomes_an_option(place, form):
    given = dict(SELF_SUPERVISED, min_matched=0.5, allow_pickle=True, prefix='a')
    cfg = with_start(place, given if form is dict else [dict(type='Kaiming'), given], lr=1)
    before = cfg.to_dict()
    adopted = adopt_self_supervised(cfg)
    assert dict(adopted['mix_and_match']) == dict(
        checkpoint='moco.pth', min_matched=0.5, allow_pickle=True, checkpoint_prefix='a', lr=1
    )
    left = (adopted.model if place == 'model' else adopted.model.backbone).init_cfg
    assert left == (None if form is dict else [dict(type='Kaiming')])
    assert cfg.to_dict() == before
    assert adopt_self_supervised(adopted) is adopted


@pytest.mark.parametrize('chosen', [dict(checkpoint='b.pth'), dict(tuned_backbone='t.pth')])
def test_an_option_comes_before_self_supervised(chosen):
    adopted = adopt_self_supervised(
        with_start('backbone', dict(SELF_SUPERVISED, min_matched=0.1), **chosen)
    )
    assert dict(adopted.mix_and_match) == chosen
    assert adopted.model.backbone.init_cfg is None


def test_options_beside_self_supervised_have_the_last_word():
    adopted = adopt_self_supervised(
        with_start('model', dict(SELF_SUPERVISED, min_matched=0.1), min_matched=0.7)
    )
    assert dict(adopted.mix_and_match) == dict(checkpoint='moco.pth', min_matched=0.7)


def test_a_malformed_self_supervised_is_refused():
    for wrong in (
        dict(type='mm_tuning_plugin.SelfSupervised'),
        dict(SELF_SUPERVISED, checkpont='x'),
        dict(SELF_SUPERVISED, checkpoint=3),
    ):
        found = ['SelfSupervised', ', '.join(sorted(wrong))]
        with mistake('model.init_cfg', found, 'checkpoint=FILE'):
            adopt_self_supervised(with_start('model', wrong))
    cfg = with_start('model', SELF_SUPERVISED)
    cfg.model.backbone.init_cfg = SELF_SUPERVISED
    with mistake(re.compile(r'model\.init_cfg.*model\.backbone\.init_cfg'), 'SelfSupervised'):
        adopt_self_supervised(cfg)


def test_both_stages_read_self_supervised_by_our_loader(toy_cfg, tmp_path):
    start = tmp_path / 'start.pth'
    torch.save({}, start)
    toy_cfg.model.backbone.init_cfg = dict(SELF_SUPERVISED, checkpoint=str(start))
    derived = derive_tuning_config(toy_cfg).model
    assert derived.checkpoint == str(start) and not derived.backbone.get('init_cfg')
    runner = MixAndMatchRunner(toy_cfg)
    assert runner.options.checkpoint == str(start)
    assert not runner.cfg.model.backbone.init_cfg
    with mistake('moco.pth', remedy='backbone'):
        toy_cfg.model.backbone.init_cfg = [SELF_SUPERVISED]
        derive_tuning_config(toy_cfg)


def test_a_local_file_in_a_list_is_read_by_our_loader(tmp_path):
    start = tmp_path / 'start.pth'
    torch.save({}, start)
    listed = [dict(type='Kaiming'), dict(type='Pretrained', checkpoint=str(start))]
    assert split_start(dict(backbone=dict(type='ResNet', init_cfg=listed)), None)[1] == str(start)
