"""The hypercolumn head: what it reads, at which pixels, and what it never holds."""

import pytest
import torch
import torch.nn.functional as F
from mistakes import mistake
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.utils._python_dispatch import TorchDispatchMode

from mm_tuning_plugin.functional import sample_labelled_pixels
from mm_tuning_plugin.registry import MODELS

IMAGE, CHANNELS, SIZES = (24, 36), [3, 8, 16, 40], [(24, 36), (12, 18), (5, 7), (1, 2)]


@pytest.fixture(autouse=True)
def few_threads():
    torch.set_num_threads(1)


def build_head(seed=0, **options):
    torch.manual_seed(seed)
    options = {'in_channels': CHANNELS, 'in_index': [0, 1, 2, 3], 'channels': 12, **options}
    config = {'type': 'mm_tuning_plugin.HypercolumnHead', 'num_classes': 5, 'points': 9, **options}
    head = MODELS.build(config)
    head.init_weights()
    return head


def make_levels(seed=0, images=2, sizes=SIZES):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(images, width, *size) for width, size in zip(CHANNELS, sizes)]
    return [torch.rand(shape, generator=generator).sub(0.5).requires_grad_() for shape in shapes]


def make_samples(seg_maps):
    return [SegDataSample(gt_sem_seg=PixelData(data=seg_map[None])) for seg_map in seg_maps]


def by_upsampling(head, levels, size):
    """Scores (M, Q, h, w): every level is resized, the hypercolumn held, the layers applied."""
    resized = [F.interpolate(x, size, mode='bilinear', align_corners=False) for x in levels]
    column = torch.cat(resized, dim=1).permute(0, 2, 3, 1)
    hidden = F.relu(column @ head.hidden.weight.T + head.hidden.bias)
    return (hidden @ head.conv_seg.weight.flatten(1).T + head.conv_seg.bias).permute(0, 3, 1, 2)


# --- reading --------------------------------------------------------------------------------


def test_reads_what_upsampling_and_indexing_reads():
    head, levels = build_head(), make_levels()
    pixels = torch.cartesian_prod(torch.arange(2), *(torch.arange(side) for side in IMAGE))
    scores = head.cls_seg(head.hidden(levels, pixels, IMAGE))
    expected = by_upsampling(head, levels, IMAGE)[pixels[:, 0], :, pixels[:, 1], pixels[:, 2]]
    assert torch.allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize('tile', [1, 7, 100, 10_000])
@pytest.mark.parametrize(('stride', 'size'), [(1, (24, 36)), (5, (5, 8))])
@pytest.mark.parametrize('last', [(1, 2), (5, 7)])  # of a size of its own, and of the one before
def test_dense_scores_are_those_of_upsampling_whatever_the_tile(tile, stride, size, last):
    head, levels = build_head(tile=tile, stride=stride), make_levels(sizes=[*SIZES[:3], last])
    with torch.no_grad():
        scores = head(levels)
    assert scores.shape == (2, 5, *size)
    assert torch.allclose(scores, by_upsampling(head, levels, size), atol=1e-5)


def test_coarse_levels_are_projected_once_and_fine_ones_in_tiles():
    head, levels = build_head(), make_levels(sizes=[(24, 36), (12, 18), (5, 7), (5, 7)])
    coarse, fine = head.hidden._project(levels, IMAGE)
    # 12 * 18 cells to 12 channels are no more than the finest level's 24 * 36 * 3
    assert [tuple(level.shape) for level in coarse] == [(2, 12, 12, 18), (2, 12, 5, 7)]
    assert [level is levels[0] for level, _ in fine] == [True]
    fine = build_head(channels=13).hidden._project(levels, IMAGE)[1]
    assert [any(level is other for level, _ in fine) for other in levels] == [1, 1, 0, 0]


def test_gradients_of_a_dense_prediction_are_those_of_upsampling():
    head = build_head(tile=50).double()
    levels = [level.detach().double().requires_grad_() for level in make_levels()]
    weights = torch.rand(2, 5, *IMAGE, dtype=torch.float64)
    wanted = [*levels, *head.parameters()]
    ours = torch.autograd.grad((head(levels) * weights).sum(), wanted)
    theirs = torch.autograd.grad((by_upsampling(head, levels, IMAGE) * weights).sum(), wanted)
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other)


# --- points ---------------------------------------------------------------------------------


def test_points_are_labelled_pixels_each_drawn_once():
    seg_maps = torch.full((3, 8, 9), 255)
    seg_maps[0, 2:5, 3:8] = 1  # 15 pixels
    seg_maps[1, 7, :4] = 2  # 4 pixels
    torch.manual_seed(0)
    points, labels = sample_labelled_pixels(seg_maps, 10)
    image, y, x = points.unbind(1)
    assert torch.equal(image, torch.arange(3).repeat_interleave(10))
    assert torch.equal(seg_maps[image, y, x].view(3, 10), labels)
    assert (labels != 255).sum(dim=1).tolist() == [10, 4, 0]
    assert len(points.unique(dim=0)) == 30


