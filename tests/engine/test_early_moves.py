"""Images that move before their labels are loaded: what each pipeline that is derived sees.

Images of 64 x 64; label maps of 32 x 32 in 'small', of the images' size in 'ann'.
"""

import copy
import re

import cv2
import numpy as np
import pytest
from mistakes import mistake
from mmengine.registry import DefaultScope
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS, TRANSFORMS

from mm_tuning_plugin.datasets import cache_loading
from mm_tuning_plugin.datasets.fit_to_labels import FitToLabels
from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.engine.config import derive_pipelines
from mm_tuning_plugin.engine.config.derive_data import label_check
from mm_tuning_plugin.engine.config.user_config import read_user_config
from mm_tuning_plugin.engine.preflight.data import check_data
from mm_tuning_plugin.engine.reuse.fingerprint import fingerprint
from mm_tuning_plugin.inspection.label_values import take_census
from mm_tuning_plugin.inspection.node_survey import survey

HALF = dict(type='Resize', scale=(32, 32))
LOAD, LABELS = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')
PACK = dict(type='PackSegInputs')
FLIP, CROP = dict(type='RandomFlip', prob=1.0), dict(type='RandomCrop', crop_size=(24, 24))


@TRANSFORMS.register_module(force=True)
class ReadClasses(LoadAnnotations):
    """A loader of labels, as its class tells and its name does not."""


@pytest.fixture(scope='module')
def halved(demo_root, tmp_path_factory):
    root = tmp_path_factory.mktemp('halved')
    for split in ('train', 'val'):
        for folder in ('img', 'ann', 'small'):
            (root / folder / split).mkdir(parents=True)
        for path in (demo_root / 'ann' / split).iterdir():
            labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            image = demo_root / 'img' / split / f'{path.stem}.jpg'
            (root / 'img' / split / image.name).write_bytes(image.read_bytes())
            (root / 'ann' / split / path.name).write_bytes(path.read_bytes())
            small = cv2.resize(labels, (32, 32), interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(root / 'small' / split / path.name), small)
    return root


@pytest.fixture
def cfg(toy_cfg, halved):
    """Small label maps in training and validation, each image halved before they are loaded."""
    for split in ('train', 'val'):
        dataset = toy_cfg[f'{split}_dataloader'].dataset
        dataset.data_root = str(halved)
        dataset.data_prefix.seg_map_path = f'small/{split}'
    steps(toy_cfg)[:] = [LOAD, HALF, LABELS, CROP, PACK]
    steps(toy_cfg, 'val')[:] = [LOAD, HALF, LABELS, PACK]
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield toy_cfg


def steps(cfg, split='train'):
    return cfg[f'{split}_dataloader'].dataset.pipeline


def check(cfg, split='train'):
    train = None if split == 'train' else cfg.train_dataloader.dataset
    labels = label_check(read_user_config(cfg))
    return check_data(cfg[f'{split}_dataloader'].dataset, labels, samples=4, train=train)


def stock(cfg, split='train', until=3):
    """Images and label maps as mmseg's own pipeline has them behind its first steps."""
    dataset = copy.deepcopy(cfg[f'{split}_dataloader'].dataset)
    dataset.pipeline = dataset.pipeline[:until]
    built = DATASETS.build(dataset)
    return [built[i] for i in range(len(built))]


def sources(dataset):
    """A derived data set, with the image and label map that nodes are drawn from."""
    built = DATASETS.build(derive_pipelines.with_pipeline(dataset, keep_source))
    return [built[i]['source'] for i in range(len(built))]


def keep_source(found):
    return [*found[:-1], dict(found[-1], keep_source=True)]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert np.array_equal(one['img'], other['img'])
        assert np.array_equal(one['seg_map'], other['gt_seg_map'])


@pytest.mark.parametrize('nodes', ['points', 'patches'])
def test_stage_one_sees_what_mmseg_feeds_the_network(cfg, nodes):
    steps(cfg).remove(CROP)
    cfg.mix_and_match.update(nodes=nodes, recipe='paper' if nodes == 'patches' else 'default')
    derived = derive_tuning_config(cfg).train_dataloader.dataset.dataset
    assert_same(sources(derived), stock(cfg))


