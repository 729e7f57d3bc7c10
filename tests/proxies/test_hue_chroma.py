"""Colorization by hue and chroma: the arithmetic, the points, and that both heads learn."""

import colorsys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mistakes import mistake

from mm_tuning_plugin.demo.dataset import draw_scene
from mm_tuning_plugin.functional import sample_labelled_pixels
from mm_tuning_plugin.proxies import hues
from mm_tuning_plugin.registry import MODELS


@pytest.fixture(autouse=True)
def few_threads():
    torch.set_num_threads(1)


GREY = {
    'type': 'mm_tuning_plugin.HueChromaDataPreprocessor',
    'mean': [114.444], 'std': [255.0], 'grey': 'average',
}  # fmt: skip


def small_model(seed=0, stem=1, **options):
    torch.manual_seed(seed)
    backbone = {
        'type': 'mmseg.ResNet', 'depth': 18, 'stem_channels': 8, 'base_channels': 8,
        'in_channels': stem,
    }  # fmt: skip
    options = {
        'in_index': (0, 1, 3), 'in_channels': (8, 16, 64), 'channels': 16, 'points': 40,
        'bins': 8, 'window': 5, 'data_preprocessor': GREY, **options,
    }  # fmt: skip
    model = MODELS.build(
        {'type': 'mm_tuning_plugin.HueChromaModel', 'backbone': backbone, **options}
    )
    model.init_weights()
    return model


def scenes(count, size=64):
    drawn = [draw_scene(seed, size)[0] for seed in range(count)]
    return [torch.from_numpy(np.ascontiguousarray(s.transpose(2, 0, 1))) for s in drawn]


# --- arithmetic -----------------------------------------------------------------------------


def test_hue_and_chroma_are_those_of_the_standard_library():
    rgb = torch.rand(1, 3, 20, 20, dtype=torch.float64)
    rgb[0, :, 0, :4] = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]]).T
    hue, chroma = hues.rgb_to_hue_chroma(rgb)[0]
    for y in range(20):
        for x in range(20):
            h, s, v = colorsys.rgb_to_hsv(*rgb[0, :, y, x].tolist())
            assert abs(hue[y, x] - h) < 1e-9 and abs(chroma[y, x] - s * v) < 1e-9
    grey = hues.rgb_to_hue_chroma(torch.full((1, 3, 1, 1), 0.3))
    assert (grey == 0).all() and grey.isfinite().all()
    assert hue.min() >= 0 and hue.max() < 1


def test_histograms_equal_a_plain_loop():
    torch.manual_seed(0)
    maps = torch.rand(2, 2, 7, 9)
    valid = (torch.rand(2, 1, 7, 9) < 0.8).float()
    points = torch.cartesian_prod(torch.arange(2), torch.arange(7), torch.arange(9))
    ours = hues.window_histograms(maps, valid, points, bins=6, window=3)
    for row, (b, y, x) in enumerate(points.tolist()):
        hue, chroma, mean, count = np.zeros(6), np.zeros(6), 0.0, 0
        for i in range(max(0, y - 1), min(7, y + 2)):
            for j in range(max(0, x - 1), min(9, x + 2)):
                if valid[b, 0, i, j]:
                    h, c = maps[b, :, i, j].tolist()
                    hue[int(h * 6)] += c
                    chroma[int(c * 6)] += 1
                    mean, count = mean + c, count + 1
        if count:
            assert np.allclose(ours[0][row], hue / hue.sum(), atol=1e-5)
            assert np.allclose(ours[1][row], chroma / count, atol=1e-5)
            assert abs(ours[2][row] - mean / count) < 1e-5
        else:
            assert all((part[row] == 0).all() for part in ours)


def test_the_largest_values_fall_into_the_last_bin():
    maps = torch.ones(1, 2, 3, 3)
    point = torch.tensor([[0, 1, 1]])
    of_hue, of_chroma, mean = hues.window_histograms(maps, torch.ones(1, 1, 3, 3), point, 4, 3)
    assert of_hue[0].tolist() == of_chroma[0].tolist() == [0, 0, 0, 1] and mean == 1


# --- loss -----------------------------------------------------------------------------------


@pytest.mark.parametrize('head', ['hypercolumn', 'convolutional'])
def test_the_loss_is_that_of_the_scores_at_the_points(head):
    model = small_model(head=head).eval()
    batch = model.data_preprocessor({'inputs': scenes(2)})
    torch.manual_seed(5)
    losses = model(**batch, mode='loss')
    torch.manual_seed(5)
    points, _ = sample_labelled_pixels(torch.zeros(2, 64, 64, dtype=torch.int64), 40)
    levels = [model.backbone(batch['inputs'])[index] for index in (0, 1, 3)]
    image, y, x = points.unbind(1)
    if head == 'hypercolumn':
        column = [F.interpolate(level, (64, 64), mode='bilinear') for level in levels]
        column = torch.cat(column, dim=1)[image, :, y, x]
        scores = model.head.classify(model.head.hidden.__class__.__base__.forward(
            model.head.hidden, column).relu())  # fmt: skip
    else:
        scores = F.interpolate(model(batch['inputs']), (64, 64), mode='bilinear')[image, :, y, x]
    of_hue, of_chroma, colour = hues.window_histograms(
        batch['chroma'], batch['valid'], points, 8, 5
    )
    hue = -(of_hue * scores[:, :8].log_softmax(1)).sum(1)
    chroma = -(of_chroma * scores[:, 8:].log_softmax(1)).sum(1)
    torch.testing.assert_close(losses['loss_hue'], 5.0 * (hue * colour).mean())
    torch.testing.assert_close(losses['loss_chroma'], chroma.mean())


