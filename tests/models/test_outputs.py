"""What a backbone gives in both modes, on backbones written for the purpose."""

import pytest
import torch
from mistakes import mistake
from torch import nn

from mm_tuning_plugin.models.outputs import (
    as_maps,
    freeze_unreached,
    needed_divisor,
    padded,
    probe_image,
    run_probe,
    training_order,
    unreached_parameters,
)

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(3))


class Branched(nn.Module):
    """Two branches; `training_gives` says which of (a, b) come in training, b comes always."""

    def __init__(self, training_gives='ab'):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.b = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.idle = nn.Linear(2, 2)
        self.gives = training_gives

    def forward(self, x):
        maps = {'a': self.a(x), 'b': self.b(x), 'c': self.b(x) + 1}
        return tuple(maps[name] for name in self.gives) if self.training else maps['b']


def order(gives):
    backbone = Branched(gives)
    kept, given = (run_probe(backbone, IMAGE, training) for training in (False, True))
    return training_order(kept, given, backbone)


@pytest.mark.parametrize(
    ('gives', 'expected'),
    [('b', [0]), ('ab', [1, 0]), ('ba', [0, 1]), ('aba', [1, 0, 2]), ('acb', [2, 0, 1])],
)
def test_the_maps_of_evaluation_come_first(gives, expected):
    assert order(gives) == expected


def test_equal_maps_have_places_of_their_own():
    one, other = torch.zeros(1, 2, 3, 3), torch.ones(1, 2, 3, 3)
    assert training_order([one, one], [other, one, one], Branched()) == [1, 2, 0]


def test_an_output_of_evaluation_that_training_lacks():
    with mistake('model.backbone', ['Branched', '2 maps in training', '1 in evaluation']):
        order('ac')


def test_probing_leaves_modes_and_statistics_alone():
    backbone = Branched().train()
    backbone.a.eval()
    modes = [module.training for module in backbone.modules()]
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    for training in (False, True):
        run_probe(backbone, IMAGE, training)
    assert [module.training for module in backbone.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_what_a_class_keeps_for_evaluation_is_let_go_of():
    class Keeping(Branched):
        kept = False

        def train(self, mode=True):
            self.kept = not mode
            return super().train(mode)

        def forward(self, x):
            assert self.kept != self.training
            return super().forward(x)

    backbone = Keeping().train()
    run_probe(backbone, IMAGE, False)
    assert backbone.training and not backbone.kept


def test_what_reaches_no_map_is_frozen_and_nothing_else():
    backbone = Branched('ab')
    given = run_probe(backbone, IMAGE, True)
    assert freeze_unreached(backbone, given) == ['idle.weight', 'idle.bias']
    frozen = [name for name, p in backbone.named_parameters() if not p.requires_grad]
    assert frozen == ['idle.weight', 'idle.bias']
    assert sorted(unreached_parameters(backbone, given[1:])) == [
        'a.0.bias', 'a.0.weight', 'a.1.bias', 'a.1.weight',
    ]  # fmt: skip
    assert all(p.grad is None for p in backbone.parameters())


def test_maps_that_depend_on_no_parameter():
    backbone = Branched()
    with torch.no_grad():
        given = run_probe(backbone, IMAGE, True)
    trained = sum(p.requires_grad for p in backbone.parameters())
    with mistake('model.backbone', ['Branched', f'{trained} parameters']):
        freeze_unreached(backbone, given)
    assert all(p.requires_grad for p in backbone.parameters())


def test_single_maps_and_pairs():
    one = torch.zeros(1, 2, 3, 3)
    pair = (one, torch.zeros(1, 2))
    assert as_maps(one, Branched())[0] is one
    assert as_maps([pair, one], Branched())[0] is one


@pytest.mark.parametrize(
    ('outputs', 'found'),
    [
        (torch.zeros(2, 5), '(2, 5)'),
        ([torch.zeros(2, 5, 7)], '(2, 5, 7)'),
        ({'out': torch.zeros(1, 2)}, '(1, 2)'),
        (torch.zeros(1, 2, 3, 3, 3), '(1, 2, 3, 3, 3)'),
        ((), 'tuple'),
        ([None], 'NoneType'),
    ],
)
def test_no_maps(outputs, found):
    with mistake('model.backbone', ['Branched', found], '(B, C, H, W)'):
        as_maps(outputs, Branched())


def test_a_size_that_the_backbone_refuses():
    with mistake('model.backbone', ['Branched', '8 x 9']):
        run_probe(Branched(), torch.zeros(1, 5, 8, 9), False)


def test_channels_of_the_probe():
    assert probe_image({'in_channels': 6}, Branched(), (4, 5)).shape == (1, 6, 4, 5)
    assert probe_image({}, Branched(), (4, 5)).shape == (1, 3, 4, 5)
    assert probe_image({}, nn.Linear(2, 2), (4, 5)).shape == (1, 3, 4, 5)
    assert torch.equal(probe_image({}, Branched(), (4, 5)), probe_image({}, Branched(), (4, 5)))


class Divided(nn.Module):
    """Takes sides that `divisor` divides."""

    def __init__(self, divisor=1):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.divisor = divisor

    def forward(self, x):
        assert all(length % self.divisor == 0 for length in x.shape[-2:])
        return self.conv(x)


@pytest.mark.parametrize('divisor', [1, 2, 8, 32])
def test_the_divisor_is_found(divisor):
    image = torch.zeros(1, 3, 64, 96)
    assert needed_divisor(Divided(divisor), image) == divisor


def test_one_size_only_needs_no_divisor():
    class Fixed(Divided):
        def forward(self, x):
            assert x.shape[-2:] == (64, 64)
            return self.conv(x)

    assert needed_divisor(Fixed(), torch.zeros(1, 3, 64, 64)) == 1


def test_padding_is_below_and_right_and_none_where_none_is_needed():
    images = torch.ones(1, 3, 10, 16)
    assert padded(images, 8).shape == (1, 3, 16, 16)
    assert torch.equal(padded(images, 8)[:, :, :10], images)
    assert padded(images, 8)[:, :, 10:].abs().sum() == 0
    assert padded(images, 2) is images
