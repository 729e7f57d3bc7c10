"""Jigsaw puzzles: orders far apart, tiles cut where they should be, a model that learns."""

import itertools

import pytest
import torch
from mistakes import mistake

from mm_tuning_plugin.proxies import puzzle
from mm_tuning_plugin.proxies.jigsaw import JigsawDataPreprocessor
from mm_tuning_plugin.registry import MODELS


@pytest.fixture(autouse=True)
def few_threads():
    torch.set_num_threads(1)


def small_model(seed=0, puzzles=None, **options):
    torch.manual_seed(seed)
    backbone = {'type': 'mmseg.ResNet', 'depth': 18, 'stem_channels': 8, 'base_channels': 8}
    preprocessor = {'type': 'mm_tuning_plugin.JigsawDataPreprocessor', 'tile_size': 16}
    preprocessor.update({'num_permutations': 8, **(puzzles or {})})
    options = {'in_channels': 64, 'channels': 16, 'data_preprocessor': preprocessor, **options}
    model = MODELS.build({'type': 'mm_tuning_plugin.JigsawModel', 'backbone': backbone, **options})
    model.init_weights()
    return model


def noise(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


# --- orders ---------------------------------------------------------------------------------


def least_distance(orders):
    return min(int((a != b).sum()) for a, b in itertools.combinations(orders, 2))


@pytest.mark.parametrize('seed', range(5))
def test_each_order_is_as_far_from_the_earlier_ones_as_any_is(seed):
    orders = puzzle.permutation_set(12, 4, seed)
    everything = torch.tensor(list(itertools.permutations(range(4))))
    for count in range(1, 12):
        chosen = orders[:count]
        farthest = (everything[:, None] != chosen).sum(dim=2).amin(dim=1).max()
        assert (orders[count] != chosen).sum(dim=1).min() == farthest


def test_the_set_of_nine_tiles_is_far_apart_and_fixed_by_its_seed():
    orders = puzzle.permutation_set(64, 9, seed=0)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(9).expand(64, 9))
    assert least_distance(orders) >= 7
    drawn = torch.stack([torch.randperm(9) for _ in range(64)])
    assert least_distance(drawn) < least_distance(orders)
    assert torch.equal(orders, puzzle.permutation_set(64, 9, seed=0))
    assert torch.equal(orders[:20], puzzle.permutation_set(20, 9, seed=0))
    assert not torch.equal(orders, puzzle.permutation_set(64, 9, seed=1))
    # a checkpoint's head keeps only indices: the set must be this one for ever
    assert orders[:2].tolist() == [[7, 4, 5, 3, 2, 8, 6, 1, 0], [8, 0, 3, 6, 1, 4, 2, 7, 5]]


def test_all_orders_can_be_asked_for():
    orders = puzzle.permutation_set(24, 4)
    assert {tuple(row) for row in orders.tolist()} == set(itertools.permutations(range(4)))


# --- tiles ----------------------------------------------------------------------------------