def test_points_are_uniform_over_the_labelled_pixels_and_repeated_by_the_seed():
    seg_map = torch.full((1, 6, 6), 255)
    seg_map[0, 1:4, 1:5] = torch.arange(12).view(3, 4)
    torch.manual_seed(0)
    drawn = torch.cat([sample_labelled_pixels(seg_map, 4)[1] for _ in range(900)])
    share = drawn.flatten().bincount(minlength=12) / drawn.numel()
    assert (share - 1 / 12).abs().max() < 5 * (1 / 12 / drawn.numel()) ** 0.5
    draws = [torch.Generator().manual_seed(seed) for seed in (4, 4, 5)]
    one, again, other = (sample_labelled_pixels(seg_map, 4, generator=g)[0] for g in draws)
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize('ignored', [0.0, 0.4])
def test_the_loss_is_that_of_the_dense_scores_at_the_points(ignored):
    head, levels = build_head(points=100), make_levels()
    torch.manual_seed(1)
    seg_maps = torch.randint(5, (2, *IMAGE))
    seg_maps[torch.rand(seg_maps.shape) < ignored] = 255
    torch.manual_seed(2)
    losses = head.loss(levels, make_samples(seg_maps), {})
    torch.manual_seed(2)
    points, labels = sample_labelled_pixels(seg_maps, 100)
    scores = by_upsampling(head, levels, IMAGE)[points[:, 0], :, points[:, 1], points[:, 2]]
    assert losses.keys() == {'loss_ce', 'acc_seg'} and (labels != 255).all()
    expected = F.cross_entropy(scores, labels.flatten())
    torch.testing.assert_close(losses['loss_ce'], expected)
    accuracy = (scores.argmax(dim=1) == labels.flatten()).float().mean() * 100
    torch.testing.assert_close(losses['acc_seg'].squeeze(), accuracy)


@pytest.mark.parametrize('only_labelled', [False, True])
def test_an_image_with_few_labels_gives_all_of_them_once(only_labelled):
    loss = {'type': 'mmseg.CrossEntropyLoss', 'avg_non_ignore': only_labelled}
    head, levels = build_head(points=50, loss_decode=loss), make_levels()
    seg_maps = torch.full((2, *IMAGE), 255)
    seg_maps[0, 3, 4:7] = 2
    labelled = by_upsampling(head, levels, IMAGE)[0, :, 3, 4:7].T
    expected = F.cross_entropy(labelled, torch.full((3,), 2), reduction='sum')
    losses = head.loss(levels, make_samples(seg_maps), {})
    torch.testing.assert_close(losses['loss_ce'], expected / (3 if only_labelled else 100))


@pytest.mark.parametrize('only_labelled', [False, True])
def test_without_labels_the_loss_is_zero_and_reaches_every_parameter(only_labelled):
    loss = {'type': 'mmseg.CrossEntropyLoss', 'avg_non_ignore': only_labelled}
    head, levels = build_head(loss_decode=loss), make_levels()
    losses = head.loss(levels, make_samples(torch.full((2, *IMAGE), 255)), {})
    losses['loss_ce'].backward()
    assert losses['loss_ce'] == 0
    for tensor in [*levels, *head.parameters()]:
        assert tensor.grad is not None and (tensor.grad == 0).all()


def test_more_points_than_pixels_is_one_line():
    samples = make_samples(torch.zeros(2, 4, 5, dtype=torch.int64))
    head = build_head(points=21)
    with mistake('points', '21', '20'):
        head.loss(make_levels(), samples, {})
    build_head(points=20).loss(make_levels(), samples, {})


# --- memory ---------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Values of the largest tensor that any operation returns, views left out."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not func.is_view:
            self.numel = max(self.numel, result.numel())
        return result


def test_a_prediction_holds_a_tile_and_no_hypercolumn_of_the_image():
    levels, tile, width = make_levels(images=1), 16, 12
    with torch.no_grad(), Largest() as seen:
        build_head(tile=tile)(levels)
    parts = {'level': max(x.numel() for x in levels), 'tile': 4 * tile * max(*CHANNELS, width)}
    scores = 5 * IMAGE[0] * IMAGE[1]
    assert seen.numel <= max(*parts.values(), scores) < sum(CHANNELS) * IMAGE[0] * IMAGE[1] / 10


