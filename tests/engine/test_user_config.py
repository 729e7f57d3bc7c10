import copy

import pytest
from mistakes import mistake

from mm_tuning_plugin.engine.config import decode_head, user_config
from mm_tuning_plugin.engine.config.user_config import read_user_config


@pytest.mark.parametrize(
    ('head', 'levels'),
    [
        (dict(in_index=3), [3]),
        (dict(in_index=[0, 1, 2, 3], in_channels=[1, 2, 3, 4]), [0, 1, 2, 3]),
        (dict(in_channels=64), [-1]),
        (dict(in_channels=[1, 2]), None),
        (dict(type='IterativeDecodeHead', kernel_generate_head=dict(in_index=2)), [2]),
        # cascades: PointRend's second head reads a part of what the first does, OCRNet's another
        ([dict(in_index=[0, 1, 2, 3]), dict(in_index=[0])], [0, 1, 2, 3]),
        ([dict(in_index=2), dict(in_index=3)], [2, 3]),
        ([dict(in_index=2), dict(in_channels=[1, 2])], None),
        # what is no head has keys of its own
        (dict(loss_decode=dict(type='MyLoss', in_index=0)), [-1]),
        (dict(in_channels=64, pixel_decoder=dict(in_channels=[1, 2], in_index=[0, 1])), [-1]),
    ],
)
def test_levels_are_those_that_the_heads_read(head, levels):
    assert decode_head.read_levels(dict(decode_head=head)) == levels


def test_the_last_head_of_a_cascade_counts(toy_cfg):
    head = toy_cfg.model.decode_head
    toy_cfg.model.decode_head = [dict(head, num_classes=3), dict(head, num_classes=8)]
    assert read_user_config(toy_cfg).num_classes == 8


def test_classes_come_from_the_head_then_from_the_data_set(toy_cfg):
    facts = read_user_config(toy_cfg)
    assert (facts.num_classes, facts.class_names[0]) == (8, 'sky')
    del toy_cfg.model.decode_head['num_classes']
    assert read_user_config(toy_cfg).num_classes == 8
    steps = toy_cfg.train_dataloader.dataset.pipeline
    toy_cfg.train_dataloader.dataset = dict(type='PascalVOCDataset', pipeline=steps)
    facts = read_user_config(toy_cfg)
    assert (facts.num_classes, facts.class_names[0], facts.background_index) == (
        21, 'background', 0,
    )  # fmt: skip


def test_classes_may_be_named_in_a_file(toy_cfg, tmp_path):
    expected = read_user_config(toy_cfg)
    names = tmp_path / 'classes.txt'
    names.write_text('\n'.join(expected.class_names))
    toy_cfg.train_dataloader.dataset.metainfo.classes = str(names)
    assert read_user_config(toy_cfg).class_names == expected.class_names
    toy_cfg.train_dataloader.dataset.metainfo.classes = 'nowhere.txt'
    with mistake('dataset.metainfo.classes', "'nowhere.txt'", 'list'):
        read_user_config(toy_cfg)


def test_background_is_class_0_by_its_name_or_what_the_option_says(toy_cfg):
    assert read_user_config(toy_cfg).background_index is None
    toy_cfg.mix_and_match.background_index = 2
    assert read_user_config(toy_cfg).background_index == 2
    toy_cfg.mix_and_match.background_index = 8
    with mistake('mix_and_match.background_index', '8', '8'):
        read_user_config(toy_cfg)


def test_a_key_is_the_heads_own_or_that_of_a_head_inside_it():
    from mmseg.models import FCNHead

    loss, sampler = dict(type='DiceLoss', ignore_index=0), dict(ignore_index=1, num_classes=3)
    head = dict(loss_decode=[loss], sampler=sampler, pixel_decoder=[dict(num_classes=2)])
    assert decode_head.head_key(head, 'ignore_index') is None
    assert decode_head.head_key(head, 'num_classes') is None
    inner = dict(loss_decode=loss, num_classes=19, ignore_index=7)
    for type_ in ({}, dict(type='FCNHead'), dict(type='mmseg.FCNHead'), dict(type=FCNHead)):
        knet = dict(head, kernel_update_head=[dict(num_classes=4)], kernel_generate_head=inner)
        wrapper = dict(head, inside=dict(inner, **type_))
        for outer in (knet, wrapper) if type_ else (knet,):
            assert decode_head.head_key(outer, 'ignore_index') == 7
            assert decode_head.head_key(outer, 'num_classes') == 19  # K-Net's is the generator's
            assert decode_head.head_key(dict(outer, num_classes=5), 'num_classes') == 5
            assert decode_head.head_key(outer, 'in_index') is None


