import json
from pathlib import Path

import pytest
import storages
from mistakes import mistake

from mm_tuning_plugin.benchmark.design.splits import Library, read_folds
from mm_tuning_plugin.demo.dataset import METAINFO, write_demo_dataset

pytestmark = pytest.mark.usefixtures('imported')
NAMES = [f'{i:05d}' for i in range(16)]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'demo'
    return write_demo_dataset(folder, image_size=32, num_unlabelled=0, num_train=16, num_val=2)


@pytest.fixture
def library(tmp_path):
    return Library(tmp_path / 'splits')


def data_set(root, **options):
    return dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='img/train', seg_map_path='ann/train'),
        metainfo=METAINFO,
        pipeline=[dict(type='LoadImageFromFile')],
        **options,
    )


def read(dataset):
    """Names of the images that mmseg reads."""
    from mmseg.registry import DATASETS

    built = DATASETS.build({**dataset, 'pipeline': []})
    return [Path(built.get_data_info(i)['img_path']).stem for i in range(len(built))]


def test_smaller_shares_lie_inside_larger_ones(root, library):
    parts = [library.subset(data_set(root), f, 7) for f in (1 / 16, 1 / 8, 0.25, 0.5, 1, 1.0)]
    assert [part.images for part in parts] == [1, 2, 4, 8, 16, 16]
    names = [set(read(part.dataset)) for part in parts]
    assert all(small < large for small, large in zip(names[:4], names[1:]))
    assert library.subset(data_set(root), 0.001, 7).images == 1, 'at least one'


def test_each_seed_draws_its_own(root, library):
    drawn = [tuple(read(library.subset(data_set(root), 0.25, seed).dataset)) for seed in range(8)]
    assert len(set(drawn)) > 5
    assert tuple(read(library.subset(data_set(root), 0.25, 3).dataset)) == drawn[3]


def test_a_manifest_says_what_is_read_and_is_named_by_it(root, library):
    part = library.subset(data_set(root), 0.25, 0)
    path = Path(part.dataset['ann_file'])
    assert path.read_text(encoding='utf-8').splitlines() == read(part.dataset)
    assert path.parent == library.folder and path.is_absolute()
    again = library.subset(data_set(root), 0.25, 0).dataset['ann_file']
    other = library.subset(data_set(root), 0.25, 1).dataset['ann_file']
    assert again == str(path) != other


def test_a_manifest_of_the_users_is_divided(root, library, tmp_path):
    manifest = tmp_path / 'train.txt'
    manifest.write_text('\n'.join(NAMES[4:12]) + '\n')
    given = data_set(root, ann_file=str(manifest))
    part = library.subset(given, 0.5, 0)
    assert part.images == 4 and set(read(part.dataset)) < set(NAMES[4:12])
    assert library.whole(given).images == 8
    assert given['ann_file'] == str(manifest), 'the config is not changed'


def test_indices_of_the_users_are_heeded(root, library):
    given = data_set(root, indices=4)
    assert set(read(library.subset(given, 0.5, 0).dataset)) < set(NAMES[:4])


def test_names_come_in_their_order(root, library):
    names = [NAMES[3], NAMES[0], NAMES[9]]
    assert read(library.named(data_set(root), names).dataset) == names


def test_shares_of_joined_data_sets_are_of_all_together(root, library):
    parts = [data_set(root, indices=8), data_set(root, indices=1)]
    joined = dict(type='RepeatDataset', times=3, dataset=dict(type='ConcatDataset', datasets=parts))
    sizes = set()
    for seed in range(8):
        part = library.subset(joined, 2 / 9, seed)
        inner = part.dataset['dataset']['datasets']
        assert part.images == sum(len(read(leaf)) for leaf in inner) == 2
        sizes.add(len(inner))
    assert sizes == {1, 2}, 'one that is left without images goes'
    with mistake('folds', '2'):
        library.named(joined, NAMES)


# ---- digests


def test_digests_change_with_names_and_files_not_with_the_place(root, tmp_path, library):
    import shutil

    first = library.whole(data_set(root)).digest
    moved = shutil.copytree(root, tmp_path / 'moved')
    assert Library(tmp_path).whole(data_set(moved)).digest == first
    label = Path(moved) / 'ann' / 'train' / '00003.png'
    label.write_bytes(label.read_bytes() + b' ')
    changed = Library(tmp_path).whole(data_set(moved)).digest
    assert changed != first
    for name in ('ann/train/00003.png', 'img/train/00003.jpg'):
        (Path(moved) / name).unlink()
    assert Library(tmp_path).whole(data_set(moved)).digest not in (first, changed)


