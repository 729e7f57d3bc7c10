"""Pictures of stage one: what is drawn when, and that drawing changes nothing."""

import copy
import random
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import own_samplers  # noqa: F401  registers them
import pytest
import torch
from mistakes import mistake
from mmengine.visualization import Visualizer
from PIL import Image
from sklearn import manifold

from mm_tuning_plugin import visualization
from mm_tuning_plugin.benchmark import settings
from mm_tuning_plugin.benchmark.design import arms
from mm_tuning_plugin.checkpoint.io.read import read_content
from mm_tuning_plugin.demo.dataset import METAINFO
from mm_tuning_plugin.engine import MixAndMatchRunner, PicturesHook, derive_tuning_config
from mm_tuning_plugin.engine.config.options import OPTIONS, PICTURES
from mm_tuning_plugin.engine.pictures import hook, sources
from mm_tuning_plugin.engine.resume import rng_states

DEFAULT = next(option.default for option in OPTIONS if option.name == 'pictures')
PICTURE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(params=['points', 'patches'])
def nodes(request):
    return request.param


@pytest.fixture(autouse=True)
def short_tsne(monkeypatch):
    """t-SNE takes longer than all else together; what it computes is held elsewhere."""
    monkeypatch.setattr(manifold, 'TSNE', partial(manifold.TSNE, max_iter=250))


def tune(cfg, folder, **options):
    """Stage one in a folder; where its pictures are."""
    torch.set_num_threads(1)
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(folder)
    cfg.mix_and_match.pop('pictures', None)
    cfg.mix_and_match.update(size_range=(16, 32), patch_size=32, **options)
    MixAndMatchRunner.from_cfg(cfg).tune()
    return Path(folder, 'tuning', 'pictures')


def differing(first, second, where=''):
    """Dotted names of the tensors and numbers that differ between two checkpoints."""
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        return [d for k in first for d in differing(first[k], second[k], f'{where}.{k}')]
    if isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        pairs = enumerate(zip(first, second))
        return [d for i, (a, b) in pairs for d in differing(a, b, f'{where}.{i}')]
    if isinstance(first, torch.Tensor):
        return [] if torch.equal(first, second) else [where]
    return [] if first == second or first != first else [where]


def test_training_is_the_same_to_the_bit_with_and_without_pictures(
    toy_cfg, tmp_path, nodes, monkeypatch
):
    draw = visualization.node_sheet

    def drawing_randomly(*given, **more):
        torch.rand(3), np.random.rand(3), random.random()
        return draw(*given, **more)

    monkeypatch.setattr(visualization, 'node_sheet', drawing_randomly)
    folders = {name: tmp_path / name for name in ('with', 'without')}
    drawn = tune(toy_cfg, folders['with'], nodes=nodes, pictures=PICTURES, picture_interval=2)
    state = rng_states.capture()
    nothing = tune(toy_cfg, folders['without'], nodes=nodes, pictures=())
    assert torch.equal(state, rng_states.capture())
    assert len(list(drawn.glob('*.png'))) == 2 * len(PICTURES) and not nothing.exists()
    for iteration in (2, 4):
        first, second = (
            read_content(folder / 'tuning' / f'iter_{iteration}.pth') for folder in folders.values()
        )
        for part in ('state_dict', 'optimizer', 'param_schedulers', 'mm_tuning_plugin'):
            assert not differing(first[part], second[part], part)
        # the random states of Python, NumPy and torch among them
        assert not differing(first['resume_state']['ranks'], second['resume_state']['ranks'])
    tuned = [read_content(f / 'tuning' / 'tuned_backbone.pth') for f in folders.values()]
    assert tuned[0]['meta']['hash_after'] == tuned[1]['meta']['hash_after']
    assert tuned[0]['meta']['fingerprint'] == tuned[1]['meta']['fingerprint']


def test_by_default_a_mosaic_of_the_first_batch_and_all_others_at_the_end(toy_cfg, tmp_path, nodes):
    shown = {}
    original = Visualizer.add_image

    def spy(self, name, image, step=0):
        shown[f'{name}_{step}.png'] = image
        original(self, name, image, step)

    Visualizer.add_image = spy
    try:
        folder = tune(toy_cfg, tmp_path / 'run', nodes=nodes)
    finally:
        Visualizer.add_image = original
    expected = {'mosaic_0.png', 'embedding_4.png', 'gallery_4.png', 'similarity_4.png'}
    assert {path.name for path in folder.glob('*.png')} == set(shown) == expected
    for name, image in shown.items():
        np.testing.assert_array_equal(np.asarray(Image.open(folder / name)), image)
        assert min(image.shape[:2]) > 100 and len(np.unique(image.reshape(-1, 3), axis=0)) > 20
    by_backend = {path.name for path in (tmp_path / 'run').rglob('vis_image/*.png')}
    assert by_backend == expected


