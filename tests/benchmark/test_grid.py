"""From plan to jobs: who shares what, and what arms of a pair have in common."""

import json
from pathlib import Path

import pytest
import torch
from mistakes import mistake

from mm_tuning_plugin.benchmark.design import cost, step_builder
from mm_tuning_plugin.benchmark.design.cost import StepCost
from mm_tuning_plugin.benchmark.design.grid import build_jobs
from mm_tuning_plugin.benchmark.settings import STEP_OPTIONS
from mm_tuning_plugin.benchmark.steps import distinct_steps
from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.errors import UserError

ARMS = ['direct', 'direct-matched', 'direct-2x', 'direct-twice', 'ce-tuned', 'tuned', 'paper']


@pytest.fixture
def flops(monkeypatch):
    """Fixed costs: a step of fine-tuning 8, of tuning 12, of the paper's 40, of a proxy 2."""

    def measured(cfg, device='cpu'):
        kind = cfg['model']['type'].rsplit('.', 1)[-1]
        if kind != 'MixAndMatchTuner':
            return StepCost({'EncoderDecoder': 8}.get(kind, 2), 0.5)
        patches = 'Pooled' in cfg['model']['embedding']['type']
        return StepCost(40 if patches else 12, 0.25)

    monkeypatch.setattr(cost, 'measure_step', measured)


def jobs_of(plan, tmp_path, name='bench'):
    return build_jobs(plan, tmp_path / name, tmp_path / name / 'cache')


def by_arm(jobs):
    return {job.arm: job for job in jobs}


def test_arms_at_equal_flops(flops, toy_plan, tmp_path):
    jobs = by_arm(jobs_of(toy_plan(arms=[*ARMS, 'direct-matched:paper']), tmp_path))
    last = {arm: job.steps[-1] for arm, job in jobs.items()}
    # 4 iterations of tuning at 12, 4 of fine-tuning at 8: tuning is worth 6 of fine-tuning
    iterations = {arm: step.iterations for arm, step in last.items()}
    assert iterations == {
        'direct': 4, 'direct-matched': 10, 'direct-2x': 8, 'direct-twice': 4, 'ce-tuned': 4,
        'tuned': 4, 'paper': 4, 'direct-matched:paper': 24,
    }  # fmt: skip
    total = {arm: sum(step.flops for step in job.steps) for arm, job in jobs.items()}
    assert total['direct-matched'] == total['direct-twice'] == total['tuned'] == 80
    assert total['direct-matched:paper'] == total['paper'] == 192
    assert [step.kind for step in jobs['direct-twice'].steps] == ['first_pass', 'fine_tuning']
    assert jobs['direct-twice'].steps[0].iterations == 6
    assert sum(step.seconds for step in jobs['tuned'].steps) == 4 * 0.25 + 4 * 0.5


def test_schedules_are_stretched_as_a_whole(flops, toy_plan, tmp_path):
    schedule = [
        dict(type='LinearLR', start_factor=0.1, begin=0, end=2, by_epoch=False),
        dict(type='MultiStepLR', milestones=[2, 3], begin=2, end=4, by_epoch=False),
    ]
    plan = toy_plan(arms=ARMS, cfg=dict(param_scheduler=schedule))
    for job in jobs_of(plan, tmp_path):
        for step in job.steps:
            if step.kind == 'tuning':
                continue
            factor = step.iterations / 4
            warm, steps = step.cfg.param_scheduler
            assert (warm.end, steps.begin, steps.end) == (2 * factor, 2 * factor, 4 * factor)
            assert list(steps.milestones) == [round(2 * factor), round(3 * factor)]
            assert step.cfg.train_cfg.max_iters == step.iterations
            assert step.cfg.train_cfg.val_interval == step.iterations


def test_a_pair_shares_images_seed_and_start(flops, toy_plan, tmp_path):
    jobs = jobs_of(toy_plan(arms=ARMS, seeds=[3, 4]), tmp_path)
    for seed in (3, 4):
        jobs_of_seed = [job for job in jobs if job.seed == seed]
        steps = [step for job in jobs_of_seed for step in job.steps]
        lists = {step.cfg.train_dataloader.dataset.ann_file for step in steps}
        assert len(lists) == 1
        assert {step.cfg.randomness.seed for step in steps} == {seed}
        # what comes first begins from the start, whatever the arm; what follows, from its product
        firsts = {job.steps[0].cfg.mix_and_match.get('checkpoint') for job in jobs_of_seed}
        assert len(firsts) == 1 and None not in firsts
        for job in jobs_of_seed:
            for step, before in zip(job.steps[1:], job.steps):
                options = dict(tuned_backbone=str(before.product))
                assert step.cfg.mix_and_match.to_dict() == options and not step.cfg.load_from
    first, second = (job for job in jobs if job.arm == 'direct')
    for key in ('ann_file',):
        one, other = (j.steps[0].cfg.train_dataloader.dataset[key] for j in (first, second))
        assert one != other, 'another seed draws other images'
    one, other = (j.steps[0].cfg.mix_and_match.checkpoint for j in (first, second))
    assert one != other, 'and another random start'