def test_padding_is_no_part_of_the_mean():
    model = small_model(points=64 * 64).eval()  # every pixel
    wide, small = scenes(1)[0], scenes(1)[0][:, :6, :5]
    batch = model.data_preprocessor({'inputs': [wide, small]})
    pixels = torch.cartesian_prod(torch.arange(2), torch.arange(64), torch.arange(64))
    levels = [model.backbone(batch['inputs'])[index] for index in (0, 1, 3)]
    scores = model.head.at_points(levels, pixels, (64, 64))[:, 8:].log_softmax(1)
    chromas = hues.window_histograms(batch['chroma'], batch['valid'], pixels, 8, 5)[1]
    known = batch['valid'].flatten() > 0
    expected = -(chromas * scores).sum(1)[known].mean()
    assert known.sum() == 64 * 64 + 30
    torch.testing.assert_close(model(**batch, mode='loss')['loss_chroma'], expected)


def test_no_point_lies_on_padding_and_little_of_an_image_gives_few():
    model = small_model(points=200).eval()
    wide, small = scenes(1)[0], scenes(1, size=64)[0][:, :6, :5]
    batch = model.data_preprocessor({'inputs': [wide, small]})
    torch.manual_seed(1)
    losses = model(**batch, mode='loss')
    spoilt = {**batch, 'chroma': torch.where(batch['valid'] > 0, batch['chroma'], 0.7)}
    torch.manual_seed(1)
    again = model(**spoilt, mode='loss')
    assert all(torch.equal(losses[name], again[name]) for name in losses)


def test_grey_images_teach_no_hue():
    model = small_model()
    grey = torch.randint(256, (1, 1, 32, 32), dtype=torch.uint8).expand(2, 3, 32, 32)
    losses = model(**model.data_preprocessor({'inputs': grey}), mode='loss')
    assert losses['loss_hue'] == 0 and losses['loss_chroma'] > 0
    (losses['loss_hue'] + losses['loss_chroma']).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize('head', ['hypercolumn', 'convolutional'])
def test_a_few_scenes_are_learnt(head):
    model = small_model(head=head, channels=32).train()
    batch = model.data_preprocessor({'inputs': scenes(4)})
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    history = []
    for _ in range(40):
        optimizer.zero_grad()
        losses = model(**batch, mode='loss')
        loss = losses['loss_hue'] + losses['loss_chroma']
        loss.backward()
        optimizer.step()
        history.append(float(loss))
    assert np.mean(history[-5:]) < 0.75 * np.mean(history[:3])
    first = model.backbone.conv1.weight
    assert first.shape[1] == 1 and first.grad.abs().sum() > 0


@pytest.mark.parametrize('head', ['hypercolumn', 'convolutional'])
def test_predicts_hue_and_chroma_of_every_cell(head):
    model = small_model(head=head).eval()
    batch = model.data_preprocessor({'inputs': scenes(2)})
    with torch.no_grad():
        scores, predicted = model(batch['inputs']), model(**batch, mode='predict')
    assert scores.shape == (2, 16, 16, 16) and predicted[0].shape == (2, 16, 16)
    assert predicted[1][0, 3, 4] == (scores[1, :8, 3, 4].argmax() + 0.5) / 8
    assert predicted[1][1, 3, 4] == (scores[1, 8:, 3, 4].argmax() + 0.5) / 8


@pytest.mark.parametrize(
    ('make', 'where', 'problem', 'remedy'),
    [
        (lambda: small_model(head='linear'), 'head', "'linear'", 'hypercolumn, convolutional'),
        (lambda: small_model(window=4), 'window', '4', 'odd'),
        (lambda: small_model(points=0), 'points', '0', '1'),
        (lambda: small_model(hue_weight=-1.0), 'hue_weight', '-1.0', '0'),
        (lambda: small_model(in_index=(0, 1)), 'in_index, in_channels', '(0, 1)', ()),
        (
            lambda: small_model(
                data_preprocessor={'type': 'mm_tuning_plugin.ColorizationDataPreprocessor'}
            ),
            'data_preprocessor',
            'ColorizationDataPreprocessor',
            'HueChromaDataPreprocessor',
        ),
    ],
)
def test_mistakes_are_named(make, where, problem, remedy):
    with mistake(where, problem, remedy):
        make()


def test_a_loss_without_its_target_is_named():
    with pytest.raises(ValueError, match=r'^chroma: .*None'):
        small_model()(torch.zeros(1, 1, 32, 32), mode='loss')


@pytest.mark.parametrize(
    ('options', 'where', 'problem', 'remedy'),
    [
        ({'stem': 3}, 'model.backbone', ['ResNet', '3 input channels'], 'expected 1,'),
        ({'points': 32 * 32 + 1}, 'points', '1025', '1024'),
        ({'in_channels': (8, 16, 65)}, 'in_channels', ['65', 'output 3'], '64'),
        ({'in_index': (0, 1, 4)}, 'in_index', '4', '4 outputs'),
    ],
)
def test_what_does_not_fit_is_one_line(options, where, problem, remedy):
    model = small_model(**options)
    batch = model.data_preprocessor({'inputs': scenes(2, size=32)})
    with mistake(where, problem, remedy):
        model(**batch, mode='loss')