def test_what_a_training_step_makes_grows_with_the_points_only():
    def largest(scale, points):
        sizes = [(scale * h, scale * w) for h, w in SIZES]
        levels = [level.detach() for level in make_levels(sizes=sizes)]
        pixels = torch.zeros(2 * points, 3, dtype=torch.int64)
        head = build_head()
        with Largest() as seen:
            head.hidden(levels, pixels, (24 * scale, 36 * scale))
        return seen.numel

    # four corners of the widest level, or a copy of at most twice as much
    for points in (10, 20):
        assert largest(12, points) == largest(24, points) == 4 * 2 * points * 40
        assert largest(2, points) <= 8 * 2 * points * 40


# --- in a segmentor -------------------------------------------------------------------------


def build_segmentor(test_cfg, **head):
    torch.manual_seed(0)
    config = {
        'type': 'mmseg.EncoderDecoder',
        'data_preprocessor': {'type': 'mmseg.SegDataPreProcessor', 'size': (32, 32)},
        'backbone': {'type': 'mmseg.ResNet', 'depth': 18, 'stem_channels': 4, 'base_channels': 4},
        'decode_head': {
            'type': 'mm_tuning_plugin.HypercolumnHead', 'in_channels': [4, 16, 32],
            'in_index': [0, 2, 3], 'channels': 8, 'points': 16, 'num_classes': 3, **head,
        },
        'test_cfg': ConfigDict(test_cfg),
    }  # fmt: skip
    model = MODELS.build(config)
    model.init_weights()
    return model


@pytest.mark.parametrize(
    'test_cfg', [{'mode': 'whole'}, {'mode': 'slide', 'crop_size': (32, 32), 'stride': (16, 16)}]
)
def test_predicts_in_a_segmentor_at_the_size_of_the_image(test_cfg):
    model = build_segmentor(test_cfg).eval()
    images = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        logits = model.inference(images, [{'img_shape': (32, 48), 'ori_shape': (32, 48)}] * 2)
    assert logits.shape == (2, 3, 32, 48) and logits.std() > 0


@pytest.mark.parametrize(
    'options',
    [
        {'dropout_ratio': 0.5},
        {'sampler': {'type': 'OHEMPixelSampler', 'thresh': 0.7, 'min_kept': 4}},
        {'loss_decode': [{'type': 'CrossEntropyLoss'}, {'type': 'DiceLoss'}]},
    ],
)
def test_trains_in_a_segmentor_with_losses_and_samplers_of_mmseg(options, imported):
    model = build_segmentor({'mode': 'whole'}, **options)
    seg_maps = torch.randint(3, (2, 32, 32))
    losses = model.loss(torch.rand(2, 3, 32, 32), make_samples(seg_maps))
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    read = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert len(read) == len(list(model.parameters()))
    assert model.decode_head.conv_seg.weight.grad.abs().sum() > 0


def test_dropout_is_for_each_point_of_its_own():
    head = build_head(dropout_ratio=0.5).train()
    torch.nn.init.ones_(head.conv_seg.weight)
    scores = head.cls_seg(torch.ones(50, 12)).round(decimals=3)
    assert len(scores.unique(dim=0)) > 3
    assert len(head.eval().cls_seg(torch.ones(50, 12)).unique(dim=0)) == 1


@pytest.mark.parametrize(
    ('options', 'where', 'problem', 'remedy'),
    [
        ({'in_index': [0, 1]}, 'in_index, in_channels', '[0, 1]', ()),
        ({'in_index': 3, 'in_channels': 40}, 'in_index, in_channels', '3 and 40', ()),
        ({'points': 0}, 'points', '0', '1'),
        ({'tile': 1.5}, 'tile', '1.5', '1'),
        ({'stride': 0}, 'stride', '0', '1'),
        ({'align_corners': True}, 'align_corners', 'True', 'False'),
        ({'norm_cfg': {'type': 'BN'}}, 'norm_cfg', "{'type': 'BN'}", 'None'),
        ({'act_cfg': {'type': 'GELU'}}, 'act_cfg', "{'type': 'GELU'}", "{'type': 'ReLU'}"),
    ],
)
def test_wrong_options_are_one_line(options, where, problem, remedy):
    with mistake(where, problem, remedy):
        build_head(**options)


@pytest.mark.parametrize(
    ('options', 'where', 'problem', 'remedy'),
    [
        ({'in_index': [0, 1, 2, 4]}, 'in_index', '4', '4 outputs'),
        ({'in_channels': [3, 8, 17, 40]}, 'in_channels', ['17', 'output 2'], '16'),
    ],
)
def test_levels_that_the_backbone_has_not_are_one_line(options, where, problem, remedy):
    with mistake(where, problem, remedy):
        build_head(**options)(make_levels())
