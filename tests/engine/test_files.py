"""Files of a data set: which are looked for and where, what may be missing, what is told."""

import hashlib
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import storages
from mistakes import mistake
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.registry import DefaultScope
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS, TRANSFORMS

from mm_tuning_plugin.benchmark.worker.retrieval import measure_recall
from mm_tuning_plugin.demo.dataset import METAINFO
from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.engine.config import derive_pipelines
from mm_tuning_plugin.engine.config.user_config import read_classes
from mm_tuning_plugin.engine.preflight.data import build_dataset, check_data
from mm_tuning_plugin.engine.preflight.data_files import (
    Look,
    Reader,
    find_absent,
    find_readers,
    list_items,
)
from mm_tuning_plugin.engine.reuse.fingerprint import data_manifest
from mm_tuning_plugin.inspection.label_values import take_census

CHECK = dict(type='mm_tuning_plugin.CheckLabels', num_classes=8)
NAMES = [f'{i:05d}' for i in range(8)]


@TRANSFORMS.register_module(force=True)
class LoadBeside(BaseTransform):
    """Labels lie beside the image, whatever the data set calls their file."""

    def transform(self, results):
        path = results['img_path'].replace('img', 'ann').replace('.jpg', '.png')
        results['gt_seg_map'] = cv2.imread(path, cv2.IMREAD_UNCHANGED).astype(np.uint8)
        results['seg_fields'].append('gt_seg_map')
        return results


def data_set(root, labels='LoadAnnotations', loading=(), **options):
    return {
        **dict(
            type='BaseSegDataset',
            data_root=str(root),
            metainfo=METAINFO,
            data_prefix=dict(img_path='img/train', seg_map_path='ann/train'),
            pipeline=[
                dict(type='LoadImageFromFile', **dict(loading)),
                dict(type=labels, **dict(loading)),
                dict(type='PackSegInputs'),
            ],
        ),
        **options,
    }


@pytest.fixture
def root(imported, demo_root, tmp_path):
    return Path(shutil.copytree(demo_root, tmp_path / 'data'))


@pytest.fixture
def split(tmp_path):
    (tmp_path / 'split.txt').write_text('\n'.join(NAMES) + '\n')
    return str(tmp_path / 'split.txt')


def stored(kind, split):
    """A data set in some storage that holds the files of `root`."""
    if kind == 'prefix':
        return data_set('memory://store/')
    if kind == 'prefix without a root':
        prefix = dict(img_path='memory://store/img/train', seg_map_path='memory://store/ann/train')
        return data_set('', data_prefix=prefix)
    if kind == 'key':
        arguments = dict(backend_args=dict(backend='memory', shelf='a'))
        return data_set('', loading=arguments, **arguments)
    if kind == 'key below a root':
        arguments = dict(backend_args=dict(backend='memory', shelf='a'))
        return data_set('store', loading=arguments, **arguments)
    if kind == 'http':
        prefix = dict(img_path='http://h/store/img/train', seg_map_path='http://h/store/ann/train')
        return data_set('', data_prefix=prefix, ann_file=split)
    arguments = dict(
        lmdb=dict(backend='lmdb', db_path='x'),
        memcached=dict(backend='memcached', server_list_cfg='x', client_cfg='y'),
        bare=dict(backend='bare'),
        answering=dict(backend='answering'),
    )
    return data_set('store', loading=dict(backend_args=arguments[kind]), ann_file=split)


STORAGES = (
    'prefix', 'prefix without a root', 'key', 'key below a root', 'http', 'lmdb', 'memcached',
    'bare', 'answering',
)  # fmt: skip


@pytest.mark.parametrize('kind', STORAGES)
def test_data_in_any_storage_are_read_as_on_disk(root, split, monkeypatch, kind):
    storages.fill(root)
    storages.stand_in_for_clients(monkeypatch)
    on_disk = take_census(data_set(root, reduce_zero_label=True), range)
    shutil.rmtree(root)
    dataset = dict(stored(kind, split), reduce_zero_label=True)
    items = check_data(dataset, CHECK, samples=3)
    assert [Path(item['img_path']).stem for item in items] == NAMES
    assert take_census(dataset, range) == on_disk
    manifest = data_manifest(items)
    assert data_manifest(check_data(dataset, CHECK, samples=3)) == manifest
    assert data_manifest(items[1:]) != manifest
    renamed = [dict(item, seg_map_path=item['seg_map_path'] + 'x') for item in items]
    assert data_manifest(renamed) != manifest