# ---- what cannot be divided


class Rows:
    """A data set whose images bear no names that a manifest could hold."""

    METAINFO = dict(METAINFO)

    def __init__(self, ann_file='', pipeline=(), **options):
        self.count = 4

    def __len__(self):
        return self.count

    def get_data_info(self, index):
        return {'img_path': f'/data/{index}.jpg'}


class Deaf(Rows):
    """Has names, and does not read its manifest."""

    img_suffix = '.jpg'
    data_prefix = {'img_path': '/data'}


def test_a_data_set_without_manifests(library, monkeypatch):
    from mmseg.registry import DATASETS

    monkeypatch.setitem(DATASETS._module_dict, 'SplitsTestRows', Rows)
    monkeypatch.setitem(DATASETS._module_dict, 'SplitsTestDeaf', Deaf)
    whole = library.subset(dict(type='SplitsTestRows', pipeline=[]), 1, 0)
    assert whole.images == 4 and 'ann_file' not in whole.dataset
    with mistake('dataset', 'SplitsTestRows', 'ann_file'):
        library.subset(dict(type='SplitsTestRows', pipeline=[]), 0.5, 0)
    with mistake('dataset', ('SplitsTestDeaf', 'ann_file')):
        library.subset(dict(type='SplitsTestDeaf', pipeline=[]), 0.5, 0)


def test_data_that_is_not_there(root, library):
    nowhere = str(root / 'nowhere')
    with mistake('dataset', ('BaseSegDataset', nowhere, 'FileNotFoundError')):
        library.whole(data_set(nowhere))
    empty = data_set(root)
    empty['data_prefix'] = dict(img_path='img/none', seg_map_path='ann/train')
    (root / 'img' / 'none').mkdir(exist_ok=True)
    with mistake('dataset', ('BaseSegDataset', str(root))):
        library.whole(empty)


# ---- folds


@pytest.mark.parametrize(
    'text', ['', '{"a": 1}', '[1]', '[{"train": []}]', '[{"train": 5}]', '[{"train": 5, "val": 1}]']
)
def test_a_file_that_is_no_list_of_folds(tmp_path, text):
    path = tmp_path / 'folds.json'
    path.write_text(text, encoding='utf-8')
    with mistake(str(path), 'Error: ', ('JSON', '"train"', '"val"')):
        read_folds(path)


def test_folds_are_read(tmp_path):
    path = tmp_path / 'folds.json'
    path.write_text(json.dumps([{'train': ['a', 2], 'val': ['c'], 'more': 1}]))
    assert read_folds(path) == [{'train': ['a', '2'], 'val': ['c']}]
    path.write_text(json.dumps([{'train': [], 'val': ['c']}]))
    with mistake(str(path), 'fold 0', ('"train"', '"val"')):
        read_folds(path)


def stored(**options):
    dataset = data_set('memory://store/', **options)
    if options:
        dataset['data_root'] = ''
    return dataset


@pytest.mark.parametrize('options', [{}, dict(backend_args=dict(backend='memory', shelf='a'))])
def test_parts_of_data_in_other_storage(root, library, options):
    """By prefix a manifest on disk names them; by key mmseg would read it from the storage too."""
    storages.fill(root)
    local = library.subset(data_set(root), 0.25, 7)
    part = library.subset(stored(**options), 0.25, 7)
    assert read(part.dataset) == read(local.dataset)
    assert ('indices' in part.dataset) == bool(options)
    smaller = library.subset(part.dataset, 0.5, 1)
    assert smaller.images == 2 and set(read(smaller.dataset)) < set(read(part.dataset))
    assert library.named(stored(**options), ['00003', '00001']).images == 2
    with mistake('dataset', "'nobody'", '16 images'):
        library.named(stored(backend_args=dict(backend='memory')), ['nobody'])


def test_the_same_names_in_another_archive_are_other_data(root, library):
    storages.fill(root)
    shelves = [stored(backend_args=dict(backend='memory', shelf=shelf)) for shelf in 'aab']
    found = [Library(library.folder).whole(dataset).digest for dataset in shelves]
    assert found[0] == found[1] != found[2]
    assert library.whole(stored()).digest not in found
