import json

import pytest
from mmengine.config import Config

from mm_tuning_plugin.benchmark import arms
from mm_tuning_plugin.benchmark.arms import ARMS, make_jobs, use_fold
from mm_tuning_plugin.benchmark.cost import matched_iterations
from mm_tuning_plugin.datasets.demo import METAINFO, write_demo_dataset
from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.errors import UserError


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'demo'
    start_of(folder).touch()
    return write_demo_dataset(folder, image_size=64, num_unlabelled=0, num_train=3, num_val=2)


def start_of(root):
    return root.parent / 'start.pth'


def loader(root, split):
    return {
        'batch_size': 2,
        'num_workers': 0,
        'sampler': {'type': 'InfiniteSampler', 'shuffle': True},
        'dataset': {
            'type': 'BaseSegDataset',
            'data_root': str(root),
            'data_prefix': {'img_path': f'img/{split}', 'seg_map_path': f'ann/{split}'},
            'metainfo': METAINFO,
            'pipeline': [
                {'type': 'LoadImageFromFile'},
                {'type': 'LoadAnnotations'},
                {'type': 'PackSegInputs'},
            ],
        },
    }


def base_config(root, **options):
    return Config(
        {
            'default_scope': 'mmseg',
            'model': {
                'type': 'EncoderDecoder',
                'data_preprocessor': {
                    'type': 'SegDataPreProcessor', 'mean': [127.0] * 3, 'std': [60.0] * 3,
                    'bgr_to_rgb': True, 'size': (64, 64),
                },
                'backbone': {
                    'type': 'ResNet', 'depth': 18, 'base_channels': 8, 'norm_cfg': {'type': 'BN'},
                },
                'decode_head': {
                    'type': 'FCNHead', 'in_channels': 64, 'in_index': 3, 'channels': 8,
                    'num_convs': 1, 'num_classes': len(METAINFO['classes']),
                },
            },
            'train_dataloader': loader(root, 'train'),
            'val_dataloader': loader(root, 'val'),
            'test_dataloader': loader(root, 'val'),
            'train_cfg': {'type': 'IterBasedTrainLoop', 'max_iters': 100, 'val_interval': 100},
            'optim_wrapper': {'type': 'OptimWrapper', 'optimizer': {'type': 'SGD', 'lr': 0.1}},
            'param_scheduler': [{'type': 'PolyLR', 'begin': 0, 'end': 100, 'by_epoch': False}],
            'default_hooks': {'checkpoint': {'type': 'CheckpointHook', 'interval': 100}},
            'mix_and_match': {
                'checkpoint': str(start_of(root)), 'lr': 0.5, 'images_per_batch': 2,
                'max_iters': 20, 'patch_size': 32, **options,
            },
        }
    )  # fmt: skip


# ---- arms


def test_every_arm_is_a_run_of_both_stages_from_the_same_start(root):
    base = base_config(root)
    text = base.pretty_text
    for name, arm in ARMS.items():
        cfg = arm(base)
        assert cfg['runner_type'] == 'mm_tuning_plugin.MixAndMatchRunner', name
        assert cfg['mix_and_match']['checkpoint'] == str(start_of(root))
        assert cfg['mix_and_match'].get('enabled', True) == (not name.startswith('direct'))
        for key in ('model', 'train_dataloader', 'val_dataloader', 'optim_wrapper'):
            assert cfg[key] == base[key]
        derive_tuning_config(cfg)  # every option exists
    assert base.pretty_text == text, 'the base is not changed'


@pytest.mark.parametrize('arm', ['tuned', 'paper'])
def test_a_base_without_tuning_is_tuned_all_the_same(root, arm):
    assert ARMS[arm](base_config(root, enabled=False))['mix_and_match']['enabled'] is True


def test_the_paper_arm_shares_budget_and_start_only(root):
    options = ARMS['paper'](base_config(root))['mix_and_match']
    assert options == {
        'recipe': 'paper', 'enabled': True, 'checkpoint': str(start_of(root)), 'max_iters': 20,
        'images_per_batch': 2, 'patch_size': 32,
    }  # fmt: skip


@pytest.mark.parametrize(('matched', 'to'), [('direct-matched', 'tuned'),
                                             ('direct-matched-paper', 'paper')])  # fmt: skip
def test_the_matched_baseline_costs_as_much_as_both_stages(root, matched, to):
    base = base_config(root)
    cfg = ARMS[matched](base)
    iterations = matched_iterations(derive_tuning_config(ARMS[to](base)), base)
    assert iterations > 100
    assert cfg.train_cfg.max_iters == cfg.train_cfg.val_interval == iterations
    assert cfg.param_scheduler[0].end == iterations
    assert cfg.default_hooks.checkpoint.interval == iterations


# ---- jobs


def test_jobs_come_seed_by_seed_with_configs_of_their_own(root):
    base = base_config(root)
    base.randomness = {'deterministic': True, 'seed': 77}
    jobs = make_jobs(base, ['direct', 'tuned'], [3, 4])
    assert [job.name for job in jobs] == [
        'direct-seed3', 'tuned-seed3', 'direct-seed4', 'tuned-seed4',
    ]  # fmt: skip
    assert [(job.arm, job.seed) for job in jobs[:2]] == [('direct', 3), ('tuned', 3)]
    assert [dict(job.cfg.randomness) for job in jobs[1:3]] == [
        {'deterministic': True, 'seed': 3},
        {'deterministic': True, 'seed': 4},
    ]
    jobs[0].cfg.train_cfg.max_iters = 1
    assert jobs[2].cfg.train_cfg.max_iters == 100


