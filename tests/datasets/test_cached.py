import copy
import pickle
import re

import mmcv
import mmseg.datasets
import mmseg.registry
import numpy as np
import pytest
import torch
from mistakes import mistake
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner

from mm_tuning_plugin.datasets import Cached, cache_loading
from mm_tuning_plugin.datasets.cached import CACHEABLE, TYPE, without_cache
from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.engine.config.derive_data import label_check
from mm_tuning_plugin.engine.config.options import resolve_options
from mm_tuning_plugin.engine.config.user_config import read_user_config
from mm_tuning_plugin.engine.preflight.data import check_data
from mm_tuning_plugin.engine.reuse.fingerprint import fingerprint

LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
MAP = dict(type='mm_tuning_plugin.MapLabels', label_map={7: 255})


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def steps_of(cfg):
    return cfg.train_dataloader.dataset.pipeline


def batches(cfg, count):
    """The first batches of a training loader, seeded as a run seeds it."""
    torch.manual_seed(3)
    np.random.seed(3)
    loader = Runner.build_dataloader(copy.deepcopy(cfg.train_dataloader), seed=3)
    iterator = iter(loader)
    return [next(iterator) for _ in range(count)]


def assert_equal(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second):
        assert len(one['inputs']) == len(other['inputs'])
        assert all(map(torch.equal, one['inputs'], other['inputs']))
        for a, b in zip(one['data_samples'], other['data_samples']):
            assert torch.equal(a.gt_sem_seg.data, b.gt_sem_seg.data)
            assert a.metainfo == b.metainfo


@pytest.mark.parametrize('workers', [0, 2])
def test_training_reads_the_same_batches(toy_cfg, workers):
    steps_of(toy_cfg).insert(2, MAP)
    steps_of(toy_cfg).insert(5, dict(type='PhotoMetricDistortion'))
    toy_cfg.train_dataloader.num_workers = workers
    cached = cache_loading(toy_cfg)
    assert [step.type for step in steps_of(cached)][:2] == [TYPE, 'RandomCrop']
    assert_equal(batches(toy_cfg, 14), batches(cached, 14))  # 8 images: each comes again


def test_tuning_draws_the_same_nodes(toy_cfg):
    plain, cached = (derive_tuning_config(cfg) for cfg in (toy_cfg, cache_loading(toy_cfg)))
    twice = cache_loading(plain)  # of the derived config, label check and all
    inner = twice.train_dataloader.dataset.dataset.pipeline
    assert [step['type'].split('.')[-1] for step in inner[0]['transforms']] == [
        'LoadImageFromFile', 'LoadAnnotations', 'CheckLabels'
    ]  # fmt: skip
    for other in (cached, twice):
        for one, two in zip(batches(plain, 6), batches(other, 6)):
            for key in ('inputs', 'points', 'labels'):
                assert all(map(torch.equal, one[key], two[key]))


def test_files_are_read_once(toy_cfg, monkeypatch):
    read = []
    from mmengine import fileio

    get = fileio.get
    monkeypatch.setattr(
        fileio, 'get', lambda path, *a, **k: read.append(path) or get(path, *a, **k)
    )
    dataset = DATASETS.build(cache_loading(toy_cfg).train_dataloader.dataset)
    first = [dataset[i] for i in range(8)]
    assert len(read) == len(set(read)) == 16
    again = [dataset[i] for i in range(8)]
    assert len(read) == 16
    assert not all(torch.equal(a['inputs'], b['inputs']) for a, b in zip(first, again))  # flips


def load(cached, dataset, index):
    return cached(dataset.get_data_info(index))


def bare(toy_cfg):
    config = copy.deepcopy(toy_cfg.train_dataloader.dataset)
    return DATASETS.build(dict(config, pipeline=[]))


def test_what_is_done_in_place_spoils_nothing(toy_cfg):
    dataset, cached = bare(toy_cfg), Cached([*LOAD, MAP])
    results = load(cached, dataset, 0)
    expected = copy.deepcopy(results)
    for _ in range(3):
        results['img'][:], results['gt_seg_map'][:] = 0, 0
        results['seg_fields'].append('spoiled')
        results = load(cached, dataset, 0)
        assert results.keys() == expected.keys()
        assert np.array_equal(results['img'], expected['img'])
        assert np.array_equal(results['gt_seg_map'], expected['gt_seg_map'])
        assert results['seg_fields'] == ['gt_seg_map'] and results['sample_idx'] == 0


def test_a_sample_keeps_its_own_index(toy_cfg):
    dataset, cached = bare(toy_cfg), Cached(LOAD)
    load(cached, dataset, 0)
    twin = dict(dataset.get_data_info(0), sample_idx=5, seg_fields=[])
    assert cached(twin)['sample_idx'] == 5


def test_labels_read_otherwise_are_no_hit(toy_cfg):
    dataset = bare(toy_cfg)
    cached = Cached(LOAD)
    plain = load(cached, dataset, 0)['gt_seg_map']
    value = int(plain.flat[0])
    renamed = cached(dict(dataset.get_data_info(0), label_map={value: 9}))['gt_seg_map']
    assert np.array_equal(renamed, np.where(plain == value, 9, plain))


