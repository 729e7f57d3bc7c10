"""The demo data set: the same bits for the same seed, hard to tell by colour, safe on disk."""

import hashlib
import json
import shutil

import cv2
import numpy as np
import pytest
from mistakes import mistake
from mmseg.datasets import BaseSegDataset
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mm_tuning_plugin.demo import dataset as demo
from mm_tuning_plugin.demo import scenes as demo_scenes

SMALL = {'image_size': 48, 'num_unlabelled': 3, 'num_train': 4, 'num_val': 2}


def digests(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


@pytest.fixture(scope='module')
def scenes():
    return {
        split: [demo.draw_scene(demo.scene_seed(0, split, i), 128) for i in range(60)]
        for split in ('train', 'val')
    }


def test_a_scene_depends_on_seed_and_size_alone():
    image, seg_map = demo.draw_scene(7, 96)
    np.random.seed(1)
    again, seg_again = demo.draw_scene(7, 96)
    assert image.shape == (96, 96, 3) and seg_map.shape == (96, 96)
    assert image.dtype == seg_map.dtype == np.uint8
    assert np.array_equal(image, again) and np.array_equal(seg_map, seg_again)
    assert not np.array_equal(image, demo.draw_scene(8, 96)[0])


def test_a_scene_keeps_its_layout_at_another_size():
    small, large = demo.draw_scene(3, 64)[1], demo.draw_scene(3, 128)[1]
    agree = np.mean(small == cv2.resize(large, (64, 64), interpolation=cv2.INTER_NEAREST))
    assert agree > 0.85


@pytest.mark.parametrize('size', [32, 33, 127, 200])
def test_every_size_can_be_drawn(size):
    for seed in range(10):
        image, seg_map = demo.draw_scene(seed, size)
        assert image.shape[:2] == seg_map.shape == (size, size)
        assert set(np.unique(seg_map)) <= {*range(len(demo.CLASSES)), 255}
        assert image.std() > 5


def test_the_channels_are_blue_green_red():
    red = np.empty((32, 32, 3), np.float32)
    red[:] = (0.299, -0.14713, 0.615)  # YUV
    blue, green, other = demo_scenes._light(np.random.default_rng(0), red).mean(axis=(0, 1))
    assert other > 180 and max(blue, green) < 20


def test_seeds_of_scenes_are_all_different():
    seeds = {
        demo.scene_seed(seed, split, i)
        for seed in range(3)
        for split in demo.SPLITS
        for i in range(200)
    }
    assert len(seeds) == 3 * 3 * 200


@pytest.mark.parametrize(('seed', 'size', 'name'), [(-1, 64, 'seed'), (0, 31, 'size')])
def test_a_scene_out_of_range_is_refused(seed, size, name):
    with pytest.raises(ValueError, match=rf'^{name}\b.*{dict(seed=seed, size=size)[name]}'):
        demo.draw_scene(seed, size)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_classes_are_long_tailed_and_some_pixels_are_not_labelled(scenes, split):
    maps = np.stack([seg_map for _, seg_map in scenes[split]])
    shares = np.bincount(maps.ravel(), minlength=256) / maps.size
    shown = [np.mean([(m == k).any() for m in maps]) for k in range(len(demo.CLASSES))]
    assert shares[len(demo.CLASSES) : 255].sum() == 0
    assert shares[: len(demo.CLASSES)].max() >= 10 * shares[: len(demo.CLASSES)].min()
    assert shares[: len(demo.CLASSES)].min() > 0.01
    assert min(shown) > 0.3
    assert 0.01 < shares[255] < 0.08


def test_classes_and_palette_fit_together():
    assert len(set(demo.CLASSES)) == len({tuple(c) for c in demo.PALETTE}) == 8
    assert demo.METAINFO == {'classes': demo.CLASSES, 'palette': demo.PALETTE}


def colour_features(image):
    """(H, W, 6): the colour of a pixel, as RGB and as Lab."""
    scaled = image.astype(np.float32) / 255
    return np.dstack([scaled, cv2.cvtColor(scaled, cv2.COLOR_BGR2Lab)])


def texture_features(image):
    """(H, W, 8): contrast, gradient, its alignment and curvature, of the grey image."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32) / 255
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    curvature = np.abs(cv2.Laplacian(grey, cv2.CV_32F))
    maps = []
    for side in (7, 15):
        xx, yy, xy, bend, mean, square = (
            cv2.blur(m, (side, side)) for m in (dx * dx, dy * dy, dx * dy, curvature, grey, grey**2)
        )
        maps += [np.log(np.maximum(m, 1e-5)) for m in (square - mean**2, xx + yy, bend)]
        maps.append(np.hypot(xx - yy, 2 * xy) / (xx + yy + 1e-4))
    return np.dstack(maps)


def accuracy(scenes, features):
    """Mean recall over the classes on unseen scenes, of a linear classifier of single pixels."""
    rng = np.random.default_rng(0)
    tables = {}
    for split, drawn in scenes.items():
        rows, labels = [], []
        for image, seg_map in drawn:
            values = features(image)
            for label in range(len(demo.CLASSES)):
                at = np.argwhere(seg_map == label)
                at = at[rng.permutation(len(at))[:20]]
                rows.append(values[at[:, 0], at[:, 1]])
                labels.append(np.full(len(at), label))
        tables[split] = np.concatenate(rows), np.concatenate(labels)
    model = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=300, class_weight='balanced')
    )
    model.fit(*tables['train'])
    x, y = tables['val']
    return balanced_accuracy_score(y, model.predict(x))


def test_texture_tells_the_classes_and_colour_hardly_does(scenes):
    chance = 1 / len(demo.CLASSES)
    colour, texture = (accuracy(scenes, f) for f in (colour_features, texture_features))
    assert colour < chance + 0.12
    assert texture > 0.5
    assert texture - chance > 4 * (colour - chance)


def test_every_class_takes_every_hue_and_brightness(scenes):
    for label in range(len(demo.CLASSES)):
        means = []
        for image, seg_map in scenes['train'] + scenes['val']:
            if (seg_map == label).sum() > 30:
                colour = image[seg_map == label].astype(np.float32).mean(axis=0) / 255
                means.append(cv2.cvtColor(colour.reshape(1, 1, 3), cv2.COLOR_BGR2YUV)[0, 0])
        y, u, v = np.array(means).T
        hues = np.histogram(np.arctan2(v - 0.5, u - 0.5), bins=6, range=(-np.pi, np.pi))[0]
        assert hues.min() > 0 and hues.max() < 0.6 * len(means), demo.CLASSES[label]
        assert np.ptp(y) > 0.3, demo.CLASSES[label]


def test_the_same_call_writes_the_same_bits(tmp_path):
    first = demo.write_demo_dataset(tmp_path / 'a', **SMALL)
    second = demo.write_demo_dataset(tmp_path / 'deep' / 'b', **SMALL)
    assert digests(first) == digests(second)
    assert len(digests(first)) == 1 + 3 + 2 * (4 + 2)
    other = demo.write_demo_dataset(tmp_path / 'c', seed=1, **SMALL)
    shared = set(digests(first).values()) & set(digests(other).values())
    assert not shared


def test_a_larger_data_set_begins_with_the_smaller_one(tmp_path):
    small = digests(demo.write_demo_dataset(tmp_path / 'small', **SMALL))
    large = digests(demo.write_demo_dataset(tmp_path / 'large', **{**SMALL, 'num_train': 6}))
    del small['dataset.json']
    assert small.items() <= large.items()


def test_mmseg_reads_it(tmp_path):
    root = demo.write_demo_dataset(tmp_path / 'demo', **SMALL)
    dataset = BaseSegDataset(
        data_root=str(root),
        data_prefix={'img_path': 'img/train', 'seg_map_path': 'ann/train'},
        metainfo=demo.METAINFO,
        img_suffix='.jpg',
        seg_map_suffix='.png',
        pipeline=[{'type': 'mmseg.LoadImageFromFile'}, {'type': 'mmseg.LoadAnnotations'}],
    )
    assert len(dataset) == 4
    for number in range(4):
        image, seg_map = demo.draw_scene(demo.scene_seed(0, 'train', number), 48)
        assert np.array_equal(dataset[number]['gt_seg_map'], seg_map)
        error = dataset[number]['img'].astype(float) - image
        assert abs(error.mean()) < 1 and np.abs(error).mean() < 16  # JPEG halves chroma


def test_mmseg_reads_the_unlabelled_images(tmp_path):
    root = demo.write_demo_dataset(tmp_path / 'demo', **SMALL)
    dataset = BaseSegDataset(
        data_root=str(root),
        data_prefix={'img_path': 'img/unlabelled'},
        pipeline=[{'type': 'mmseg.LoadImageFromFile'}],
    )
    assert [dataset[i]['img'].shape for i in range(len(dataset))] == [(48, 48, 3)] * 3


def test_a_finished_data_set_is_used_again(tmp_path, monkeypatch):
    root = demo.write_demo_dataset(tmp_path / 'demo', **SMALL)
    monkeypatch.setattr(demo, 'draw_scene', lambda *_: pytest.fail('drew again'))
    assert demo.write_demo_dataset(str(root), **SMALL) == root


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / 'demo').mkdir()
    root = demo.write_demo_dataset(tmp_path / 'demo', **SMALL)
    assert len(list((root / 'ann' / 'train').iterdir())) == 4


@pytest.mark.parametrize(
    'change', [{'seed': 5}, {'image_size': 64}, {'num_train': 5}, {'num_val': 0}]
)
def test_other_parameters_are_refused(tmp_path, change):
    root = demo.write_demo_dataset(tmp_path / 'demo', **SMALL)
    before = digests(root)
    (name,) = change
    label = f"'{name[4:]}': " if name.startswith('num_') else f'{name}='
    told = [f'{label}{values[name]}' for values in ({'seed': 0, **SMALL}, change)]
    with mistake(str(root), told):
        demo.write_demo_dataset(root, **{**SMALL, **change})
    assert digests(root) == before


def test_another_drawing_is_refused(tmp_path, monkeypatch):
    root = demo.write_demo_dataset(tmp_path / 'demo', **SMALL)
    monkeypatch.setattr(demo, 'FORMAT', demo.FORMAT + 1)
    with mistake(str(root), (f'format={demo.FORMAT - 1}', f'format={demo.FORMAT}')):
        demo.write_demo_dataset(root, **SMALL)


@pytest.mark.parametrize('text', [None, 'not json', '[1, 2]'])
def test_a_folder_of_something_else_is_left_alone(tmp_path, text):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('years of work')
    if text is not None:
        (tmp_path / 'mine' / 'dataset.json').write_text(text)
    with mistake(str(tmp_path / 'mine'), 'dataset.json'):
        demo.write_demo_dataset(tmp_path / 'mine', **SMALL)
    assert (tmp_path / 'mine' / 'thesis.txt').read_text() == 'years of work'


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / 'demo').write_text('a file')
    with mistake(str(tmp_path / 'demo'), 'dataset.json'):
        demo.write_demo_dataset(tmp_path / 'demo', **SMALL)


def test_a_data_set_that_lost_files_is_refused(tmp_path):
    root = demo.write_demo_dataset(tmp_path / 'demo', **SMALL)
    (root / 'ann' / 'train' / '00002.png').unlink()
    with mistake(str(root / 'ann' / 'train'), ('3 files', ' 4', 'dataset.json')):
        demo.write_demo_dataset(root, **SMALL)


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch, error):
    drawn = []

    def stop(seed, size):
        drawn.append(seed)
        if len(drawn) == 5:
            raise error
        return original(seed, size)

    original = demo.draw_scene
    monkeypatch.setattr(demo, 'draw_scene', stop)
    with pytest.raises(error):
        demo.write_demo_dataset(tmp_path / 'demo', **SMALL)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    demo.write_demo_dataset(tmp_path / 'demo', **SMALL)


def test_remains_of_a_killed_write_are_not_taken_for_the_data_set(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(demo.shutil, 'rmtree', lambda *_, **__: None)  # as if killed before it
        patch.setattr(demo.os, 'replace', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            demo.write_demo_dataset(tmp_path / 'demo', **SMALL)
    assert not (tmp_path / 'demo').exists()
    remains = list(tmp_path.iterdir())
    assert len(remains) == 1
    (remains[0] / 'img' / 'train' / '99999.jpg').write_bytes(b'half a file')
    root = demo.write_demo_dataset(tmp_path / 'demo', **SMALL)
    assert list(tmp_path.iterdir()) == [root]
    assert len(list((root / 'img' / 'train').iterdir())) == 4


def test_a_writer_that_comes_second_uses_what_the_first_wrote(tmp_path, monkeypatch):
    finished = demo.write_demo_dataset(tmp_path / 'first', **SMALL)

    def finish_meanwhile(seed, size):
        if not (tmp_path / 'demo').exists():
            shutil.copytree(finished, tmp_path / 'demo')
        return original(seed, size)

    original = demo.draw_scene
    monkeypatch.setattr(demo, 'draw_scene', finish_meanwhile)
    root = demo.write_demo_dataset(tmp_path / 'demo', **SMALL)
    assert digests(root) == digests(finished)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['demo', 'first']


def test_the_description_names_the_parameters(tmp_path):
    root = demo.write_demo_dataset(tmp_path / 'demo', seed=4, **SMALL)
    assert json.loads((root / 'dataset.json').read_text()) == {
        'format': demo.FORMAT,
        'seed': 4,
        'image_size': 48,
        'counts': {'unlabelled': 3, 'train': 4, 'val': 2},
        'classes': list(demo.CLASSES),
    }


@pytest.mark.parametrize(
    ('change', 'name'),
    [
        ({'seed': -1}, 'seed'),
        ({'image_size': 31}, 'image_size'),
        ({'num_unlabelled': -1}, 'num_unlabelled'),
        ({'num_train': -1}, 'num_train'),
        ({'num_val': -1}, 'num_val'),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, change, name):
    with mistake(name, str(change[name])):
        demo.write_demo_dataset(tmp_path / 'demo', **{**SMALL, **change})
    assert list(tmp_path.iterdir()) == []