@pytest.mark.parametrize(
    ('names', 'seeds'), [(['direct', 'tuend'], [0]), ([], [0]), (['direct'], [])]
)
def test_unknown_arms_and_empty_plans_are_refused(root, names, seeds):
    with pytest.raises(UserError) as error:
        make_jobs(base_config(root), names, seeds)
    assert str(error.value) == (
        f'arms: {names} over seeds {seeds} found, expected some of {list(arms.ARMS)} '
        'and at least one seed'
    )


# ---- folds

NAMES = [f'{i:05d}' for i in range(20)]


@pytest.fixture
def folds(tmp_path):
    path = tmp_path / 'folds.json'
    path.write_text(
        json.dumps(
            [
                {'train': NAMES[:16], 'val': NAMES[16:]},
                {'train': NAMES[4:], 'val': NAMES[:4]},
                {'train': [], 'val': NAMES},
            ]
        ),
        encoding='utf-8',
    )
    return path


def apply(root, folds, folder, **options):
    """The names that each loader reads, and the config."""
    cfg = base_config(root)
    use_fold(cfg, {'file': str(folds), 'index': 0, **options}, folder)
    names = {}
    for split in ('train', 'val', 'test'):
        with open(cfg[f'{split}_dataloader'].dataset.ann_file, encoding='utf-8') as file:
            names[split] = file.read().splitlines()
    return names, cfg


def test_a_fold_divides_the_training_images(root, folds, tmp_path):
    names, cfg = apply(root, folds, tmp_path / 'splits', index=1)
    assert names == {'train': NAMES[4:], 'val': NAMES[:4], 'test': NAMES[:4]}
    for split in ('train', 'val', 'test'):
        prefix = cfg[f'{split}_dataloader'].dataset.data_prefix
        assert prefix == {'img_path': 'img/train', 'seg_map_path': 'ann/train'}


def test_smaller_shares_are_subsets_of_larger_ones(root, folds, tmp_path):
    fractions = (0.01, 0.25, 0.5, 0.75, 1, 1.0)
    kept = [apply(root, folds, tmp_path, fraction=f)[0]['train'] for f in fractions]
    assert [len(names) for names in kept] == [1, 4, 8, 12, 16, 16]
    assert all(set(small) <= set(large) for small, large in zip(kept, kept[1:]))
    assert all(names == sorted(names) for names in kept)
    assert apply(root, folds, tmp_path, fraction=0.25)[0] == {
        'train': kept[1], 'val': NAMES[16:], 'test': NAMES[16:],
    }  # fmt: skip
    other = apply(root, folds, tmp_path, fraction=0.25, subset_seed=1)[0]['train']
    assert len(other) == 4 and other != kept[1]


def test_another_fold_makes_another_config(root, folds, tmp_path):
    # in the same folder, so that a finished job of one is not taken for the other's
    texts = {
        apply(root, folds, tmp_path, **options)[1].pretty_text
        for options in (
            {},
            {},
            {'index': 1},
            {'fraction': 0.5},
            {'subset_seed': 5, 'fraction': 0.5},
        )
    }
    assert len(texts) == 4
    apply(root, folds, tmp_path)  # and the manifests of one outlive the other
    assert apply(root, folds, tmp_path, index=1)[0]['train'] == NAMES[4:]


def test_mmseg_reads_the_manifests(root, tmp_path):
    from mmseg.datasets import BaseSegDataset

    path = tmp_path / 'folds.json'
    path.write_text(json.dumps([{'train': ['00002', '00000'], 'val': ['00001']}]), encoding='utf-8')
    cfg = apply(root, path, tmp_path)[1]
    for split, expected in (('train', ['00000', '00002']), ('val', ['00001'])):
        options = dict(cfg[f'{split}_dataloader'].dataset)
        options.pop('type')
        data = BaseSegDataset(**{**options, 'pipeline': []})
        read = [data.get_data_info(i)['seg_map_path'] for i in range(len(data))]
        assert [path.rsplit('/ann/train/')[-1] for path in read] == [f'{n}.png' for n in expected]


@pytest.mark.parametrize(
    ('fold', 'message'),
    [
        ({'index': 3}, r'folds.json: IndexError: .*, expected a JSON list of folds with "train" '
                       'and "val", at least 4 of them'),
        ({'file': 'nowhere.json'}, '^nowhere.json: FileNotFoundError: .* expected a JSON list'),
        ({'index': 2}, 'folds.json: fold 2 is empty'),
        ({'index': -1}, r"^fold: .*-1.* found, expected a `file` and an `index` from 0$"),
        ({'index': None}, '^fold: .*None.* found, expected a `file` and an `index` from 0$'),
        ({'fraction': 0}, '^fold.fraction: 0 found, expected a number above 0, up to 1$'),
        ({'fraction': 25}, '^fold.fraction: 25 found, '),
        ({'fraction': '0.5'}, "^fold.fraction: '0.5' found, "),
    ],
)  # fmt: skip
def test_a_wrong_fold_is_one_line(root, folds, tmp_path, fold, message):
    with pytest.raises(UserError, match=message):
        apply(root, folds, tmp_path, **fold)


@pytest.mark.parametrize('text', ['', '{"a": 1}', '[1]', '[{"train": []}]', '[{"train": 5}]'])
def test_a_file_that_is_no_list_of_folds(root, tmp_path, text):
    path = tmp_path / 'folds.json'
    path.write_text(text, encoding='utf-8')
    with pytest.raises(UserError, match=r'folds\.json: .* expected a JSON list of folds') as error:
        apply(root, path, tmp_path)
    assert '\n' not in str(error.value)


def test_a_fold_without_a_file(root, tmp_path):
    with pytest.raises(UserError, match='expected a `file`'):
        use_fold(base_config(root), {'index': 0}, tmp_path)
