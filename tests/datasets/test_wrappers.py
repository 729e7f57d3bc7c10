import random
import re
from itertools import islice

import numpy as np
import pytest
import torch
from mistakes import mistake
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from torch.utils.data import DataLoader

from mm_tuning_plugin.datasets import (
    RetrievalDataset,
    SeededDataset,
    SeededIndex,
    SeededInfiniteSampler,
)
from mm_tuning_plugin.datasets.wrappers import load_sample, random_state
from mm_tuning_plugin.demo.dataset import METAINFO, write_demo_dataset

NUM_CLASSES = len(METAINFO['classes'])


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'demo'
    return write_demo_dataset(folder, image_size=64, num_unlabelled=0, num_train=5, num_val=4)


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def config(root, split='train', steps=()):
    """A data set of points after a random crop and flip, and after `steps`."""
    return {
        'type': 'BaseSegDataset',
        'data_root': str(root),
        'data_prefix': {'img_path': f'img/{split}', 'seg_map_path': f'ann/{split}'},
        'metainfo': METAINFO,
        'pipeline': [
            {'type': 'LoadImageFromFile'},
            {'type': 'LoadAnnotations'},
            *steps,
            {'type': 'mm_tuning_plugin.CheckLabels', 'num_classes': NUM_CLASSES},
            {'type': 'RandomCrop', 'crop_size': (32, 32)},
            {'type': 'RandomFlip', 'prob': 0.5},
            {'type': 'PhotoMetricDistortion'},
            {'type': 'mm_tuning_plugin.SamplePoints', 'points_per_class': 4},
            {'type': 'mm_tuning_plugin.PackNodeInputs'},
        ],
    }


def states():
    numpy_state = np.random.get_state()
    return (
        random.getstate(),
        numpy_state[1].tolist(),
        numpy_state[2:],
        torch.get_rng_state().tolist(),
    )


def draw_all():
    return random.random(), np.random.rand(), torch.rand(()).item()


def same(one, other):
    return all(torch.equal(one[key], other[key]) for key in ('inputs', 'points', 'labels'))


def test_random_state_seeds_all_three_and_restores_them():
    before = states()
    with random_state(1, 2):
        first = draw_all()
    with random_state(1, 2):
        assert draw_all() == first
    with random_state(1, 3):
        assert not set(draw_all()) & set(first)
    with random_state(2, 1):
        assert not set(draw_all()) & set(first)
    assert states() == before


def test_random_state_is_restored_after_a_failure():
    before = states()
    with pytest.raises(KeyError), random_state(0):
        draw_all()
        raise KeyError
    assert states() == before


def batches(data, num_workers, count=3):
    loader = DataLoader(
        data,
        batch_size=3,
        sampler=SeededInfiniteSampler(data, seed=5),
        num_workers=num_workers,
        collate_fn=pseudo_collate,
    )
    return [
        {key: batch[key][i] for key in ('inputs', 'points', 'labels')}
        for batch in islice(loader, count)
        for i in range(3)
    ]


def test_samples_are_the_same_with_and_without_workers(root):
    data = SeededDataset(config(root))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    alone = batches(data, num_workers=0)
    random.seed(2), np.random.seed(2), torch.manual_seed(2)
    together = batches(data, num_workers=2)
    assert len(alone) == len(together) == 9
    assert all(same(*pair) for pair in zip(alone, together))


def test_samples_depend_on_the_seed_and_leave_the_random_state_alone(root):
    data = SeededDataset(config(root))
    before = states()
    one, two, other = (data[SeededIndex(0, seed)] for seed in ((0, 1), (0, 1), (0, 2)))
    assert states() == before
    assert same(one, two) and not same(one, other)


def test_a_plain_index_follows_the_global_state(root):
    data = SeededDataset(config(root))
    samples = []
    for seed in (1, 1, 2):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        samples.append(data[0])
    assert same(*samples[:2]) and not same(*samples[1:])


def test_it_says_what_the_data_set_says(root):
    data = SeededDataset(config(root))
    data.full_init()
    assert len(data) == 5
    assert data.metainfo['classes'] == METAINFO['classes']
    assert data.get_data_info(2)['img_path'].endswith('00002.jpg')


BREAKING = [
    ({'type': 'mm_tuning_plugin.MapLabels', 'label_map': dict.fromkeys(range(255), 99)},
     r'ann/train.00000\.png$', (' 99 ', ' 0 to 7 ')),
    ({'type': 'Resize', 'scale': 'wide'}, r'img/train.00000\.jpg$', 'OpenCV'),
]  # fmt: skip


@pytest.mark.parametrize('num_workers', [0, 1])
@pytest.mark.parametrize(('step', 'where', 'problem'), BREAKING)
def test_failures_name_the_file_in_one_line(root, step, where, problem, num_workers):
    data = SeededDataset(config(root, steps=[step]))
    loader = DataLoader(
        data,
        sampler=[SeededIndex(0, (0, 0))],
        num_workers=num_workers,
        collate_fn=pseudo_collate,
    )
    with mistake(re.compile(where), problem):
        next(iter(loader))


def test_a_failure_of_a_data_set_without_information_keeps_its_reason():
    class Bare:
        def __getitem__(self, index):
            raise OSError('the disk is gone\nand more')

    with mistake('sample 3', 'OSError: the disk is gone'):
        load_sample(Bare(), 3)


def test_retrieval_takes_evenly_spaced_images_of_both_sets(root):
    data = RetrievalDataset(config(root), config(root, 'val'), max_images=3)
    data.full_init()
    samples = [data[i] for i in range(len(data))]
    assert [sample['meta']['role'] for sample in samples] == ['gallery'] * 3 + ['query'] * 3
    paths = [sample['meta']['img_path'].split('img/')[1] for sample in samples]
    assert paths == [
        *(f'train/{i:05d}.jpg' for i in (0, 2, 4)),
        *(f'val/{i:05d}.jpg' for i in (0, 1, 3)),
    ]
    assert data.metainfo['classes'] == METAINFO['classes']


@pytest.mark.parametrize(('max_images', 'sizes'), [(1, 2), (100, 9)])
def test_retrieval_of_one_and_of_all_images(root, max_images, sizes):
    assert len(RetrievalDataset(config(root), config(root, 'val'), max_images)) == sizes


def test_retrieval_draws_the_same_nodes_every_time(root):
    data = RetrievalDataset(config(root), config(root), max_images=2)
    before = states()
    first = [data[i] for i in range(4)]
    assert states() == before
    np.random.seed(77)
    assert all(same(sample, data[i]) for i, sample in enumerate(first))
    # the same image as gallery and as query is not the same draw
    assert not same(first[0], first[2])
