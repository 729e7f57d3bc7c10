"""Colorization: the arithmetic of colour, and that the proxy trains a stock backbone."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mistakes import mistake
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.models.backbones import ResNet

from mm_tuning_plugin.demo.dataset import draw_scene, write_demo_dataset
from mm_tuning_plugin.proxies import chroma
from mm_tuning_plugin.proxies.colorization import ColorizationDataPreprocessor, ColorizationModel
from mm_tuning_plugin.registry import MODELS

CONFIG = Path(__file__).parents[2] / 'configs' / 'proxy' / 'colorization_resnet18_demo.py'
WIDTHS = (8, 16, 32, 64)


@pytest.fixture(autouse=True)
def few_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small_model(seed=0, **options):
    torch.manual_seed(seed)
    backbone = {'type': 'mmseg.ResNet', 'depth': 18, 'stem_channels': 8, 'base_channels': 8}
    options = {'in_index': (1, 2, 3), 'in_channels': WIDTHS[1:], 'channels': 16, **options}
    model = MODELS.build(
        {'type': 'mm_tuning_plugin.ColorizationModel', 'backbone': backbone, **options}
    )
    model.init_weights()
    return model


def demo_images(count, size=64):
    scenes = [draw_scene(seed, size)[0] for seed in range(count)]
    return [torch.from_numpy(np.ascontiguousarray(s.transpose(2, 0, 1))) for s in scenes]


def random_rgb(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_one_grey_channel_as_the_paper_normalises_it():
    images = torch.randint(256, (2, 3, 8, 9), dtype=torch.uint8)
    preprocessor = ColorizationDataPreprocessor(mean=[114.444], std=[255.0], grey='average')
    inputs = preprocessor({'inputs': images})['inputs']
    expected = images.float().mean(dim=1, keepdim=True) / 255 - 0.4488
    assert torch.allclose(inputs, expected, atol=1e-6)
    luma = ColorizationDataPreprocessor(mean=[0.0], std=[1.0])({'inputs': images})['inputs']
    weights = torch.tensor([0.114, 0.587, 0.299])[:, None, None]  # of B, G, R
    assert torch.allclose(luma, (images * weights).sum(dim=1, keepdim=True), atol=1e-3)


# --- colour ---------------------------------------------------------------------------------


def test_lab_equals_opencv():
    rgb = random_rgb(0, 1, 3, 64, 64)
    rgb[0, :, 0, :16] = torch.linspace(0, 0.05, 16)  # the linear branches, near black
    rgb[0, :, 1, :2] = torch.tensor([0.0, 1.0])
    ours = chroma.rgb_to_lab(rgb)[0].permute(1, 2, 0).numpy()
    theirs = cv2.cvtColor(rgb[0].permute(1, 2, 0).numpy().copy(), cv2.COLOR_RGB2Lab)
    assert np.abs(ours - theirs).max() < 0.6  # OpenCV interpolates in tables
    assert np.abs(ours - theirs).mean() < 0.1


@pytest.mark.parametrize(
    ('rgb', 'lab'),
    [
        ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),
        ((0.0, 1.0, 0.0), (87.73, -86.18, 83.18)),
        ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
        ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
        ((0.5, 0.5, 0.5), (53.39, 0.0, 0.0)),
        ((0.01, 0.01, 0.01), (903.3 * 0.01 / 12.92, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    ],
)
def test_lab_of_known_colours(rgb, lab):
    ours = chroma.rgb_to_lab(torch.tensor(rgb).view(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(ours, torch.tensor(lab), atol=0.05, rtol=0)


def test_grey_equals_opencv():
    rgb = random_rgb(1, 2, 3, 9, 11)
    for ours, image in zip(chroma.rgb_to_grey(rgb), rgb):
        theirs = cv2.cvtColor(image.permute(1, 2, 0).numpy().copy(), cv2.COLOR_RGB2GRAY)
        np.testing.assert_allclose(ours[0].numpy(), theirs, atol=1e-5)


# --- classes --------------------------------------------------------------------------------


@pytest.mark.parametrize('step', [5.0, 10.0, 20.0, 27.5, 60.0])
def test_classes_cover_all_colours(step):
    lookup, centres = chroma.chroma_classes(step)
    assert sorted(set(lookup.tolist())) == list(range(len(centres)))
    assert len({tuple(c) for c in centres.tolist()}) == len(centres)
    ab = chroma.rgb_to_lab(random_rgb(2, 1, 3, 40, 40))[:, 1:]
    target = chroma.chroma_targets(ab, torch.ones(1, 1, 40, 40), lookup, step, (40, 40))
    assert target.min() >= 0
    offset = (centres[target].permute(0, 3, 1, 2) - ab).abs()
    assert (offset <= 0.5 * step + 1e-3).float().mean() > 0.99  # the rest were never reached
    assert offset.max() < 1.6 * step


def test_grey_is_the_middle_of_a_class():
    for step in (5.0, 20.0, 33.0):
        assert [0.0, 0.0] in chroma.chroma_classes(step)[1].tolist()


def test_targets_equal_a_loop():
    step, size = 20.0, (3, 5)
    lookup, centres = chroma.chroma_classes(step)
    ab = chroma.rgb_to_lab(random_rgb(3, 2, 3, 12, 20))[:, 1:]
    valid = torch.ones(2, 1, 12, 20)
    valid[1, :, :, 17:] = 0
    target = chroma.chroma_targets(ab, valid, lookup, step, size)
    for b in range(2):
        for i in range(3):
            for j in range(5):
                rows, cols = slice(4 * i, 4 * i + 4), slice(4 * j, 4 * j + 4)
                mean = ab[b, :, rows, cols].mean(dim=(1, 2))
                nearest = (centres - mean).abs().amax(dim=1).argmin()
                whole = bool(valid[b, 0, rows, cols].all())
                assert target[b, i, j] == (nearest if whole else chroma.IGNORE_CLASS)


def test_weights_are_one_on_average_and_favour_the_rare():
    frequency = torch.tensor([0.7, 0.2, 0.1, 0.0])
    weights = chroma.class_weights(frequency, 0.5)
    assert weights.diff().min() > 0
    torch.testing.assert_close((weights * frequency).sum(), torch.tensor(1.0))
    torch.testing.assert_close(weights[0] / weights[3], torch.tensor(0.125 / 0.475))
    torch.testing.assert_close(chroma.class_weights(frequency, 1.0), torch.ones(4))


def test_unequal_images_are_padded():
    images = [torch.full((3, 2, 4), 7, dtype=torch.uint8), torch.full((3, 3, 1), 9.0)]
    stacked, valid = chroma.stack_padded(images)
    assert stacked.shape == (2, 3, 3, 4) and valid.shape == (2, 1, 3, 4)
    assert stacked.dtype == valid.dtype == torch.float32
    assert stacked.sum() == 3 * (7 * 8 + 9 * 3) and valid.sum() == 8 + 3


# --- preprocessor ---------------------------------------------------------------------------


def test_the_input_carries_no_colour():
    grey = torch.rand(16, 16, generator=torch.Generator().manual_seed(4)) * 100 + 80
    turn = torch.rand(16, 16, generator=torch.Generator().manual_seed(5)) * 40 - 20
    # red and blue change along the plane of equal luma
    other = torch.stack([grey - turn, grey, grey + turn * 0.114 / 0.299])
    plain = torch.stack([grey, grey, grey])
    batch = ColorizationDataPreprocessor()({'inputs': [plain, other]})
    torch.testing.assert_close(batch['inputs'][0], batch['inputs'][1], atol=1e-5, rtol=0)
    assert batch['chroma'][0].abs().max() < 1e-2
    assert batch['chroma'][1].abs().max() > 10


def test_the_input_is_normalised_grey_and_zero_on_padding():
    image = demo_images(1, 32)[0]
    mean, std = (10.0, 20.0, 30.0), (2.0, 3.0, 4.0)
    batch = ColorizationDataPreprocessor(mean, std)({'inputs': [image, image[:, :20]]})
    theirs = cv2.cvtColor(image.permute(1, 2, 0).numpy(), cv2.COLOR_BGR2GRAY).astype(np.float32)
    for channel in range(3):
        expected = (theirs - mean[channel]) / std[channel]
        ours = batch['inputs'][0, channel].numpy()
        np.testing.assert_allclose(ours, expected, atol=0.51 / std[channel])  # theirs is rounded
    assert batch['inputs'][1, :, 20:].abs().sum() == 0
    assert batch['valid'][1].sum() == 20 * 32


def test_chroma_is_that_of_a_bgr_image():
    red = torch.zeros(3, 4, 4)
    red[2] = 255
    batch = ColorizationDataPreprocessor()({'inputs': red[None], 'data_samples': [None]})
    assert set(batch) == {'inputs', 'chroma', 'valid'}
    expected = torch.tensor([80.09, 67.20]).view(2, 1, 1).expand(2, 4, 4)
    torch.testing.assert_close(batch['chroma'][0], expected, atol=0.05, rtol=0)


# --- model ----------------------------------------------------------------------------------


@pytest.mark.parametrize(('in_index', 'side'), [((0, 1, 2, 3), 16), ((1, 3), 8), ((3,), 2)])
def test_scores_and_targets_lie_on_the_finest_level(in_index, side):
    model = small_model(in_index=in_index, in_channels=[WIDTHS[i] for i in in_index])
    batch = model.data_preprocessor({'inputs': demo_images(2)})
    scores = model(**batch)
    assert scores.shape == (2, len(model.centres), side, side)
    predicted = model(**batch, mode='predict')
    assert [p.shape for p in predicted] == [(2, side, side)] * 2
    assert {tuple(c) for c in predicted[0].flatten(1).T.tolist()} <= {
        tuple(c) for c in model.centres.tolist()
    }
    assert model(**batch, mode='loss')['loss_chroma'].isfinite()


def test_the_loss_is_the_weighted_cross_entropy_of_the_cells():
    model = small_model().eval()
    model.frequency.copy_(torch.linspace(1, 2, len(model.centres)))
    model.frequency /= model.frequency.sum()
    images = demo_images(2)
    images[1] = images[1][:, :40]
    batch = model.data_preprocessor({'inputs': images})
    with torch.no_grad():
        scores, losses = model(**batch), model(**batch, mode='loss')
    target = chroma.chroma_targets(
        batch['chroma'], batch['valid'], model.lookup, model.step, (8, 8)
    )
    assert (target == chroma.IGNORE_CLASS).sum() == 3 * 8
    weights = chroma.class_weights(model.frequency, model.rebalance)
    terms, hits = [], []
    for b, i, j in (target >= 0).nonzero().tolist():
        label = target[b, i, j]
        terms.append(-weights[label] * F.log_softmax(scores[b, :, i, j], dim=0)[label])
        hits.append(scores[b, :, i, j].argmax() == label)
    torch.testing.assert_close(losses['loss_chroma'], torch.stack(terms).mean())
    torch.testing.assert_close(losses['acc_chroma'], 100 * torch.stack(hits).float().mean())


def test_the_loss_of_nothing_but_padding_is_zero_and_has_gradients():
    model = small_model()
    batch = model.data_preprocessor({'inputs': demo_images(2)})
    batch['valid'] = torch.zeros_like(batch['valid'])
    losses = model(**batch, mode='loss')
    losses['loss_chroma'].backward()
    assert losses['loss_chroma'] == 0 and losses['acc_chroma'] == 0
    assert all(p.grad is not None for p in model.parameters())
    assert model.num_counted == 0


def test_the_gradient_reaches_the_stem_and_everything_else():
    model = small_model()
    batch = model.data_preprocessor({'inputs': demo_images(4)})
    model(**batch, mode='loss')['loss_chroma'].backward()
    assert model.backbone.conv1.weight.grad.abs().max() > 0
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert missing == []


def test_frequencies_are_averaged_over_batches_and_left_alone_outside_training():
    model = small_model(momentum=0.75)
    count = len(model.centres)
    batches = [torch.randint(count, (2, 5, 5)) for _ in range(6)]
    shares = [torch.bincount(b.flatten(), minlength=count) / 50 for b in batches]
    for batch in batches[:3]:
        model._count(batch)
    torch.testing.assert_close(model.frequency, torch.stack(shares[:3]).mean(dim=0))
    expected = model.frequency.clone()
    for batch, share in zip(batches[3:], shares[3:]):
        model._count(batch)
        expected = 0.75 * expected + 0.25 * share
    torch.testing.assert_close(model.frequency, expected)
    model.eval()
    model._count(batches[0])
    torch.testing.assert_close(model.frequency, expected)


@pytest.mark.parametrize('rebalance', [None, 0.5])
def test_the_loss_falls(rebalance):
    model = small_model(rebalance=rebalance)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    batch = model.data_preprocessor({'inputs': demo_images(4)})
    losses = []
    for _ in range(30):
        loss = model(**batch, mode='loss')['loss_chroma']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:3])


@pytest.mark.parametrize(
    ('make', 'where', 'problem', 'remedy'),
    [
        (lambda: chroma.chroma_classes(4.9), 'step', '4.9', '[5, 60]'),
        (lambda: chroma.chroma_classes(61), 'step', '61', '[5, 60]'),
        (lambda: chroma.stack_padded([torch.zeros(1, 4, 4)]), 'inputs', '(1, 4, 4)', '(3, H, W)'),
        (
            lambda: ColorizationDataPreprocessor(mean=(1.0,) * 2),
            'mean',
            '(1.0, 1.0)',
            '1 or 3',
        ),
        (
            lambda: ColorizationDataPreprocessor(mean=(1.0,)),
            'mean, std',
            ['(1.0,)', '(58.395, 57.12, 57.375)'],
            (),
        ),
        (lambda: ColorizationDataPreprocessor(grey='red'), 'grey', "'red'", 'luma, average'),
        (
            lambda: small_model(in_channels=(16, 32, 65))(torch.zeros(2, 3, 32, 32)),
            'in_channels',
            ['65', 'output 3'],
            '64',
        ),
        (
            lambda: small_model()(torch.zeros(1, 1, 32, 32)),
            'model.backbone',
            ['ResNet', '3 input channels'],
            'expected 1,',
        ),
        (
            lambda: ColorizationDataPreprocessor(std=(1.0, 0.0, 1.0)),
            'std',
            '(1.0, 0.0, 1.0)',
            'positive',
        ),
        (lambda: small_model(in_index=(1, 2)), 'in_index, in_channels', '(1, 2)', ()),
        (
            lambda: small_model(in_index=(), in_channels=()),
            'in_index, in_channels',
            '() and ()',
            (),
        ),
        (lambda: small_model(rebalance=0.0), 'rebalance', '0.0', '(0, 1]'),
        (lambda: small_model(momentum=1.5), 'momentum', '1.5', '(0, 1]'),
    ],
)
def test_mistakes_are_named(make, where, problem, remedy):
    with mistake(where, problem, remedy):
        make()


@pytest.mark.parametrize(
    ('make', 'named'),
    [
        (lambda: chroma.class_weights(torch.ones(2) / 2, 0.0), r'^uniform: .*0\.0'),
        (lambda: chroma.class_weights(torch.ones(2) / 2, 1.1), r'^uniform: .*1\.1'),
        (lambda: chroma.stack_padded([]), '^images: '),
        (lambda: small_model()(torch.zeros(1, 3, 32, 32), mode='train'), "^mode: .*'train'"),
        (lambda: small_model()(torch.zeros(1, 3, 32, 32), mode='loss'), '^chroma: '),
    ],
)
def test_wrong_arguments_of_a_call_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()


def test_the_config_trains_two_iterations_and_the_weights_fit_a_stock_backbone(tmp_path):
    root = write_demo_dataset(
        tmp_path / 'demo', image_size=64, num_unlabelled=6, num_train=0, num_val=0
    )
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(tmp_path / 'work')
    cfg.merge_from_dict(
        {
            'train_dataloader.dataset.data_root': str(root),
            'train_dataloader.batch_size': 2,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_cfg.max_iters': 2,
            'default_hooks.checkpoint.interval': 2,
            'default_hooks.logger.interval': 1,
            'visualizer.name': 'colorization',
            'experiment_name': 'colorization',
        }
    )
    runner = Runner.from_cfg(cfg)
    start = runner.model.backbone.layer1[0].conv1.weight.detach().clone()
    runner.train()
    assert isinstance(runner.model, ColorizationModel)
    saved = torch.load(tmp_path / 'work' / 'iter_2.pth', weights_only=False)['state_dict']
    weights = {k[len('backbone.') :]: v for k, v in saved.items() if k.startswith('backbone.')}
    stock = ResNet(
        18, stem_channels=32, base_channels=32, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)
    )
    stock.load_state_dict(weights, strict=True)
    assert not torch.equal(stock.layer1[0].conv1.weight, start)
