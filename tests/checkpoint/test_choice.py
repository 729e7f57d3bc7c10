"""Two networks of one file that fit equally well: known pairs by rule, others are the user's."""

import time

import pytest
import torch
from mistakes import mistake
from mmseg.models.backbones import ResNet
from reference_networks import TorchvisionResNet, randomise
from torch import nn

from mm_tuning_plugin.checkpoint import hash_state_dict, load_backbone_checkpoint
from mm_tuning_plugin.checkpoint.match.disambiguate import choose


@pytest.fixture(scope='module')
def resnet_source():
    """A narrow one: where weights lie has nothing to do with how many there are."""
    with torch.no_grad():
        return randomise(TorchvisionResNet(width=8), seed=1)


def narrow(depth):
    return ResNet(depth=depth, stem_channels=8, base_channels=8)


def shifted(weights, by=1):
    return {k: v + by if v.is_floating_point() else v for k, v in weights.items()}


@pytest.mark.parametrize(
    ('taken', 'left', 'rule'),
    [
        ('encoder_q', 'encoder_k', 'moving average (encoder_k)'),
        ('base_encoder', 'momentum_encoder', 'moving average (momentum_encoder)'),
        ('teacher', 'student', 'teacher over student'),
        ('teacher_backbone', 'student_backbone', 'teacher over student'),
        ('online_network', 'target_network', 'moving average (target_network)'),
        ('backbone', 'momentum_backbone', 'moving average (momentum_backbone)'),
        ('model', 'model_ema', 'moving average (model_ema)'),
        ('state_dict', 'ema_state_dict', 'moving average (ema_state_dict)'),
    ],
)
@pytest.mark.parametrize('first', ['taken', 'left'])
def test_known_pairs(taken, left, rule, first, tmp_path, resnet_source):
    weights = resnet_source.state_dict()
    parts = [(taken, weights), (left, shifted(weights))]
    torch.save(dict(parts if first == 'taken' else parts[::-1]), tmp_path / 'a.pth')
    backbone = narrow(18)
    report = load_backbone_checkpoint(backbone, tmp_path / 'a.pth')
    assert report.layout.container == taken
    assert report.layout.equals == (f'{left}.',)
    assert rule in report.rule
    assert f'as good, not taken: {left}. ({report.rule})' in str(report)
    assert torch.equal(backbone.conv1.weight, resnet_source.conv1.weight)


@pytest.mark.parametrize('names', [('net_a', 'net_b'), ('student', 'model'), ('a.x', 'b')])
def test_unknown_pairs_are_the_users(names, tmp_path, resnet_source):
    weights = resnet_source.state_dict()
    a, b = names
    torch.save({a: weights, b: shifted(weights)}, tmp_path / 'a.pth')
    backbone = narrow(18)
    before = hash_state_dict(backbone.state_dict())
    with mistake(
        str(tmp_path / 'a.pth'), (f"'{a}.'", f"'{b}.'"), 'mix_and_match.checkpoint_prefix'
    ):
        load_backbone_checkpoint(backbone, tmp_path / 'a.pth')
    assert hash_state_dict(backbone.state_dict()) == before


@pytest.mark.parametrize('dot', ['', '.'])
def test_the_prefix_decides(dot, tmp_path, resnet_source):
    weights = resnet_source.state_dict()
    file = {'nets': {'a': shifted(weights), 'b': weights}, 'teacher': shifted(weights, 2)}
    torch.save(file, tmp_path / 'a.pth')
    backbone = narrow(18)
    report = load_backbone_checkpoint(backbone, tmp_path / 'a.pth', prefix='nets.b' + dot)
    assert report.layout[:2] == ('nets.b', '')
    assert torch.equal(backbone.conv1.weight, resnet_source.conv1.weight)
    assert 'teacher.conv1.weight' in report.dropped


def test_a_prefix_that_is_not_there(tmp_path, resnet_source):
    torch.save({'net_a': resnet_source.state_dict()}, tmp_path / 'a.pth')
    with mistake(str(tmp_path / 'a.pth'), "'net_b.'", "'net_a.'"):
        load_backbone_checkpoint(narrow(18), tmp_path / 'a.pth', prefix='net_b')


def test_the_same_weights_twice_are_no_rivals(tmp_path, resnet_source):
    weights = resnet_source.state_dict()
    torch.save({'net_a': weights, 'net_b': dict(weights)}, tmp_path / 'a.pth')
    report = load_backbone_checkpoint(narrow(18), tmp_path / 'a.pth')
    assert report.layout.container == 'net_a' and report.layout.equals == ('net_b.',)
    assert '(the same weights)' in str(report)


def test_a_misfit_is_told_before_rivals(tmp_path, resnet_source):
    weights = resnet_source.state_dict()
    torch.save({'net_a': weights, 'net_b': shifted(weights)}, tmp_path / 'a.pth')
    with mistake(str(tmp_path / 'a.pth'), ('ResNet-18', 'ResNet-50')):
        load_backbone_checkpoint(narrow(50), tmp_path / 'a.pth')


@pytest.mark.parametrize(
    ('prefixes', 'taken', 'rivals'),
    [
        (['a.'], 0, None),
        (['student.', 'teacher.', 'teacher_momentum.'], 1, None),
        (['momentum_a.', 'momentum_b.'], 0, (0, 1)),
        (['x.', 'momentum_x.', 'y.'], 0, (0, 2)),
        (['token_keys.', 'a.'], 0, (0, 1)),  # 'key' is a word, not a part of one
    ],
)
def test_choose(prefixes, taken, rivals):
    assert choose(prefixes)[::2] == (taken, rivals)


def test_a_large_file_that_does_not_fit_is_refused_in_seconds(tmp_path):
    """As an HRNet's, which has a thousand prefixes: none of them fits, so none is weighed."""
    network = {f'stage.{i}.{j}.conv.weight': torch.rand(3) for i in range(30) for j in range(30)}
    torch.save(network, tmp_path / 'large.pth')
    begun = time.time()
    with mistake(str(tmp_path / 'large.pth'), ('900 tensors', 'Sequential'), '0.weight'):
        load_backbone_checkpoint(nn.Sequential(nn.Linear(4, 4)), tmp_path / 'large.pth')
    assert time.time() - begun < 30