def test_all_that_is_derived_of_training_data_keeps_the_step(cfg):
    check(cfg)
    cfg.mix_and_match.bn_crops = 4
    steps(cfg, 'val')[1] = dict(type='Resize', scale_factor=0.5)  # not done to it once more
    derived = derive_tuning_config(cfg)
    counts = take_census(cfg.train_dataloader.dataset, range).loaded
    assert sum(counts.values()) == 8 * 32 * 32
    assert_same(sources(derived.val_dataloader.dataset.gallery), stock(cfg))
    seen = survey(cfg, read_user_config(cfg), 3, 5, pictures=3)
    assert [image.picture.shape for image in seen.images] == [(24, 24, 3)] * 3
    (crops,) = (h for h in derived.custom_hooks if h['type'].endswith('.EstimateBatchNormHook'))
    drawn = DATASETS.build(crops['dataset']['dataset'])
    assert drawn[0]['inputs'].shape[-2:] == (24, 24)


def test_validation_with_labels_of_the_files_size_stays(cfg):
    """Resized with its labels, as without early moves in training."""
    cfg.val_dataloader.dataset.data_prefix.seg_map_path = 'ann/val'
    assert len(check(cfg, 'val')) == 4
    queries = sources(derive_tuning_config(cfg).val_dataloader.dataset.queries)
    steps(cfg)[:] = [LOAD, LABELS, CROP, PACK]
    ordinary = derive_tuning_config(cfg).val_dataloader.dataset.queries
    assert [step['type'].rsplit('.')[-1] for step in ordinary['pipeline']] == [
        'LoadImageFromFile', 'LoadAnnotations', 'CheckLabels', 'Resize', 'CutLargeImage',
        'SamplePoints', 'PackNodeInputs',
    ]  # fmt: skip
    for one, other in zip(queries, sources(ordinary)):
        assert one['img'].shape == (32, 32, 3)
        assert np.array_equal(one['img'], other['img'])
        assert np.array_equal(one['seg_map'], other['seg_map'])


def test_validation_with_labels_of_another_size_moves_the_image_alone(cfg):
    assert len(check(cfg, 'val')) == 4
    assert_same(
        sources(derive_tuning_config(cfg).val_dataloader.dataset.queries), stock(cfg, 'val')
    )
    steps(cfg, 'val').insert(3, dict(type='Resize', scale_factor=0.5))
    queries = sources(derive_tuning_config(cfg).val_dataloader.dataset.queries)
    assert_same(queries, stock(cfg, 'val', 4))


def test_only_early_moves_of_training_let_validation_differ(cfg):
    steps(cfg)[:] = [LOAD, LABELS, CROP, PACK]
    with mistake(re.compile(r'\.png$'), '32 x 32') as caught:
        check(cfg, 'val')
    assert '64 x 64' in str(caught.value)


def test_where_sizes_differ_behind_an_early_move_the_message_says_so(cfg):
    cfg.train_dataloader.dataset.data_prefix.seg_map_path = 'ann/train'
    with mistake(re.compile(r'\.png$'), '64 x 64') as moved:
        check(cfg)
    steps(cfg).remove(HALF)
    cfg.train_dataloader.dataset.data_prefix.seg_map_path = 'small/train'
    with mistake(re.compile(r'\.png$'), '32 x 32') as unmoved:
        check(cfg)
    both = [error.value for error in (moved, unmoved)]
    assert all('64 x 64' in str(error) and '32 x 32' in str(error) for error in both)
    told = [re.sub(r'\d+ x \d+', '', error.problem + error.remedy) for error in both]
    assert told[0] != told[1], 'only the first has something before the labels to be moved'