def test_the_mosaic_shows_the_batch_that_comes_next(toy_cfg, tmp_path, nodes, monkeypatch):
    sheets, batches = [], []
    monkeypatch.setattr(
        visualization, 'node_sheet', lambda *given, **more: sheets.append((given, more)) or PICTURE
    )
    original = PicturesHook.before_train_iter

    def spy(self, runner, batch_idx, data_batch=None):
        original(self, runner, batch_idx, data_batch)
        batches.append(data_batch)

    monkeypatch.setattr(PicturesHook, 'before_train_iter', spy)
    tune(toy_cfg, tmp_path, nodes=nodes, pictures=['mosaic'], picture_interval=3)
    assert len(sheets) == 2
    for ((images, places, labels, palette, names), more), batch in zip(sheets, batches[::3]):
        assert len(names) == 8 and palette.tolist() == [list(c) for c in METAINFO['palette']]
        for index, image in enumerate(images):
            np.testing.assert_array_equal(labels[index], batch['labels'][index])
            if nodes == 'points':
                seen = batch['inputs'][index][0].flip(0).permute(1, 2, 0)
                np.testing.assert_array_equal(image, seen)
                np.testing.assert_array_equal(places[index], batch['points'][index][:, 1:])
            else:
                seen = batch['inputs'][index].flip(1).permute(0, 2, 3, 1)
                np.testing.assert_array_equal(more['patches'][index], seen)
                cut = visualization.cut_nodes(image, places[index], 32).astype(int)
                y0, x0, y1, x1 = np.array(places[index]).T
                inside = (y0 >= 0) & (x0 >= 0) & (y1 <= image.shape[0]) & (x1 <= image.shape[1])
                assert np.abs(cut - seen.numpy())[inside].mean() < 12  # resized another way


@pytest.mark.parametrize(
    'own',
    [
        dict(type='OwnPatches', like='patches', num_patches=5, told=False),
        dict(type='OwnCrops', points_per_class=3),
    ],
)
def test_the_nodes_of_a_registered_sampler_are_drawn(toy_cfg, tmp_path, capsys, own):
    own['type'] = f'mm_tuning_plugin.{own["type"]}'
    drawn = tune(toy_cfg, tmp_path, nodes=own, pictures=('mosaic', 'gallery'), max_iters=1)
    assert sorted(path.name for path in drawn.glob('*.png')) == ['gallery_1.png', 'mosaic_0.png']
    assert 'pictures: ' not in capsys.readouterr().out


def test_embeddings_of_a_validation_and_of_the_hook_are_the_same(toy_cfg, tmp_path, monkeypatch):
    taken = {}
    original = PicturesHook._keep

    def spy(self, runner, snapshot):
        taken.setdefault(runner.work_dir, {})[runner.iter] = snapshot
        original(self, runner, snapshot)

    monkeypatch.setattr(PicturesHook, '_keep', spy)
    passes = []
    embed = hook.embed_nodes
    monkeypatch.setattr(hook, 'embed_nodes', lambda *given: passes.append(1) or embed(*given))
    tune(toy_cfg, tmp_path / 'a', picture_interval=2, pictures=['embedding'])
    assert len(passes) == 1  # of iteration 2 alone: 0 and 4 are measured anyway
    tune(toy_cfg, tmp_path / 'b', picture_interval=2, val_interval=2, pictures=['embedding'])
    assert len(passes) == 1
    first, second = taken.values()
    assert list(first) == list(second) == [0, 2, 4]
    for iteration in first:
        for name, value in first[iteration]._asdict().items():
            np.testing.assert_allclose(value, getattr(second[iteration], name), atol=1e-3)
    assert not np.array_equal(first[0].embeddings, first[4].embeddings)
    assert first[0].same_nodes(first[4])