@pytest.mark.parametrize('seed', range(5))
def test_tiles_stay_in_their_cells_and_reach_all_of_them(seed):
    sizes = torch.tensor([[30, 36], [25, 24]])
    generator = torch.Generator().manual_seed(seed)
    corners = torch.stack([puzzle.draw_corners(sizes, 3, 8, 2, generator) for _ in range(300)])
    assert corners.shape == (300, 2, 9, 3, 2)
    for image, tile, axis in itertools.product(range(2), range(9), range(2)):
        cell = int(sizes[image, axis]) // 3
        first = (tile // 3, tile % 3)[axis] * cell
        seen = corners[:, image, tile, :, axis]
        assert seen.min() == first and seen.max() == first + cell - 8
    apart = corners - corners[:, :, :, :1]
    assert apart.abs().max() == 4  # two channels, each by up to 2


def test_without_shifts_the_channels_lie_together_anywhere_in_the_cell():
    sizes = torch.tensor([[30, 36]])
    corners = torch.cat([puzzle.draw_corners(sizes, 3, 8, 0) for _ in range(300)])  # (300, 9, 3, 2)
    assert torch.equal(corners, corners[:, :, :1].expand_as(corners))
    assert [corners[:, 0, 0, axis].unique().tolist() for axis in range(2)] == [
        [0, 1, 2], [0, 1, 2, 3, 4],
    ]  # fmt: skip


def test_places_without_room_are_the_cells_corners():
    corners = puzzle.draw_corners(torch.tensor([[24, 24]]), 3, 8, 2)
    expected = torch.cartesian_prod(torch.tensor([0, 8, 16]), torch.tensor([0, 8, 16]))
    assert torch.equal(corners[0], expected[:, None].expand(9, 3, 2))


def test_cutting_equals_a_loop():
    images = noise(0, 2, 3, 20, 26).float()
    corners = puzzle.draw_corners(torch.tensor([[20, 26], [20, 26]]), 2, 7, 2)
    tiles = puzzle.cut_tiles(images, corners, 7)
    assert tiles.shape == (2, 4, 3, 7, 7)
    for b, t, c in itertools.product(range(2), range(4), range(3)):
        y, x = corners[b, t, c].tolist()
        assert torch.equal(tiles[b, t, c], images[b, c, y : y + 7, x : x + 7])


def test_each_channel_of_each_tile_is_normalised():
    tiles = 40 * torch.rand(2, 9, 3, 8, 8) + 100 * torch.rand(2, 9, 3, 1, 1)
    tiles[0, 0] = 7.0
    tiles[0, 1] = 7.0 + 0.01 * torch.rand(3, 8, 8)
    out = puzzle.normalise_tiles(tiles)
    torch.testing.assert_close(out.mean(dim=(3, 4)), torch.zeros(2, 9, 3), atol=1e-4, rtol=0)
    deviation = out.std(dim=(3, 4), unbiased=False)
    torch.testing.assert_close(deviation[:, 2:], torch.ones(2, 7, 3), atol=1e-4, rtol=0)
    assert out[0, 0].abs().max() == 0 and deviation[0, 1].max() < 0.01  # noise is not blown up


def test_no_brightness_or_tint_tells_where_a_tile_was():
    preprocessor = JigsawDataPreprocessor(8, grey_prob=0, channel_shift=0, num_permutations=4)
    image = noise(1, 3, 24, 24).float() * 0.5
    tinted = image + torch.arange(3).repeat_interleave(8)[None, :, None] * 20
    outputs = []
    for picture in (image, tinted):
        torch.manual_seed(0)
        outputs.append(preprocessor({'inputs': [picture]})['inputs'])
    torch.testing.assert_close(*outputs, atol=1e-4, rtol=0)


# --- preprocessor ---------------------------------------------------------------------------


def test_the_order_says_where_each_tile_came_from():
    preprocessor = JigsawDataPreprocessor(8, grey_prob=0, num_permutations=24)
    images = [noise(seed, 3, 24, 24) for seed in range(6)]  # no gaps: the places are known
    batch = preprocessor({'inputs': images, 'data_samples': [None] * 6})
    assert set(batch) == {'inputs', 'order'} and batch['inputs'].shape == (6, 9, 3, 8, 8)
    assert len(batch['order'].unique()) > 2
    for b, t in itertools.product(range(6), range(9)):
        origin = int(preprocessor.orders[batch['order'][b], t])
        y, x = origin // 3 * 8, origin % 3 * 8
        cut = images[b].flip(0)[:, y : y + 8, x : x + 8].float()  # RGB
        torch.testing.assert_close(batch['inputs'][b, t], puzzle.normalise_tiles(cut[None])[0])


def test_images_of_unequal_sizes_are_cut_inside_themselves():
    preprocessor = JigsawDataPreprocessor(8, grey_prob=0, num_permutations=4)
    images = [torch.full((3, 24, 60), 9.0), torch.full((3, 60, 24), 200.0)]
    for seed in range(20):
        torch.manual_seed(seed)
        assert preprocessor({'inputs': images})['inputs'].abs().max() == 0  # never the padding


def test_grey_images_have_three_equal_channels():
    image = [noise(3, 3, 30, 30)]
    for share in (0.0, 1.0):
        options = dict(grey_prob=share, channel_shift=0, num_permutations=4)
        tiles = JigsawDataPreprocessor(8, **options)({'inputs': image})['inputs']
        equal = torch.allclose(tiles[:, :, 0], tiles[:, :, 2], atol=1e-4)
        assert equal == (share == 1.0)
    preprocessor = JigsawDataPreprocessor(8, grey_prob=0.3, channel_shift=0, num_permutations=4)
    torch.manual_seed(0)
    tiles = preprocessor({'inputs': image * 400})['inputs']
    grey = (tiles[:, :, 0] - tiles[:, :, 2]).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert 0.22 < grey.float().mean() < 0.38


def test_draws_follow_the_state_of_torch():
    preprocessor = JigsawDataPreprocessor(8, num_permutations=24)
    images = {'inputs': [noise(seed, 3, 40, 40) for seed in range(4)]}
    torch.manual_seed(5)
    preprocessor(images)
    state = torch.get_rng_state()
    first = preprocessor(images)
    other = preprocessor(images)
    torch.set_rng_state(state)
    again = preprocessor(images)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first['inputs'], other['inputs'])


# --- model ----------------------------------------------------------------------------------