def test_labels_in_another_archive_are_another_data_set(root, split):
    storages.fill(root)
    one, other = stored('key', split), stored('key', split)
    for step in other['pipeline'][:2]:
        step['backend_args'] = dict(backend='memory', shelf='b')
    found = [data_manifest(check_data(dataset, CHECK, samples=1)) for dataset in (one, other)]
    assert found[0] != found[1]


@pytest.mark.parametrize('kind', ['prefix', 'key', 'answering'])
def test_a_backend_that_can_tell_is_asked(root, split, kind):
    storages.fill(root)
    del storages.FILES['ann/train/00003.png']
    with mistake(re.compile(r'ann/train/00003\.png$'), 'seg_map_path'):
        check_data(stored(kind, split), CHECK, samples=2)


@pytest.mark.parametrize('kind', ['lmdb', 'memcached', 'http', 'bare'])
def test_what_no_backend_can_tell_is_left_to_loading(root, split, monkeypatch, kind):
    storages.fill(root)
    storages.stand_in_for_clients(monkeypatch)
    del storages.FILES['ann/train/00003.png']
    check_data(stored(kind, split), CHECK, samples=2)
    with mistake(re.compile(r'img/train/00003\.jpg$'), re.compile('Error')):
        check_data(stored(kind, split), CHECK, samples=8)


def test_each_file_is_asked_of_the_backend_that_reads_it(root, split):
    """The data set lists its names on disk, images lie there, label maps elsewhere."""
    storages.fill(root)
    shutil.rmtree(root / 'ann')
    dataset = data_set(root)
    dataset['pipeline'][1]['backend_args'] = dict(backend='memory')
    dataset['data_prefix']['seg_map_path'] = str(root / 'store' / 'ann' / 'train')
    check_data(dataset, CHECK, samples=1)
    assert sorted(set(storages.ASKED)) == [f'ann/train/{name}.png' for name in NAMES]
    (root / 'img' / 'train' / '00004.jpg').unlink()
    dataset['ann_file'] = split
    with mistake(re.compile(r'00004\.jpg$'), 'img_path'):
        check_data(dataset, CHECK, samples=1)


def test_which_step_tells_where_a_file_is_read():
    """The one that is known to read it; else any that says so, as loaders of the user's may."""
    image, labels = LoadImageFromFile(), LoadAnnotations(backend_args=dict(backend='b'))
    own = SimpleNamespace(backend_args=dict(backend='own'))

    def found(*steps):
        readers = find_readers(SimpleNamespace(pipeline=SimpleNamespace(transforms=steps)))
        return [reader.backend_args for reader in readers.values()]

    assert found(own, image, labels) == [None, dict(backend='b')]
    assert found(own, labels) == [dict(backend='own'), dict(backend='b')]
    assert found(image, own) == [None, dict(backend='own')]
    assert found() == [None, None]


def test_a_file_that_is_repeated_is_asked_for_once(root):
    storages.fill(root)
    check_data(dict(type='RepeatDataset', times=5, dataset=data_set('memory://store/')), CHECK)
    assert len(storages.ASKED) == 16


def test_older_clients_are_not_asked(root):
    dataset = data_set(root)
    dataset['pipeline'][0]['file_client_args'] = dict(backend='disk')
    (root / 'img' / 'train' / '00002.jpg').rename(root / 'img' / 'train' / 'a.jpg')
    shutil.copy(root / 'ann' / 'train' / '00002.png', root / 'ann' / 'train' / 'a.png')
    check_data(dataset, CHECK, samples=1)
    assert Reader(client_args=dict(backend='disk')).storage('x') is None
    assert Reader(client_args=dict(backend='lmdb', db_path='x')).storage('x') is not None
    assert Look()('x', Reader(client_args=dict(backend='lmdb', db_path='x'))) is None


def test_asking_has_a_limit_of_time(root, split):
    storages.fill(root)
    look, reader = Look(seconds=0), Reader(dict(backend='memory'))
    assert look('store/img/train/00000.jpg', reader) is None and storages.ASKED == []
    assert look(str(root / 'none.jpg'), reader := Reader()) is False, 'on disk all are looked for'
    assert look(str(root), reader) is False, 'a folder is no file'
    look = Look(seconds=60)
    assert look('store/none.jpg', Reader(dict(backend='memory'))) is False and 59 < look.left < 60