def test_random_moves_stay_and_are_told(cfg, caplog):
    """mmseg flips the image and leaves its labels; stage one sees the same, and it is said."""
    steps(cfg)[:] = [LOAD, HALF, FLIP, LABELS, PACK]
    (line,) = derive_pipelines.moving_warnings(cfg.train_dataloader.dataset, 'here')
    assert line.startswith('here: RandomFlip ')
    derived = derive_tuning_config(cfg).train_dataloader.dataset.dataset
    assert_same(sources(derived), stock(cfg, until=4))
    nested = dict(type='RandomApply', transforms=[dict(type='RandomRotate')], prob=0.5)
    steps(cfg)[:] = [LOAD, nested, LABELS, FLIP, PACK]
    assert 'RandomRotate' in derive_pipelines.moving_warnings(cfg.train_dataloader.dataset, '')[0]
    steps(cfg)[:] = [LOAD, HALF, LABELS, FLIP, PACK]
    assert derive_pipelines.moving_warnings(cfg.train_dataloader.dataset, '') == []


def types(found):
    return [step['type'].rsplit('.', 1)[-1] for step in found]


def early(*found):
    return types(
        derive_pipelines.early_moves([dict(type=f) if isinstance(f, str) else f for f in found])
    )


def test_where_labels_are_loaded():
    assert early('LoadImageFromFile', HALF, 'LoadAnnotations', 'Resize') == ['Resize']
    assert early('LoadImageFromFile', 'MyBands', HALF, 'ReadClasses', 'Pad') == ['Resize']
    assert early('LoadImageFromFile', HALF, dict(type=LoadAnnotations)) == ['Resize']
    assert early('LoadImageFromFile', 'MyBands', HALF, 'LoadMyMask', 'Pad') == ['Resize']
    assert early('LoadImageFromFile', HALF, 'MyReader', 'Pad', 'MyMapping') == ['Resize']
    assert early('LoadImageFromFile', 'Pad', HALF, 'mmseg.LoadAnnotations') == ['Pad', 'Resize']
    # one step loads both, or nothing says what loads labels: as ever
    assert early('LoadBoth', HALF, 'MyMapping', 'Pad') == []
    assert early('LoadImageFromFile', HALF, 'PackSegInputs') == []
    assert early('LoadImageFromFile', 'LoadAnnotations', HALF, 'MyMapping') == []


def test_what_colours_pixels_is_no_move():
    colour = dict(type='RandomApply', transforms=[dict(type='PhotoMetricDistortion')])
    turn = dict(type='RandomChoice', transforms=[[dict(type='PhotoMetricDistortion')], [HALF]])
    assert early('LoadImageFromFile', colour, turn, 'RandomCutOut', 'LoadAnnotations') == [
        'RandomChoice'
    ]


def test_augmentation_comes_behind_the_labels():
    early_crop = [LOAD, CROP, LABELS, FLIP, CROP, PACK]
    assert types(derive_pipelines.with_augmentation(early_crop, [HALF])) == [
        'LoadImageFromFile', 'RandomCrop', 'LoadAnnotations', 'RandomFlip', 'Resize', 'RandomCrop',
        'PackSegInputs',
    ]  # fmt: skip


def test_a_cached_pipeline_has_the_same_early_moves(cfg):
    cached = cache_loading(cfg)
    assert types(steps(cached))[:3] == ['Cached', 'Resize', 'LoadAnnotations']
    assert derive_pipelines.has_early_moves(cached.train_dataloader.dataset)
    assert len(check(cached)) == 8
    found = [
        fingerprint(derive_tuning_config(one), read_user_config(one).options, '')
        for one in (cfg, cached)
    ]
    assert found[0] == found[1]
    # the cache alone is left of what stands before a loader that nobody knows
    steps(cfg)[:] = [LOAD, HALF, dict(type='MyReader'), PACK]
    assert derive_pipelines.has_early_moves(cache_loading(cfg).train_dataloader.dataset)
    steps(cfg)[:] = [LOAD, LABELS, HALF, dict(type='MyMapping'), PACK]
    assert not derive_pipelines.has_early_moves(cache_loading(cfg).train_dataloader.dataset)


def test_fitting_hands_on_that_a_step_gives_nothing():
    fit = FitToLabels([])
    fit.steps = lambda results: None
    for side in (4, 8):
        sample = dict(img=np.zeros((8, 8, 3)), gt_seg_map=np.zeros((side, side)), seg_fields=[])
        assert fit.transform(sample) is None