def test_a_first_pass_only_trains(flops, toy_plan, tmp_path):
    first, last = jobs_of(toy_plan(arms=['direct-twice']), tmp_path)[0].steps
    for part in ('dataloader', 'cfg', 'evaluator'):
        assert first.cfg[f'val_{part}'] is first.cfg[f'test_{part}'] is None
        assert last.cfg[f'val_{part}']


def test_recipes_keep_to_their_options(flops, toy_plan, tmp_path):
    recipes = {'tuned': {'temperature': 0.5}, 'paper': {'recipe': 'paper', 'patch_size': 32}}
    plan = toy_plan(
        arms=['tuned', 'ce-tuned', 'paper'],
        recipes=recipes,
        cfg={'mix_and_match.lr': 0.5, 'mix_and_match.checkpoint': 'nowhere.pth'},
    )
    options = {
        job.arm: dict(job.steps[0].cfg.mix_and_match) for job in jobs_of(plan, tmp_path)
    }  # fmt: skip
    assert options['tuned']['temperature'] == 0.5 and options['tuned']['lr'] == 0.5
    assert options['ce-tuned'] == {**options['tuned'], 'loss': 'cross_entropy'}
    assert 'lr' not in options['paper'], 'what was set for another recipe is not for the paper'
    assert options['paper']['max_iters'] == 4 and options['paper']['patch_size'] == 32
    for arm in options:
        assert options[arm]['checkpoint'].endswith('backbone.pth')


def test_direct_augmented_needs_augmentation_of_stage_one(flops, toy_plan, tmp_path):
    plan = toy_plan(arms=['direct-augmented', 'direct-matched'])
    with mistake('arms', ('direct-augmented', 'mix_and_match.augment')):
        jobs_of(plan, tmp_path)
    cfg = {'mix_and_match.augment': [dict(type='Resize', scale_factor=0.5)]}
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    cfg['train_dataloader.dataset.pipeline'] = [*pipeline, dict(type='PackSegInputs')]
    with mistake('arms', ('direct-augmented', 'mix_and_match.augment'), 'crops'):
        jobs_of(toy_plan(arms=['direct-augmented'], cfg=cfg), tmp_path)


def test_direct_augmented_sees_what_tuning_sees(flops, toy_plan, tmp_path):
    extra = dict(type='PhotoMetricDistortion', hue_delta=9)
    recipes = {'tuned': {}, 'bright': {'augment': [extra]}}
    arms = ['direct-augmented:bright', 'direct-matched:bright', 'bright', 'direct']
    augmented, matched, bright, direct = jobs_of(toy_plan(arms=arms, recipes=recipes), tmp_path)
    last = [job.steps[-1].cfg.train_dataloader.dataset.pipeline for job in (augmented, matched)]
    bright.steps[0].cfg.mix_and_match.checkpoint = None  # the start is not made yet
    tuned = derive_tuning_config(bright.steps[0].cfg).train_dataloader.dataset.dataset.pipeline
    kinds = [[step.type.rsplit('.')[-1] for step in steps] for steps in (*last, tuned)]
    load, crop = ['Cached', 'PhotoMetricDistortion'], ['RandomCrop', 'RandomFlip']
    assert kinds[0] == [*load, *crop, 'PackSegInputs']
    assert kinds[1] == [load[0], *crop, 'PackSegInputs']
    assert kinds[2] == ['Cached', 'CheckLabels', load[1], *crop, 'SamplePoints', 'PackNodeInputs']
    assert last[0][1] == tuned[2] == extra
    assert augmented.steps[-1].cfg.train_cfg == matched.steps[-1].cfg.train_cfg
    assert augmented.steps[-1].flops == sum(step.flops for step in bright.steps)
    for job in (matched, bright, direct):
        assert 'hue_delta' not in job.steps[-1].cfg.train_dataloader.dataset.pipeline.__repr__()


# ---- what is shared


def folders(jobs, kind):
    return sorted({s.folder.name for job in jobs for s in job.steps if s.kind == kind})