def test_a_backend_that_cannot_answer_is_asked_once():
    storages.ASKED.clear()
    look, reader = Look(), Reader(dict(backend='answering', shelf='down'))
    assert [look(name, reader) for name in 'abc'] == [None] * 3 and storages.ASKED == ['a']
    assert look('x', Reader(dict(backend='nobody registered this'))) is None
    assert look(None, reader) is None


@pytest.mark.parametrize('folder', ['img', 'ann'])
def test_every_local_file_is_looked_for(root, split, folder):
    path = next((root / folder / 'train').glob('00005.*'))
    path.unlink()
    with mistake(str(path), 'img_path' if folder == 'img' else 'seg_map_path'):
        check_data(data_set(root, ann_file=split), CHECK, samples=2)


@pytest.mark.parametrize('named', [True, False])
def test_what_the_loader_does_not_open_may_be_missing(root, named):
    prefix = dict(img_path='img/train', **(dict(seg_map_path='nowhere') if named else {}))
    dataset = data_set(root, labels='LoadBeside', data_prefix=prefix)
    dataset['pipeline'][1] = dict(type='LoadBeside')
    items = check_data(dataset, CHECK, samples=2)
    assert len(items) == 8 and ('seg_map_path' in items[0]) == named
    manifest = data_manifest(items)
    assert manifest == data_manifest(check_data(dataset, CHECK, samples=2))
    assert take_census(dataset, range).images == 8
    (root / 'ann' / 'train' / '00000.png').unlink()
    where = r'nowhere/00000\.png$' if named else r'00000\.jpg$'
    with mistake(re.compile(where), 'AttributeError'):
        check_data(dataset, CHECK, samples=2)


def test_labels_inside_the_image_file_count_by_its_size(root):
    path = root / 'img' / 'train' / '00000.jpg'
    items = [dict(img_path=str(path))]
    before = data_manifest(items)
    path.write_bytes(path.read_bytes() + b'x')
    assert data_manifest(items) != before


def test_items_without_paths_count_by_what_they_say():
    one, other = [dict(name='a')], [dict(name='b')]
    assert data_manifest(one) == data_manifest([dict(name='a')]) != data_manifest(other)


def test_a_label_map_that_the_loader_needs_must_be_named(root):
    dataset = data_set(root, data_prefix=dict(img_path='img/train'))
    with mistake(re.compile(r'img/train/\d+\.jpg$'), remedy=['seg_map_path', 'data_prefix']):
        check_data(dataset, CHECK, samples=2)


def test_images_that_the_loader_passes_over_may_be_missing(root, split):
    (root / 'img' / 'train' / '00005.jpg').unlink()
    dataset = data_set(root, ann_file=split)
    dataset['pipeline'][0]['ignore_empty'] = True
    assert len(check_data(dataset, CHECK, samples=2)) == 8


def test_a_mistake_in_labels_is_told_as_one(root, split):
    """The file that is missing is not needed; what is wrong is the label map beside the image."""
    dataset = data_set(root, labels='LoadBeside', data_prefix=dict(img_path='img/train'))
    cv2.imwrite(str(root / 'ann' / 'train' / '00000.png'), np.full((64, 64), 17, np.uint8))
    with mistake(re.compile('00000'), '17'):
        check_data(dataset, CHECK, samples=2)


def test_the_manifest_of_local_files_stays(root):
    items = check_data(data_set(root), CHECK, samples=1)
    digest = hashlib.sha256()
    for name in NAMES:
        size = os.path.getsize(root / 'ann' / 'train' / f'{name}.png')
        digest.update(f'{name}.jpg|{name}.png|{size}\n'.encode())
    assert data_manifest(items) == f'8 images, {digest.hexdigest()[:16]}'


def test_local_files_beside_others_count_from_any_folder(root, monkeypatch):
    items = [
        *({key: str(root / f'{key}.jpg') for key in ('img_path', 'seg_map_path')},),
        dict(img_path='memory://a/b.jpg', seg_map_path='memory://a/b.png', storage='{}'),
    ]
    before = data_manifest(items)
    monkeypatch.chdir(root)
    assert data_manifest(items) == before


