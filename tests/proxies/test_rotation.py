"""Rotation: all four turns of every crop, and a model that learns to tell them."""

import pytest
import torch
import torch.nn.functional as F
from mistakes import mistake

from mm_tuning_plugin.proxies.rotation import RotationDataPreprocessor, RotationModel
from mm_tuning_plugin.registry import MODELS


@pytest.fixture(autouse=True)
def few_threads():
    torch.set_num_threads(1)


def small_model(seed=0, **options):
    torch.manual_seed(seed)
    backbone = {'type': 'mmseg.ResNet', 'depth': 18, 'stem_channels': 8, 'base_channels': 8}
    options = {'in_channels': 64, **options}
    model = MODELS.build(
        {'type': 'mm_tuning_plugin.RotationModel', 'backbone': backbone, **options}
    )
    model.init_weights()
    return model


def noise(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


def test_every_crop_is_there_by_every_turn():
    mean, std = (10.0, 20.0, 30.0), (2.0, 3.0, 4.0)
    crops = [noise(seed, 3, 6, 6) for seed in range(3)]
    batch = RotationDataPreprocessor(mean, std)({'inputs': crops, 'data_samples': [None] * 3})
    assert set(batch) == {'inputs', 'turns'} and batch['inputs'].shape == (12, 3, 6, 6)
    pairs = set()
    for image, turns in zip(batch['inputs'], batch['turns'].tolist()):
        back = image * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
        for _ in range(turns):  # a quarter turn back: row i, column j from row j, column -1 - i
            back = back.transpose(1, 2).flip(2)
        hits = [torch.allclose(back, crop.flip(0).float(), atol=1e-3) for crop in crops]
        assert sum(hits) == 1
        pairs.add((hits.index(True), turns))
    assert len(pairs) == 12


def test_nothing_is_drawn():
    state = torch.get_rng_state()
    batch = {'inputs': torch.stack([noise(0, 3, 8, 8)])}
    first, second = (RotationDataPreprocessor()(batch)['inputs'] for _ in range(2))
    assert torch.equal(first, second) and torch.equal(state, torch.get_rng_state())


def test_the_loss_is_the_cross_entropy_of_the_turns():
    model = small_model().eval()
    batch = model.data_preprocessor({'inputs': [noise(s, 3, 32, 32) for s in range(2)]})
    with torch.no_grad():
        scores, losses = model(batch['inputs']), model(**batch, mode='loss')
        turns = model(**batch, mode='predict')
    assert scores.shape == (8, 4) and torch.equal(torch.stack(turns), scores.argmax(dim=1))
    torch.testing.assert_close(losses['loss_turns'], F.cross_entropy(scores, batch['turns']))
    hits = int((scores.argmax(dim=1) == torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])).sum())
    assert losses['acc_turns'] == 12.5 * hits and set(losses) == {'loss_turns', 'acc_turns'}


def test_the_gradient_reaches_everything():
    model = small_model()
    batch = model.data_preprocessor({'inputs': [noise(0, 3, 32, 32)]})
    model(**batch, mode='loss')['loss_turns'].backward()
    assert model.backbone.conv1.weight.grad.abs().max() > 0
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_it_learns_which_way_is_up():
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    slope = torch.linspace(0, 120, 32)[None, :, None]  # brighter below
    torch.manual_seed(0)
    accuracy = []
    for step in range(30):
        crops = [noise(100 * step + i, 3, 32, 32) * 0.5 + slope for i in range(4)]
        losses = model(**model.data_preprocessor({'inputs': crops}), mode='loss')
        optimizer.zero_grad()
        losses['loss_turns'].backward()
        optimizer.step()
        accuracy.append(losses['acc_turns'])
    assert torch.stack(accuracy[-5:]).mean() > 80  # chance: 25


@pytest.mark.parametrize(
    ('make', 'where', 'problem', 'remedy'),
    [
        (lambda: RotationDataPreprocessor(mean=(1.0,)), 'mean', '(1.0,)', '3'),
        (lambda: RotationDataPreprocessor(std=(1.0, 0, 1)), 'std', '(1.0, 0, 1)', 'positive'),
        (
            lambda: RotationDataPreprocessor()({'inputs': [noise(0, 3, 32, 40)]}),
            'inputs',
            '32 x 40',
            '40 x 40',
        ),
        (
            lambda: RotationDataPreprocessor()(
                {'inputs': [noise(0, 3, 32, 32), noise(0, 3, 24, 24)]}
            ),
            'inputs',
            '24 x 24',
            '32 x 32',
        ),
        (lambda: small_model(in_channels=-1), 'in_channels', '-1', '1'),
    ],
)
def test_mistakes_are_named(make, where, problem, remedy):
    with mistake(where, problem, remedy):
        make()


@pytest.mark.parametrize(
    ('mode', 'named'), [('loss', '^turns: .*None'), ('train', "^mode: .*'train'")]
)
def test_wrong_arguments_of_a_call_are_named(mode, named):
    with pytest.raises(ValueError, match=named):
        small_model()(torch.zeros(4, 3, 32, 32), mode=mode)


class Last(torch.nn.Module):
    """A backbone of three channels a map, which come last, on as many cells."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 8, 8)

    def forward(self, x):
        return [self.conv(x).permute(0, 2, 3, 1)]


@pytest.mark.parametrize('size', [(32, 32), (32, 64), (64, 32), (40, 24)])
def test_channels_are_averaged_over_cells_wherever_they_are(size):
    model = RotationModel({'type': Last}, 4)
    images = torch.randn(2, 3, *size)
    found = model.pooled(images)
    expected = model.backbone.conv(images)
    if size == (32, 32):  # 4 x 4 x 4: mmseg's order, where nothing tells
        expected = expected.permute(0, 2, 3, 1)
    assert torch.allclose(found, expected.mean(dim=(2, 3)), atol=1e-6)
    with mistake('in_channels', ['7', 'output -1'], '4'):
        RotationModel({'type': Last}, 7).pooled(torch.randn(1, 3, 40, 24))