def test_a_backbone_is_tuned_once(flops, toy_plan, tmp_path):
    longer = {'train_cfg.max_iters': 8}
    one = jobs_of(toy_plan(), tmp_path)
    other = jobs_of(toy_plan(cfg_options=longer), tmp_path)
    assert folders(one, 'tuning') == folders(other, 'tuning'), 'fine-tuning does not matter to it'
    assert not set(folders(one, 'fine_tuning')) & set(folders(other, 'fine_tuning'))
    elsewhere = jobs_of(toy_plan(), tmp_path, 'elsewhere')
    assert folders(one, 'tuning') == folders(elsewhere, 'tuning'), 'nor does its place'
    assert folders(one, 'fine_tuning') == folders(elsewhere, 'fine_tuning')


def test_other_code_makes_shared_weights_anew_and_keeps_jobs_without_them(
    flops, toy_plan, proxy, tmp_path, monkeypatch
):
    plan = toy_plan(arms=ARMS, starts={'random': None, 'colours': dict(proxy=proxy)})
    one = jobs_of(plan, tmp_path)
    for module in (step_builder, cost):
        monkeypatch.setattr(module, 'code_digest', lambda: 'other')
    other = jobs_of(plan, tmp_path)
    for kind in ('tuning', 'first_pass', 'proxy'):
        assert folders(one, kind) and not set(folders(one, kind)) & set(folders(other, kind))
    kept = {a.name for a, b in zip(one, other) if a.steps[-1].folder == b.steps[-1].folder}
    arms = ('direct', 'direct-matched', 'direct-2x')
    assert kept == {f'toy-random-{arm}-0.5-fold0-seed0' for arm in arms}
    assert len(list((tmp_path / 'bench' / 'cache' / 'costs').iterdir())) == 2 * 5


def test_keeping_checkpoints_and_caching_images_change_no_result(flops, toy_plan, tmp_path):
    one = jobs_of(toy_plan(), tmp_path)
    other = jobs_of(toy_plan(keep_checkpoints=True, cache_images=False), tmp_path)
    assert [s.product for s in distinct_steps(one)] == [s.product for s in distinct_steps(other)]


@pytest.mark.parametrize(
    'change',
    [
        dict(seeds=[1]),
        dict(fractions=[0.25]),
        dict(recipes={'tuned': {'temperature': 0.3}}),
        dict(cfg_options={'model.backbone.depth': 34}),
        dict(cfg_options={'train_dataloader.dataset.data_prefix.seg_map_path': 'ann/val'}),
        dict(recall=dict(images=3)),
    ],
    ids=lambda change: next(iter(change.values())).__repr__(),
)
def test_what_changes_tuned_weights_changes_their_folder(flops, toy_plan, tmp_path, change):
    try:
        changed = folders(jobs_of(toy_plan(**change), tmp_path), 'tuning')
    except UserError:
        pytest.fail('the change should be a plan that works')
    assert folders(jobs_of(toy_plan(), tmp_path), 'tuning') != changed


def test_a_start_counts_by_its_content(flops, toy_plan, tmp_path):
    first, second, third = (tmp_path / name for name in ('a.pth', 'b.pth', 'c.pth'))
    for path, value in ((first, 1.0), (second, 1.0), (third, 2.0)):
        path.write_bytes(json.dumps(value).encode())
    tuned = [
        folders(jobs_of(toy_plan(starts={'file': str(path)}), tmp_path), 'tuning')
        for path in (first, second, third)
    ]
    assert tuned[0] == tuned[1] != tuned[2]


# ---- proxies and folds


@pytest.fixture
def folds(demo_root, tmp_path):
    names = sorted(path.stem for path in (Path(demo_root) / 'img' / 'train').iterdir())
    path = tmp_path / 'folds.json'
    path.write_text(
        json.dumps([{'train': names[:6], 'val': names[6:]}, {'train': names[2:], 'val': names[:2]}])
    )
    return {'file': str(path), 'names': names}


def test_one_proxy_a_fold_whatever_the_jobs(flops, toy_plan, proxy, folds, tmp_path):
    plan = toy_plan(
        starts={'random': None, 'colours': dict(proxy=proxy, cfg_options={'optim_wrapper.x': 1})},
        folds={'file': folds['file']},
        fractions=[0.5, 1],
        seeds=[0, 1],
    )
    jobs = jobs_of(plan, tmp_path)
    assert len(jobs) == 2 * 2 * 2 * 2 * 2
    proxies = [s for s in distinct_steps(jobs) if s.kind == 'proxy']
    assert len(proxies) == 2, 'one a fold'
    for step, names in zip(proxies, (folds['names'][:6], folds['names'][2:])):
        read = Path(step.cfg.train_dataloader.dataset.ann_file).read_text().splitlines()
        assert read == names, 'all training images of the fold'
        assert step.cfg.randomness.seed == 0 and step.cfg.optim_wrapper.x == 1
        assert step.flops == 2 * 2
    of_colours = [job for job in jobs if job.start == 'colours']
    for job in of_colours:
        assert job.steps[0] in proxies
        assert job.steps[1].needs == (job.steps[0].product,)
    other = toy_plan(
        starts={'colours': dict(proxy=proxy, cfg_options={'optim_wrapper.x': 1}, seed=5)},
        folds={'file': folds['file'], 'indices': [1]},
    )
    again = [s for s in distinct_steps(jobs_of(other, tmp_path)) if s.kind == 'proxy']
    assert len(again) == 1 and again[0].product not in {s.product for s in proxies}