ORDINARY = {
    'the first images': (4, dict(indices=4)),
    'some images': (2, dict(indices=[1, 3])),
    'in test mode': (8, dict(test_mode=True)),
    'initialised late': (8, dict(lazy_init=True)),
    'a filter': (8, dict(filter_cfg=dict(filter_empty_gt=True, min_size=3))),
    'not serialised': (8, dict(serialize_data=False)),
    'nothing is fetched again': (8, dict(max_refetch=0)),
}


@pytest.mark.parametrize(('count', 'options'), ORDINARY.values(), ids=ORDINARY.keys())
def test_arguments_of_data_sets_are_let_pass(root, count, options):
    dataset = data_set(root, **options)
    assert len(check_data(dataset, CHECK, samples=2)) == count
    nest = dict(type='RepeatDataset', times=2, dataset=dataset)
    assert len(check_data(nest, CHECK, samples=2)) == 2 * count


def test_validation_without_labels(toy_cfg, root):
    """It only writes predictions: images alone are looked at, and no node is retrieved."""
    dataset = toy_cfg.val_dataloader.dataset
    dataset.update(test_mode=True, data_root=str(root))
    dataset.data_prefix = dict(img_path='img/val')
    dataset.pipeline.pop(1)
    assert derive_pipelines.validates_labels(toy_cfg), 'the metric asks for labels'
    with mistake(re.compile('/val/'), remedy='LoadAnnotations'):
        check_data(dataset, CHECK, train=toy_cfg.train_dataloader.dataset)
    toy_cfg.val_evaluator = [dict(type='IoUMetric', format_only=True, output_dir='x')]
    assert not derive_pipelines.validates_labels(toy_cfg)
    assert derive_tuning_config(toy_cfg).val_dataloader is None
    protocol = dict(images=2, patches=2, size_range=(8, 16), patch_size=16)
    parts = (toy_cfg[f'{split}_dataloader'].dataset for split in ('train', 'val'))
    assert measure_recall(toy_cfg, *parts, protocol, {}) is None
    assert len(check_data(dataset, None, train=toy_cfg.train_dataloader.dataset)) == 4
    empty = next((root / 'img' / 'val').iterdir())
    empty.write_bytes(b'')
    with mistake(str(empty), 'imdecode'):
        check_data(dataset, None, train=toy_cfg.train_dataloader.dataset)


def test_split_files_with_folders_and_whole_paths(root, tmp_path):
    for folder, suffix in (('img', 'jpg'), ('ann', 'png')):
        (root / folder / 'train' / 'sub').mkdir()
        shutil.copy(
            root / folder / 'train' / f'00000.{suffix}',
            root / folder / 'train' / 'sub' / f'a.{suffix}',
        )
    (root / 'split.txt').write_bytes(b'sub/a  \r\n00001\t\r  00002')
    for place in ('split.txt', str(root / 'split.txt')):
        items = check_data(data_set(root, ann_file=place), CHECK, samples=3)
        assert [Path(item['img_path']).stem for item in items] == ['a', '00001', '00002']
    whole = dict(img_path=str(root / 'img' / 'train'), seg_map_path=str(root / 'ann' / 'train'))
    for data_root in ('', None, str(tmp_path / 'none')):  # mmengine joins whole paths to no root
        assert len(check_data(data_set('', data_root=data_root, data_prefix=whole), CHECK)) == 9


def test_data_sets_in_different_storages_are_joined(root, split):
    storages.fill(root)
    parts = [data_set(root), data_set('memory://store/'), stored('key', split)]
    nest = dict(
        type='ConcatDataset',
        datasets=[dict(type='RepeatDataset', times=2, dataset=parts[0]), *parts[1:]],
    )
    items = check_data(nest, CHECK, samples=4)
    assert ['storage' in item for item in items] == [False] * 16 + [True] * 16
    del storages.FILES['ann/train/00006.png']
    with mistake('memory://store/ann/train/00006.png', 'seg_map_path'):
        check_data(nest, CHECK, samples=4)
    with DefaultScope.overwrite_default_scope('mmseg'):
        nest['datasets'][0]['dataset']['ann_file'] = split
        storages.fill(root)
        (root / 'img' / 'train' / '00003.jpg').unlink()
        with mistake(re.compile(r'00003\.jpg$'), 'img_path'):
            build_dataset(nest, 'here')
        del nest['datasets'][0]['dataset']['ann_file']
        built, items = build_dataset(nest, 'here')
        assert find_absent(built, items) == []
        assert [i['img_path'] for i in list_items(built)] == [i['img_path'] for i in items]


