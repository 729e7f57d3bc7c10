import pytest
import torch
from mmengine.model import PretrainedInit

from mm_tuning_plugin.engine.start import remove_pretrained, split_start
from mm_tuning_plugin.errors import UserError

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
    assert remove_pretrained(dict(type='TIMMBackbone'))['pretrained'] is False


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
    with pytest.raises(UserError, match=r'nowhere\.pth: no such file'):
        split_start(dict(backbone=dict(type='ResNet')), 'nowhere.pth')
    with pytest.raises(UserError, match=r'model\.init_cfg: weights of a whole segmentor'):
        split_start(dict(backbone=dict(type='ResNet'), init_cfg=PRETRAINED), None)