def test_a_fold_divides_the_training_images(flops, toy_plan, folds, tmp_path):
    plan = toy_plan(folds={'file': folds['file'], 'indices': [1]}, fractions=[1], arms=['direct'])
    (job,) = jobs_of(plan, tmp_path)
    cfg = job.steps[0].cfg

    def names(dataset):
        return Path(dataset.ann_file).read_text().splitlines()

    assert names(cfg.train_dataloader.dataset) == folds['names'][2:]
    assert names(cfg.val_dataloader.dataset) == folds['names'][:2]
    assert names(cfg[STEP_OPTIONS].gallery) == folds['names'][2:]
    prefix = {'img_path': 'img/train', 'seg_map_path': 'ann/train'}
    assert cfg.val_dataloader.dataset.data_prefix == prefix
    assert job.fold == 1 and cfg[STEP_OPTIONS].images == 6


def test_a_start_that_a_backbone_lacks_is_left_out(flops, toy_plan, proxy, tmp_path):
    plan = toy_plan()
    configs = {'one': plan.configs['toy'], 'two': plan.configs['toy']}
    jobs = jobs_of(
        toy_plan(configs=configs, starts={'random': None, 'colours': dict(proxy={'two': proxy})}),
        tmp_path,
    )
    assert {(job.backbone, job.start) for job in jobs} == {
        ('one', 'random'), ('two', 'random'), ('two', 'colours'),
    }  # fmt: skip


def test_pretrained_weights_of_the_config_are_no_random_start(flops, toy_plan, tmp_path):
    plan = toy_plan(cfg={'model.backbone.init_cfg': dict(type='Pretrained', checkpoint='x.pth')})
    for job in jobs_of(plan, tmp_path):
        for step in job.steps:
            assert 'init_cfg' not in step.cfg.model.backbone


@pytest.mark.parametrize(
    ('change', 'where', 'problem', 'remedy'),
    [
        ({'train_cfg': dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=2)},
         'train_cfg', "'max_epochs': 2", 'max_iters'),
        ({'val_evaluator.type': 'mmseg.CityscapesMetric'},
         'val_evaluator', 'CityscapesMetric', 'IoUMetric'),
        ({'train_dataloader.dataset.data_root': 'nowhere'},
         'dataset', ('BaseSegDataset', "'nowhere'", 'FileNotFoundError'), ''),
    ],
)  # fmt: skip
def test_configs_that_cannot_be_compared(flops, toy_plan, tmp_path, change, where, problem, remedy):
    with mistake(where, problem, remedy):
        jobs_of(toy_plan(cfg=change), tmp_path)


def test_options_that_lead_nowhere(flops, toy_plan, tmp_path):
    with mistake('cfg_options', "{'log_level.x.y': 3}"):
        jobs_of(toy_plan(cfg_options={'log_level.x.y': 3}), tmp_path)


def test_costs_are_measured_once_and_kept(toy_plan, tmp_path, monkeypatch):
    counted = []

    def measured(cfg, device='cpu'):
        counted.append(cfg['model']['type'])
        return StepCost(10, 0.1)

    monkeypatch.setattr(cost, 'measure_step', measured)
    plan = toy_plan(arms=ARMS, seeds=[0, 1], fractions=[0.25, 1])
    jobs_of(plan, tmp_path)
    assert sorted(counted) == ['EncoderDecoder', *['mm_tuning_plugin.MixAndMatchTuner'] * 3]
    jobs_of(plan, tmp_path)
    assert len(counted) == 4, 'read from the disk'
    assert torch.get_num_threads() == 1


def test_what_only_fine_tuning_meets_is_told_before_anything_is_measured(
    toy_plan, tmp_path, monkeypatch
):
    from mm_tuning_plugin.benchmark.design.cost import CostBook

    monkeypatch.setattr(CostBook, 'of', lambda self, cfg: 1 / 0)
    plan = toy_plan(arms=['direct'], seeds=[0], cfg_options={'model.decode_head.in_channels': 65})
    with mistake('configs.toy', ('model.decode_head', 'in_channels=65')):
        jobs_of(plan, tmp_path)
