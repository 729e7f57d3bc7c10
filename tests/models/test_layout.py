"""Where the channels of a map are, by what can be seen of it."""

import random

import pytest
import torch
from mistakes import mistake
from torch import nn

from mm_tuning_plugin.models.channel_layout import (
    bring_forward,
    channel_dim,
    channel_dims,
    layout_name,
    told_by_timm,
)
from mm_tuning_plugin.models.outputs import level_names, place_of, run_probe


class Stages(nn.Module):
    """Maps at the strides given, of `channels`, with these in dimension `dim`."""

    def __init__(self, channels=5, strides=(4,), dim=1, only=None):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, channels, s, s) for s in strides)
        self.dim, self.only = dim, only

    def forward(self, x):
        if self.only is not None and tuple(x.shape[-2:]) != self.only:
            raise ValueError('one size only')
        return tuple(conv(x).movedim(1, self.dim) for conv in self.convs)


def dims_of(backbone, side=64):
    image = torch.zeros(1, 3, side, side)
    return channel_dims(backbone, image, run_probe(backbone, image, False))


@pytest.mark.parametrize('dim', [1, 2, 3])
@pytest.mark.parametrize(
    ('channels', 'side'),
    # 8: as many channels as cells at stride 8 of 64 pixels; 2: at stride 32; 1: at 64
    [(5, 64), (8, 64), (2, 64), (1, 64), (8, 128)],
)
def test_what_does_not_follow_the_size_of_images_is_channels(dim, channels, side):
    strides = (4, 8, 16, 32, 64)
    assert dims_of(Stages(channels, strides, dim), side) == [dim] * 5


def test_each_map_has_a_layout_of_its_own():
    class Mixed(Stages):
        def forward(self, x):
            first, second = super().forward(x)
            return first, second.movedim(1, 3)

    assert dims_of(Mixed(16, (4, 8))) == [1, 3]


@pytest.mark.parametrize(('dim', 'channels'), [(1, 5), (3, 5), (1, 40), (3, 40)])
def test_of_one_size_alone_the_proportions_tell(dim, channels):
    assert dims_of(Stages(channels, (4, 8), dim, only=(64, 64))) == [dim] * 2


def test_of_one_size_alone_what_timm_says_decides_between_equal_lengths():
    class Wrapper(nn.Module):
        def __init__(self, dim, told):
            super().__init__()
            self.timm_model = Stages(16, (4,), dim, only=(64, 64))
            self.timm_model.output_fmt = told

        def forward(self, x):
            return self.timm_model(x)

    class Format:
        def __init__(self, value):
            self.value = value

    assert dims_of(Wrapper(3, Format('NHWC'))) == [3]
    assert dims_of(Wrapper(1, Format('NCHW'))) == [1]
    assert dims_of(Stages(16, (4,), 3, only=(64, 64))) == [1]  # nobody says so: mmseg's order
    assert told_by_timm(Stages(), 2) == (None, [None, None])


@pytest.mark.parametrize(
    ('shape', 'size', 'known', 'expected'),
    [
        ((1, 7, 7, 96), (224, 224), {}, 3),
        ((1, 96, 7, 7), (224, 224), {}, 1),
        ((2, 4, 8, 32), (128, 256), {}, 3),
        ((2, 32, 4, 8), (128, 256), {}, 1),
        ((2, 8, 4, 8), (128, 256), {}, 1),  # 4 x 8 cells, or 8 x 4 of a wide image
        ((2, 4, 8, 4), (128, 256), {}, 3),
        ((1, 7, 7, 7), (224, 224), {}, 1),
        ((1, 7, 7, 7), (224, 224), dict(told=3), 3),
        ((1, 7, 7, 96), (224, 224), dict(told=1), 3),
        ((1, 6, 7, 7), (224, 224), dict(channels=7), 3),
        ((1, 6, 7, 7), (224, 224), dict(channels=9), 1),  # of neither: told where they are read
        ((1, 7, 7, 7), (224, 224), dict(follow={1, 2}), 3),
        ((1, 7, 7, 7), (224, 224), dict(follow={1}), 3),
        ((1, 7, 96, 7), (224, 224), dict(follow={1, 3}), 2),
        ((1, 96, 7, 7), (224, 224), dict(follow={1, 2}, told=1, channels=96), 3),
    ],
)
def test_one_map_by_what_is_known_of_it(shape, size, known, expected):
    assert channel_dim(shape, size, **known) == expected


def test_channels_that_follow_the_size_of_images_are_none():
    class Growing(nn.Module):
        def forward(self, x):
            return x.new_zeros(1, x.shape[-1] // 2, x.shape[-2] // 4, x.shape[-1] // 4)

    with mistake('model.backbone', ['Growing', '(1, 32, 16, 16)'], '(B, C, H, W)'):
        dims_of(Growing())


def test_maps_of_one_size_whatever_the_image_are_ordinary():
    class Pooling(Stages):
        def forward(self, x):
            return [nn.functional.adaptive_avg_pool2d(super().forward(x)[0], 7)]

    assert dims_of(Pooling(32)) == [1]


def test_asking_again_leaves_no_trace():
    class Drawing(Stages):
        def forward(self, x):
            return [super().forward(x)[0] + torch.rand(1)]

    backbone = Drawing(dim=3).train()
    backbone.convs.eval()
    image = torch.zeros(1, 3, 64, 64)
    maps = run_probe(backbone, image, False)
    modes = [module.training for module in backbone.modules()]
    states = torch.get_rng_state(), random.getstate()
    assert channel_dims(backbone, image, maps) == [3]
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert [module.training for module in backbone.modules()] == modes
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_maps_are_brought_forward_and_ordinary_ones_stay_themselves():
    level = torch.arange(24.0).view(1, 2, 3, 4)
    assert bring_forward(level, 1) is level
    assert torch.equal(bring_forward(level.permute(0, 2, 3, 1), 3), level)
    assert torch.equal(bring_forward(level.permute(0, 2, 1, 3), 2), level)
    assert [layout_name(dim) for dim in (1, 2, 3)] == [
        '(B, C, H, W)', '(B, H, C, W)', '(B, H, W, C)',
    ]  # fmt: skip


def test_levels_by_name_or_by_position():
    maps = [torch.zeros(1, 2, 3, 3)] * 3
    assert level_names(tuple(maps), maps) == [0, 1, 2]
    names = level_names(dict(zip(('c', 5, 2), maps)), maps)
    assert names == ['c', 5, 2]
    assert [place_of(i, names) for i in ('c', 5, 2, 0, -1, 3, 'd')] == [0, 1, 2, 0, 2, None, None]
    assert [place_of(i, [0, 1, 2]) for i in (0, 2, -1, -3, 3, -4)] == [0, 2, 2, 0, None, None]