@pytest.mark.parametrize(
    ('head', 'ignored'),
    [
        (dict(loss_decode=[dict(type='DiceLoss', ignore_index=0)]), [255]),
        (dict(loss_decode=dict(type='TverskyLoss', ignore_index=0), ignore_index=11), [11, 255]),
        (dict(ignore_index=-1), [-1, 255]),
        (dict(ignore_index=65535), [255, 65535]),
        (dict(ignore_index=7.0), [7, 255]),
        (dict(ignore_index=None), [255]),
        (dict(kernel_generate_head=dict(ignore_index=4)), [4, 255]),
    ],
)
def test_ignored_values_are_the_heads_own(head, ignored, toy_cfg):
    toy_cfg.model.decode_head.update(head)
    assert read_user_config(toy_cfg).ignore_values == ignored
    facts = read_user_config(toy_cfg)
    assert facts.num_classes == 8


@pytest.mark.parametrize('index', ['255', [0, 255], 0.5, True])
def test_an_ignore_index_that_is_no_integer_is_a_mistake(index, toy_cfg):
    toy_cfg.model.decode_head.ignore_index = index
    with mistake('model.decode_head.ignore_index', repr(index), 'integer'):
        read_user_config(toy_cfg)


LOSSES = {
    'softmax': dict(type='CrossEntropyLoss'),
    'sigmoid': dict(type='CrossEntropyLoss', use_sigmoid=True),
    'hinge': dict(type='LovaszLoss', loss_type='binary', reduction='none'),
    'hinge of each': dict(type='LovaszLoss', loss_type='binary', per_image=True),
    'dice': dict(type='DiceLoss'),
    'dice of logits': dict(type='DiceLoss', use_sigmoid=False),
    'tversky': dict(type='TverskyLoss'),
    'both': [dict(type='CrossEntropyLoss', use_sigmoid=True, loss_name='loss_a'),
             dict(type='DiceLoss')],
    'mixed': [dict(type='DiceLoss'), dict(type='CrossEntropyLoss')],
    'none given': None,
}  # fmt: skip


@pytest.mark.parametrize('outputs', [dict(num_classes=1), dict(num_classes=1, out_channels=1),
                                     dict(num_classes=2, out_channels=1)])  # fmt: skip
@pytest.mark.parametrize('loss', LOSSES)
def test_one_output_has_as_many_classes_as_mmsegs_head_takes(outputs, loss, toy_cfg):
    """Its own head is the judge: whether it computes a loss of labels 0 and 1."""
    import torch
    from mmengine.structures import PixelData
    from mmseg.models import FCNHead
    from mmseg.structures import SegDataSample

    given = {} if LOSSES[loss] is None else dict(loss_decode=copy.deepcopy(LOSSES[loss]))
    head = FCNHead(in_channels=2, channels=2, num_convs=1, **outputs, **given)
    labels = torch.tensor([[0, 1], [255, 0]])[None].repeat(1, 2, 2)
    sample = SegDataSample(gt_sem_seg=PixelData(data=labels))
    try:
        head.loss_by_feat(torch.zeros(1, 1, 4, 4), [sample])
        taken = 2
    except IndexError:
        taken = 1
    assert taken == (1 if loss in ('softmax', 'mixed', 'none given') else 2)
    toy_cfg.model.decode_head.pop('loss_decode', None)
    toy_cfg.model.decode_head.update(outputs, **given)
    facts = read_user_config(toy_cfg)
    assert facts.num_classes == len(facts.class_names) == taken
    assert facts.class_names == ['sky', 'ground'][:taken]


def test_one_output_and_one_name_are_two_classes(toy_cfg):
    toy_cfg.model.decode_head.update(num_classes=1, loss_decode=LOSSES['sigmoid'])
    toy_cfg.train_dataloader.dataset.metainfo = dict(classes=['road'])
    assert read_user_config(toy_cfg).class_names == ['road', 'class 1']
    # another head's channels are no outputs
    toy_cfg.model.decode_head.update(type='Mask2FormerHead', out_channels=256)
    assert read_user_config(toy_cfg).num_classes == 1