def test_the_gallery_shows_the_nodes_that_it_names(toy_cfg, tmp_path, nodes, monkeypatch):
    given = {}
    monkeypatch.setattr(
        visualization, 'retrieval_gallery', lambda *args, **more: given.update(args=args) or PICTURE
    )
    datasets = []
    original = hook.node_tiles
    monkeypatch.setattr(
        hook, 'node_tiles', lambda *args: datasets.append(args[0]) or original(*args)
    )
    tune(toy_cfg, tmp_path, nodes=nodes, pictures=['gallery'])
    queries, labels, panels, *_ = given['args']
    assert list(panels) == ['before tuning', 'after tuning']
    hook_dataset = datasets[0]
    samples = [hook_dataset[i] for i in range(len(hook_dataset))]
    tiles = {'gallery': {}, 'query': {}}
    for index, sample in enumerate(samples):
        places = np.array([[index, place] for place in range(len(sample['labels']))])
        cut = original(hook_dataset, places, nodes == 'points')
        for tile, label in zip(cut, sample['labels'].tolist()):
            tiles[sample['meta']['role']].setdefault(tile.tobytes(), set()).add(label)
    for tile, label in zip(queries, labels):
        assert label in tiles['query'][tile.tobytes()]
    for found in panels.values():
        for row, its_labels in zip(found.patches, found.labels):
            for tile, label in zip(row, its_labels):
                assert label in tiles['gallery'][tile.tobytes()]


def test_a_failing_picture_is_one_line_and_training_goes_on(toy_cfg, tmp_path, monkeypatch, capsys):
    def fail(*given, **more):
        raise RuntimeError('no\nink')

    for name in ('node_sheet', 'similarity_map'):
        monkeypatch.setattr(visualization, name, fail)
    folder = tune(toy_cfg, tmp_path)
    said = capsys.readouterr().out.splitlines()
    lines = [line.split('WARNING - ')[1] for line in said if 'pictures: ' in line]
    assert lines == [
        'pictures: mosaic of iteration 0 is not drawn: RuntimeError: no ink',
        'pictures: similarity of iteration 4 is not drawn: RuntimeError: no ink',
    ]
    assert {p.name for p in folder.glob('*.png')} == {'embedding_4.png', 'gallery_4.png'}
    assert (tmp_path / 'tuning' / 'tuned_backbone.pth').is_file()


def test_nodes_that_cannot_be_embedded_are_one_line(toy_cfg, tmp_path, monkeypatch, capsys):
    def fail(*given, **more):
        raise ValueError('not finite')

    monkeypatch.setattr(hook, 'take_snapshot', fail)
    folder = tune(toy_cfg, tmp_path, pictures=['mosaic', 'embedding'])
    said = capsys.readouterr().out
    assert 'pictures: nodes of iteration 4 cannot be shown: ValueError: not finite' in said
    assert [p.name for p in folder.glob('*.png')] == ['mosaic_0.png']


def test_an_interrupted_run_compares_with_its_own_beginning(toy_cfg, tmp_path):
    whole = tune(toy_cfg, tmp_path / 'whole')
    stopped = tune(toy_cfg, tmp_path / 'stopped')
    for left in (stopped.parent / 'tuned_backbone.pth', stopped.parent / 'iter_4.pth'):
        left.unlink()
    for path in stopped.glob('*_4.png'):
        path.unlink()
    (stopped.parent / 'last_checkpoint').write_text(str(stopped.parent / 'iter_2.pth'))
    toy_cfg.resume = True
    tune(toy_cfg, tmp_path / 'stopped')
    for path in whole.glob('*.png'):
        assert (stopped / path.name).read_bytes() == path.read_bytes(), path.name


def test_without_its_beginning_a_resumed_run_says_so_and_shows_the_rest(toy_cfg, tmp_path, capsys):
    folder = tune(toy_cfg, tmp_path)
    (folder.parent / 'tuned_backbone.pth').unlink()
    for path in [*folder.iterdir()]:
        path.unlink()
    toy_cfg.resume = True
    capsys.readouterr()
    tune(toy_cfg, tmp_path)
    said = capsys.readouterr().out
    assert 'pictures: what was embedded before tuning is not known: FileNotFoundError' in said
    assert 'pictures: embedding of iteration 4 is not drawn' in said
    assert {p.name for p in folder.glob('*.png')} == {'gallery_4.png', 'similarity_4.png'}


def test_a_run_that_starts_over_clears_old_pictures_away(toy_cfg, tmp_path):
    folder = tune(toy_cfg, tmp_path, pictures=['mosaic', 'similarity'])
    (folder / 'mosaic_999.png').touch()
    (folder / 'mine.png').touch()
    toy_cfg.mix_and_match.overwrite = True
    tune(toy_cfg, tmp_path, max_iters=3, pictures=['mosaic', 'similarity'])
    found = {p.name for p in folder.glob('*.png')}
    assert found == {'mine.png', 'mosaic_0.png', 'similarity_3.png'}