def test_scores_of_a_puzzle_do_not_depend_on_the_batch():
    model = small_model().eval()
    with torch.no_grad():
        batch = model.data_preprocessor({'inputs': [noise(s, 3, 60, 60) for s in range(3)]})
        scores = model(batch['inputs'])
        assert scores.shape == (3, 8)
        torch.testing.assert_close(model(batch['inputs'][1:2]), scores[1:2], atol=1e-5, rtol=0)
        swapped = batch['inputs'].flip(1)
        assert not torch.allclose(model(swapped), scores, atol=1e-3)  # places are told apart
        orders = model(**batch, mode='predict')
    assert torch.equal(torch.stack(orders), model.data_preprocessor.orders[scores.argmax(dim=1)])


def test_the_loss_is_the_cross_entropy_of_the_order():
    model = small_model().eval()
    batch = model.data_preprocessor({'inputs': [noise(s, 3, 60, 60) for s in range(4)]})
    with torch.no_grad():
        scores, losses = model(batch['inputs']), model(**batch, mode='loss')
    terms = [-scores[b].log_softmax(0)[batch['order'][b]] for b in range(4)]
    torch.testing.assert_close(losses['loss_order'], torch.stack(terms).mean())
    hits = sum(int(scores[b].argmax() == batch['order'][b]) for b in range(4))
    assert losses['acc_order'] == 25.0 * hits and set(losses) == {'loss_order', 'acc_order'}


def test_the_gradient_reaches_everything_and_one_image_is_a_batch():
    model = small_model()
    batch = model.data_preprocessor({'inputs': [noise(0, 3, 60, 60)]})
    model(**batch, mode='loss')['loss_order'].backward()
    assert model.backbone.conv1.weight.grad.abs().max() > 0
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_it_learns_where_tiles_lie():
    model = small_model(puzzles={'num_permutations': 4, 'grey_prob': 0.0})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    rows = torch.arange(60)[:, None].expand(60, 60)
    waves = torch.stack([rows * rows, rows.T * rows.T]).float() / 40  # finer below and to the right
    image = (127 + 100 * torch.stack([waves[0].sin(), waves[1].sin(), (waves.sum(0)).sin()])).byte()
    torch.manual_seed(0)
    accuracy = []
    for _ in range(60):
        batch = model.data_preprocessor({'inputs': [image] * 8})
        losses = model(**batch, mode='loss')
        optimizer.zero_grad()
        losses['loss_order'].backward()
        optimizer.step()
        accuracy.append(losses['acc_order'])
    assert torch.stack(accuracy[-10:]).mean() > 75  # chance: 25


@pytest.mark.parametrize(
    ('make', 'where', 'problem', 'remedy'),
    [
        (lambda: puzzle.permutation_set(25, 4), 'num_permutations', '25', ['2 to 24', '4 tiles']),
        (lambda: puzzle.permutation_set(1, 9), 'num_permutations', '1', ['2 to 362880', '9 tiles']),
        (lambda: JigsawDataPreprocessor(0), 'tile_size', '0', '1'),
        (lambda: JigsawDataPreprocessor(grid=4), 'grid', '4', '2 or 3'),
        (lambda: JigsawDataPreprocessor(grid=2), 'num_permutations', '100', '4 tiles'),
        (lambda: JigsawDataPreprocessor(grey_prob=30), 'grey_prob', '30', '[0, 1]'),
        (lambda: JigsawDataPreprocessor(channel_shift=-1), 'channel_shift', '-1', '0'),
        (
            lambda: small_model().data_preprocessor(
                {'inputs': [noise(0, 3, 60, 60), noise(0, 3, 47, 60)]}
            ),
            'inputs',
            '47 x 60',
            ['48', '3 tiles', 'tile_size=16'],
        ),
        (lambda: small_model(channels=0), 'channels', '0', '1'),
        (lambda: small_model(in_channels=0), 'in_channels', '0', '1'),
        (
            lambda: small_model(
                data_preprocessor={'type': 'mm_tuning_plugin.RotationDataPreprocessor'}
            ),
            'data_preprocessor',
            'RotationDataPreprocessor',
            'JigsawDataPreprocessor',
        ),
        (
            lambda: small_model(in_channels=32)(torch.zeros(1, 9, 3, 16, 16)),
            'in_channels',
            ['32', 'output -1'],
            '64',
        ),
        (
            lambda: small_model(in_index=4)(torch.zeros(1, 9, 3, 16, 16)),
            'in_index',
            '4',
            '4 outputs',
        ),
    ],
)
def test_mistakes_are_named(make, where, problem, remedy):
    with mistake(where, problem, remedy):
        make()


@pytest.mark.parametrize(
    ('make', 'named'),
    [
        (lambda: puzzle.permutation_set(9, 16), '^pieces: .*16'),
        (lambda: small_model()(torch.zeros(1, 9, 3, 16, 16), mode='train'), "^mode: .*'train'"),
        (lambda: small_model()(torch.zeros(1, 9, 3, 16, 16), mode='loss'), '^order: .*None'),
    ],
)
def test_wrong_arguments_of_a_call_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()
