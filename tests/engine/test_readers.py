"""What mmseg's classes would misread of a backbone is told before it is tuned."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from mistakes import mistake
from mmengine.registry import DefaultScope
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads import FCNHead
from mmseg.models.necks import FPN
from mmseg.registry import MODELS
from torch import nn

from mm_tuning_plugin.engine import MixAndMatchRunner
from mm_tuning_plugin.engine.preflight.channel_order import check_readers


class Last(nn.Module):
    """An mmseg backbone whose maps come with channels last."""

    def __init__(self):
        super().__init__()
        self.network = MODELS.build(
            dict(type='mmseg.ResNet', depth=18, stem_channels=8, base_channels=8)
        )

    def forward(self, x):
        return tuple(level.permute(0, 2, 3, 1) for level in self.network(x))


class Permute(nn.Module):
    """The user's own neck."""

    def forward(self, levels):
        return tuple(level.permute(0, 3, 1, 2) for level in levels)


class OwnHead(FCNHead):
    """The user's own head: it permutes what it reads."""

    def _transform_inputs(self, inputs):
        return super()._transform_inputs([level.permute(0, 3, 1, 2) for level in inputs])


class Renamed(FCNHead):
    """A head of the user's that reads as mmseg's does."""

    def __init__(self, *args, mine=None, **kwargs):
        super().__init__(*args, **kwargs)


class OwnSegmentor(EncoderDecoder):
    """A segmentor of the user's that permutes."""

    def extract_feat(self, inputs):
        return [level.permute(0, 3, 1, 2) for level in super().extract_feat(inputs)]


def tuner(dims, names=None):
    names = list(range(len(dims))) if names is None else names
    return SimpleNamespace(
        backbone=Last(), channel_dims=dims, level_names=names, num_levels=len(dims)
    )


def model(head='FCNHead', in_index=3, neck=None, segmentor='EncoderDecoder', **more):
    found = dict(
        type=segmentor,
        backbone=dict(type=Last),
        decode_head=dict(type=head, in_index=in_index, in_channels=64),
        **more,
    )
    return found if neck is None else dict(found, neck=dict(type=neck))


LAST = [3, 3, 3, 3]


@pytest.mark.parametrize(
    ('config', 'dims', 'reader'),
    [
        (model(), LAST, 'FCNHead'),
        (model(head='mmseg.FCNHead'), LAST, 'mmseg.FCNHead'),
        (model(head=FCNHead), LAST, 'FCNHead'),
        (model(head=Renamed), LAST, 'Renamed'),
        (model(), [1, 1, 1, 2], 'FCNHead'),
        (model(in_index=-1), [1, 1, 1, 3], 'FCNHead'),
        (model(neck='FPN', head=OwnHead), [1, 3, 1, 1], 'FPN'),
        (model(neck=FPN), LAST, 'FPN'),
        (model(head=OwnHead, auxiliary_head=dict(type='FCNHead', in_index=2)), LAST, 'FCNHead'),
        (
            model(auxiliary_head=[dict(type=OwnHead), dict(type='PSPHead', in_index=1)]),
            [1, 3, 1, 1],
            'PSPHead',
        ),
    ],
)
def test_channels_last_for_a_class_of_mmseg(config, dims, reader):
    layout = '(B, H, C, W)' if 2 in dims else '(B, H, W, C)'
    with mistake('model.backbone', ['Last', layout, f' {reader} ', '(B, C, H, W)'], 'neck'):
        check_readers(config, tuner(dims), 'mmseg')


@pytest.mark.parametrize(
    ('config', 'dims'),
    [
        (model(), [1, 1, 1, 1]),
        (model(in_index=2), [3, 3, 1, 3]),
        (model(neck=Permute), LAST),
        (model(head=OwnHead), LAST),
        (model(segmentor=OwnSegmentor), LAST),
        (model(head='NobodyRegisteredThis'), LAST),  # told where it is built
        (model(in_index=7), [1, 1, 1, 3]),
    ],
)
def test_what_reads_as_it_is_goes_through(config, dims):
    check_readers(config, tuner(dims), 'mmseg')


def test_a_dict_is_read_by_name():
    maps = [1, 1, 1, 1]
    check_readers(model(), tuner(maps, [0, 1, 2, 3]), 'mmseg')
    check_readers(model(), tuner(maps, [2, 3, 4, 5]), 'mmseg')
    check_readers(model(neck=Permute), tuner(maps, list('abcd')), 'mmseg')
    for config, names, remedy in (
        (model(), list('abcd'), ['FCNHead', 'number 3']),
        (model(in_index=-1), [2, 3, 4, 5], ['FCNHead', 'number -1']),
        (model(neck='FPN'), [2, 3, 4, 5], ['FPN', 'number 0']),
    ):
        with mistake('model.backbone', ['Last', ', '.join(map(repr, names))], remedy):
            check_readers(config, tuner(maps, names), 'mmseg')


def test_a_run_ends_before_it_tunes_and_goes_through_with_a_neck(toy_cfg):
    toy_cfg.model.backbone = dict(type=Last)
    toy_cfg.mix_and_match.retrieval_images = 0
    with mistake('model.backbone', ['Last', '(B, H, W, C)', 'FCNHead'], 'neck'):
        MixAndMatchRunner.from_cfg(toy_cfg).train()
    assert not list(Path(toy_cfg.work_dir).rglob('*.pth'))
    toy_cfg.model.neck = dict(type=Permute)
    toy_cfg.mix_and_match.max_iters = toy_cfg.train_cfg.max_iters = 1
    with DefaultScope.overwrite_default_scope('mmseg'):
        MixAndMatchRunner.from_cfg(toy_cfg).train()
    assert Path(toy_cfg.work_dir, 'tuning', 'tuned_backbone.pth').is_file()