def test_other_ranks_draw_nothing(toy_cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(hook, 'is_main_process', lambda: False)
    assert not tune(toy_cfg, tmp_path).exists()


def hook_of(cfg):
    return [h for h in derive_tuning_config(cfg).custom_hooks if h.type.endswith('PicturesHook')]


def test_what_cannot_be_shown_is_left_out_by_default_and_refused_if_asked_for(toy_cfg):
    del toy_cfg.mix_and_match.pictures
    assert [hook.pictures for hook in hook_of(toy_cfg)] == [list(DEFAULT)]
    toy_cfg.mix_and_match.retrieval_images = 0
    assert [hook.pictures for hook in hook_of(toy_cfg)] == [['mosaic']]
    toy_cfg.mix_and_match.pictures = ['mosaic', 'gallery']
    with mistake('mix_and_match.pictures', "'gallery'", 'retrieval_images'):
        derive_tuning_config(toy_cfg)
    toy_cfg.mix_and_match.pictures = []
    assert not hook_of(toy_cfg)


def test_defaults_cost_little():
    assert 'tsne' in PICTURES and 'tsne' not in DEFAULT
    assert next(o.default for o in OPTIONS if o.name == 'picture_interval') is None


def test_a_benchmark_draws_nothing_unless_its_recipe_asks_for_it(toy_cfg, tmp_path):
    toy_cfg.mix_and_match.update(pictures=['gallery'], picture_interval=1)
    for recipe, expected in (({}, 0), ({'pictures': ['mosaic']}, 1)):
        cfg = copy.deepcopy(toy_cfg)
        cfg.mix_and_match = arms.tuning_options(cfg, recipe)
        assert len(hook_of(settings.placed(cfg, 'tuning', tmp_path, False))) == expected


@pytest.mark.parametrize(('channels', 'picked'), [(1, (0, 0, 0)), (2, (0, 0, 0)), (5, (2, 1, 0))])
def test_images_of_other_channels_are_shown_too(channels, picked):
    image = torch.arange(channels * 6, dtype=torch.float32).view(channels, 2, 3) * 20 - 5
    shown = sources.as_rgb(image)
    assert shown.shape == (2, 3, 3) and shown.dtype == np.uint8
    np.testing.assert_array_equal(shown, image[list(picked)].clamp(0, 255).byte().permute(1, 2, 0))


def test_tensorboard_gets_the_same_pictures(toy_cfg, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    toy_cfg.visualizer.vis_backends = [dict(type='TensorboardVisBackend')]
    folder = tune(toy_cfg, tmp_path, nodes='patches', picture_interval=2)
    (events,) = tmp_path.rglob('events.out.tfevents*')
    read = EventAccumulator(str(events), size_guidance=dict(images=0)).Reload()
    found = {
        f'{kind}_{event.step}.png': np.asarray(Image.open(BytesIO(event.encoded_image_string)))
        for kind in read.Tags()['images']
        for event in read.Images(kind)
    }
    assert len(found) == 8 and found.keys() == {path.name for path in folder.glob('*.png')}
    for name, image in found.items():
        np.testing.assert_array_equal(image, np.asarray(Image.open(folder / name)))


def test_an_unwritable_visualizer_leaves_the_files(toy_cfg, tmp_path, monkeypatch, capsys):
    def full(*given, **more):
        raise OSError('no space left')

    monkeypatch.setattr(Visualizer, 'add_image', full)
    folder = tune(toy_cfg, tmp_path, pictures=['mosaic'])
    assert [path.name for path in folder.glob('*.png')] == ['mosaic_0.png']
    assert (
        'mosaic of iteration 0 did not reach the visualizer: OSError: no space left'
        in capsys.readouterr().out
    )


def test_before_and_after_are_the_same_nodes_in_both_maps(toy_cfg, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(
        visualization, 'embedding_map', lambda *args, **more: given.append((args, more)) or PICTURE
    )
    tune(toy_cfg, tmp_path, pictures=['embedding', 'tsne'], picture_interval=2)
    assert [more['method'] for _, more in given] == ['pca', 'tsne'] * 2
    assert [more['titles'][1] for _, more in given[::2]] == ['after 2 iterations', 'after tuning']
    first, last = given[0][0], given[2][0]
    np.testing.assert_array_equal(first[0], last[0])  # before
    np.testing.assert_array_equal(first[2], last[2])  # classes
    assert (first[1] != last[1]).any() and first[4].tolist() == [
        list(c) for c in METAINFO['palette']
    ]