def test_a_full_cache_takes_no_more_and_forgets_nothing(toy_cfg, monkeypatch):
    dataset = bare(toy_cfg)
    size = 64 * 64 * 4  # three channels and labels
    cached = Cached(LOAD, max_bytes=3 * size + 1)
    for index in range(8):
        load(cached, dataset, index)
    assert cached.bytes == 3 * size and len(cached._kept) == 3
    kept = {key[0] for key in cached._kept}
    assert kept == {dataset.get_data_info(i)['img_path'] for i in range(3)}


def test_workers_share_the_bound(toy_cfg, monkeypatch):
    from mm_tuning_plugin.datasets import cached as module

    dataset, cached = bare(toy_cfg), Cached(LOAD, max_bytes=4 * 64 * 64 * 4)
    monkeypatch.setattr(module, 'get_worker_info', lambda: type('Info', (), dict(num_workers=2)))
    for index in range(8):
        load(cached, dataset, index)
    assert len(cached._kept) == 2


def test_copies_start_empty(toy_cfg):
    dataset, cached = bare(toy_cfg), Cached(LOAD)
    load(cached, dataset, 0)
    for other in (copy.deepcopy(cached), pickle.loads(pickle.dumps(cached))):
        assert not other._kept and other.bytes == 0
        assert np.array_equal(load(other, dataset, 1)['img'], load(cached, dataset, 1)['img'])


def test_a_sample_that_loads_as_nothing_stays_nothing(toy_cfg):
    dataset = bare(toy_cfg)
    cached = Cached([dict(type='LoadImageFromFile', ignore_empty=True)])
    for _ in range(2):
        assert cached(dict(dataset.get_data_info(0), img_path='nowhere.jpg')) is None
    assert not cached._kept


@pytest.mark.parametrize('max_bytes', [-1, '2GiB', True])
def test_refuses_a_wrong_bound(max_bytes):
    with mistake('Cached.max_bytes', repr(max_bytes), 'bytes'):
        Cached(LOAD, max_bytes=max_bytes)


def test_only_the_leading_loading_steps_are_cached(toy_cfg):
    dataset = toy_cfg.train_dataloader.dataset
    dataset.pipeline = [LOAD[0], dict(type='Resize', scale=(32, 32)), LOAD[1]]
    (cached, *rest) = steps_of(cache_loading(toy_cfg, max_bytes=5))
    assert cached == dict(type=TYPE, transforms=[LOAD[0]], max_bytes=5)
    assert rest == dataset.pipeline[1:]
    dataset.pipeline = [dict(type='RandomFlip', prob=0.5), *LOAD]
    assert cache_loading(toy_cfg).to_dict() == toy_cfg.to_dict()
    assert 'RandomFlip' not in CACHEABLE


def test_a_users_own_step_of_the_same_name_is_not_cached(toy_cfg, monkeypatch):
    """It may read what the cache does not know of, or draw."""

    class LoadAnnotations(mmseg.datasets.LoadAnnotations):
        pass

    assert len(steps_of(cache_loading(toy_cfg))[0].transforms) == 2
    steps_of(toy_cfg)[0] = dict(type=mmcv.transforms.LoadImageFromFile)
    assert len(steps_of(cache_loading(toy_cfg))[0].transforms) == 2
    own = copy.deepcopy(toy_cfg)
    steps_of(own)[1] = dict(type=LoadAnnotations)
    assert len(steps_of(cache_loading(own))[0].transforms) == 1
    registered = mmseg.registry.TRANSFORMS._module_dict
    monkeypatch.setitem(registered, 'LoadAnnotations', LoadAnnotations)
    assert len(steps_of(cache_loading(toy_cfg))[0].transforms) == 1


def test_the_given_config_stays_and_wrappers_are_gone_through(toy_cfg):
    leaf = toy_cfg.train_dataloader.dataset
    toy_cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[leaf, leaf])
    )
    before = copy.deepcopy(toy_cfg)
    cached = cache_loading(toy_cfg)
    assert toy_cfg.to_dict() == before.to_dict()
    for part in cached.train_dataloader.dataset.dataset.datasets:
        assert part.pipeline[0].type == TYPE
    assert len(batches(cached, 2)) == 2
    assert cache_loading(cached).to_dict() == cached.to_dict()  # once is enough


def test_checks_before_a_run_see_through_it(toy_cfg):
    cached = cache_loading(toy_cfg)
    dataset = cached.train_dataloader.dataset
    items = check_data(dataset, label_check(read_user_config(cached)))
    assert len(items) == 8
    dataset.pipeline[0].transforms.append(
        dict(type='mm_tuning_plugin.MapLabels', label_map={0: 99})
    )
    with mistake(re.compile(r'\.png$'), ' 99 '):
        check_data(dataset, label_check(read_user_config(cached)))


def test_a_finished_tuning_is_the_same_one_with_and_without(toy_cfg):
    def of(cfg):
        return fingerprint(derive_tuning_config(cfg), resolve_options(cfg.mix_and_match), 'data')

    toy_cfg.mix_and_match.update(bn_crops=4)
    cached = cache_loading(toy_cfg)
    assert without_cache(cached.train_dataloader) == toy_cfg.train_dataloader
    assert of(cached) == of(toy_cfg)