def test_a_root_that_is_missing_is_named(root, split):
    config = data_set(root / 'none')
    for nest in (config, dict(type='ConcatDataset', datasets=[data_set(root), config])):
        with mistake('data_root', repr(str(root / 'none'))):
            check_data(nest, CHECK)
    config.update(ann_file=split)
    with mistake('data_root', repr(str(root / 'none'))):
        check_data(config, CHECK)


WRONG_SPLITS = {
    'byte-order mark': ('\ufeff00000\n00001\n', ['byte-order mark'], 'UTF-8'),
    'blank': ('00000\n\n00001\n', ['line 2'], 'remove'),
    'blank at the end': ('00000\n00001\n\n', ['line 3'], 'remove'),
    'spaces': ('00000\n   \n00001\n', ['line 2'], 'remove'),
    'suffix': ('00000\n00001.jpg\n', ['line 2', "'00001.jpg'", "'.jpg'"], 'suffix'),
    'suffix of labels': ('00000.png\n', ['line 1', "'00000.png'"], 'suffix'),
    'two names': ('00000.jpg 00000.png\n', ['line 1', "'00000.jpg 00000.png'"], 'one name'),
    'hidden': ('00000\n00001\u200b\n', ['line 2', r"'00001\u200b'"], 'remove'),
}


@pytest.mark.parametrize(
    ('text', 'found', 'remedy'), WRONG_SPLITS.values(), ids=WRONG_SPLITS.keys()
)
def test_what_is_wrong_in_a_split_file_can_be_seen(root, text, found, remedy):
    path = root / 'split.txt'
    path.write_bytes(text.encode('utf-8'))
    with mistake(re.compile('/train/'), [str(path), *found], remedy) as raised:
        check_data(data_set(root, ann_file=str(path)), CHECK)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize('encoding', ['utf-16', 'utf-16-be'])
def test_a_split_file_of_another_encoding(root, encoding):
    mark = '' if encoding == 'utf-16' else '\ufeff'
    (root / 'split.txt').write_bytes(f'{mark}00000\n'.encode(encoding))
    with mistake('train_dataloader.dataset', 'Unicode', ['split.txt', 'UTF-16', 'UTF-8']):
        check_data(data_set(root, ann_file='split.txt'), CHECK)


def test_a_file_that_is_simply_missing_is_told_without_a_hint(root, split):
    (root / 'img' / 'train' / '00001.jpg').unlink()
    missing = str(root / 'img' / 'train' / '00001.jpg')
    with mistake(missing, 'img_path') as raised:
        check_data(data_set(root, ann_file=split), CHECK)
    assert str(split) not in str(raised.value)


@pytest.mark.parametrize('place', [dict(data_root='memory://store/img'), 'key'])
def test_a_folder_of_images_may_lie_in_other_storage(root, place):
    storages.fill(root)
    storages.FILES['img/notes.txt'] = b'no image'
    if place == 'key':
        place = dict(data_root='img', backend_args=dict(backend='memory'))
    config = dict(type='mm_tuning_plugin.UnlabelledFolder', **place)
    step = dict(type='LoadImageFromFile', backend_args=place.get('backend_args'))
    built = DATASETS.build({**config, 'pipeline': [step]})
    on_disk = DATASETS.build({**config, 'data_root': root / 'img', 'backend_args': None})
    assert [Path(item['img_path']).name for item in built] == [
        Path(item['img_path']).name for item in on_disk
    ]
    assert built[0]['img'].shape == (64, 64, 3)
    with mistake('data_root', 'memory://nowhere', '.jpg'):
        DATASETS.build({**config, 'data_root': 'memory://nowhere'})
    with mistake('data_root', re.compile(r'\bimg\b')):
        DATASETS.build({**config, 'data_root': 'img', 'backend_args': dict(backend='bare')})


def test_names_of_classes_may_lie_in_other_storage(toy_cfg):
    storages.FILES['names.txt'] = '\n'.join('abcdefgh').encode()
    toy_cfg.train_dataloader.dataset.metainfo = dict(classes='memory://store/names.txt')
    assert read_classes(toy_cfg) == (8, list('abcdefgh'))
    toy_cfg.train_dataloader.dataset.metainfo = dict(classes='memory://store/none.txt')
    with mistake('dataset.metainfo.classes', 'memory://store/none.txt', 'list'):
        read_classes(toy_cfg)