@pytest.mark.parametrize('number', [0, 256, 1000])
def test_more_classes_than_a_byte_holds_are_told(number, toy_cfg):
    toy_cfg.model.decode_head.num_classes = number
    with mistake('num_classes', str(number), ['1 to 255', '8 bits']):
        read_user_config(toy_cfg)


def test_activations_are_recomputed_wherever_a_backbone_says_so():
    assert not user_config.any_set(dict(type='ResNet', with_cp=False), 'with_cp')
    assert user_config.any_set(dict(type='ResNet', with_cp=True), 'with_cp')
    inner = dict(type='ICNet', with_cp=False, backbone_cfg=dict(with_cp=True))
    assert user_config.any_set(inner, 'with_cp')
    assert user_config.any_set(dict(parts=[dict(with_cp=True)]), 'with_cp')


def test_ignored_values_are_the_heads_the_paddings_and_255(toy_cfg):
    toy_cfg.model.decode_head.ignore_index = 7
    toy_cfg.model.data_preprocessor.seg_pad_val = 6
    assert read_user_config(toy_cfg).ignore_values == [6, 7, 255]


def test_normalisation_is_read_from_the_preprocessor(toy_cfg):
    norm = read_user_config(toy_cfg).normalisation
    assert norm.mean == [123.675, 116.28, 103.53] and norm.swap_channels
    toy_cfg.data_preprocessor = toy_cfg.model.pop('data_preprocessor')
    assert read_user_config(toy_cfg).normalisation == norm


def _unknown_preprocessor(cfg):
    cfg.model.data_preprocessor.type = 'VPDDataPreProcessor'


def _load_from(cfg):
    cfg.load_from = 'x.pth'


def _no_backbone(cfg):
    cfg.model.pop('backbone')


def _no_head(cfg):
    cfg.model.pop('decode_head')


def _depth(cfg):
    cfg.model.type = 'DepthEstimator'


def _change_detection(cfg):
    cfg.model.type = 'SiamEncoderDecoder'


def _pairs(cfg):
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset',
        times=2,
        dataset=dict(type='LEVIRCDDataset', pipeline=[dict(type='mmseg.ConcatCDInput')]),
    )


def _no_data(cfg):
    cfg.train_dataloader = None


def _no_optimizer(cfg):
    cfg.optim_wrapper = None


@pytest.mark.parametrize(
    ('spoil', 'where', 'problem', 'remedy'),
    [
        (_unknown_preprocessor, 'data_preprocessor', 'VPDDataPreProcessor', 'SegDataPreProcessor'),
        (_load_from, 'load_from', "'x.pth'", 'mix_and_match.checkpoint'),
        (_no_backbone, 'model', 'EncoderDecoder', 'segmentor'),
        (_no_head, 'model.decode_head', 'None', 'decode head'),
        (_depth, 'model', 'DepthEstimator', 'segmentor'),
        (_change_detection, 'model', 'SiamEncoderDecoder', 'segmentor'),
        (_pairs, 'train_dataloader', 'ConcatCDInput', 'one image'),
        (_no_data, 'train_dataloader', 'none', 'data'),
        (_no_optimizer, 'optim_wrapper', 'None', 'optimizer'),
    ],
)
def test_configs_that_cannot_be_tuned_are_refused_in_one_line(
    toy_cfg, spoil, where, problem, remedy
):
    from mm_tuning_plugin.engine import derive_tuning_config

    spoiled = copy.deepcopy(toy_cfg)
    spoil(spoiled)
    with mistake(where, problem, remedy):
        derive_tuning_config(spoiled)


@pytest.mark.parametrize(
    ('backbone', 'expected'),
    [
        (dict(type='ResNet', img_size=96), None),
        (dict(type='BEiT', img_size=(640, 320)), [640, 320]),
        (dict(type='mmseg.MAE'), [224, 224]),
        (dict(type='mmpretrain.BEiTViT', img_size=192), [192, 192]),
        (dict(type='TIMMBackbone', model_name='resnet18'), None),
        (dict(type='TIMMBackbone', img_size=96), [96, 96]),
        (dict(type='TIMMBackbone', img_size=96, dynamic_img_size=True), None),
        (dict(type='TIMMBackbone', img_size=96, strict_img_size=False), None),
    ],
)
def test_the_only_size_that_a_backbone_takes(backbone, expected):
    assert user_config.read_fixed_size(backbone) == expected
