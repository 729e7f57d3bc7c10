"""Running the steps of a small grid: what they leave behind, and what pairs have in common."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mistakes import mistake
from mmengine.config import Config
from new_style import write_new_style

from mm_tuning_plugin.benchmark.analysis.collect import Collector
from mm_tuning_plugin.benchmark.code import code_digest
from mm_tuning_plugin.benchmark.design import cost
from mm_tuning_plugin.benchmark.design.grid import build_jobs
from mm_tuning_plugin.benchmark.report.outlook import outlook
from mm_tuning_plugin.benchmark.run.pool import run_steps
from mm_tuning_plugin.benchmark.settings import STEP_OPTIONS
from mm_tuning_plugin.benchmark.steps import distinct_steps, prepare, read_step
from mm_tuning_plugin.benchmark.worker import step_kinds
from mm_tuning_plugin.benchmark.worker.observe_hook import OBSERVED, START
from mm_tuning_plugin.benchmark.worker.step_kinds import run_step, write_random_start
from mm_tuning_plugin.checkpoint import hash_file, hash_state_dict, save_backbone
from mm_tuning_plugin.checkpoint.io.read import read_content
from mm_tuning_plugin.cli.benchmark import run_plan


@pytest.fixture(scope='module', autouse=True)
def _costs_measured_once():
    """What a step costs is measured once for all tests, as a cache does that plans share."""
    with pytest.MonkeyPatch.context() as patch:
        plain, known = cost.measure_step, {}

        def measure_once(cfg, device='cpu'):
            key = repr((cfg['model'], cfg['train_dataloader'], device))
            if key not in known:
                known[key] = plain(cfg, device)
            return known[key]

        patch.setattr(cost, 'measure_step', measure_once)
        yield


def build(plan, tmp_path, name='bench', cache='cache'):
    return build_jobs(plan, tmp_path / name, tmp_path / cache)


def table(work_dir):
    with open(work_dir / 'results.csv', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def test_a_small_grid_end_to_end(toy_plan, here, tmp_path):
    plan = toy_plan(arms=['direct', 'direct-twice', 'tuned'], cfg={'mix_and_match.max_iters': 2})
    work_dir, executor = tmp_path / 'bench', here()
    jobs = build(plan, tmp_path)
    rows = run_plan(plan, jobs, work_dir, ['the', 'command'], executor)
    assert [row['status'] for row in rows] == ['done'] * 3
    kinds = sorted(step.kind for step in executor.started)
    assert kinds == ['fine_tuning', 'fine_tuning', 'fine_tuning', 'first_pass', 'tuning']

    direct, twice, tuned = table(work_dir)
    assert direct['job'] == 'toy-random-direct-0.5-fold0-seed0' and direct['images'] == '4'
    assert direct['tuning_iters'] == '0' and tuned['tuning_iters'] == '2'
    # one start, one protocol: the same figure for every arm of the pair
    assert direct['recall_start'] == twice['recall_start'] == tuned['recall_start'] != ''
    assert direct['recall'] == direct['recall_start'] and tuned['recall_fine_tuned'] != ''
    assert float(twice['flops']) >= float(tuned['flops']) > float(direct['flops'])
    assert float(tuned['seconds']) == pytest.approx(
        float(tuned['tuning_seconds']) + float(tuned['fine_tuning_seconds'])
    )
    for row in (direct, twice, tuned):
        assert row['code'] == code_digest()
        assert float(row['peak_memory_mib']) > 50 and row['torch'] == torch.__version__
        with np.load(work_dir / 'areas' / f'{row["job"]}.npz') as areas:
            assert areas['names'].tolist() == [f'{i:05d}' for i in range(4)]
            intersect, union = areas['intersect'].sum(0), areas['union'].sum(0)
            iou = 100 * intersect / np.maximum(union, 1)
            for name, value, seen in zip(areas['classes'], iou, union):
                assert row[f'IoU.{name}'] == '' if not seen else True
                assert not seen or float(row[f'IoU.{name}']) == pytest.approx(value, abs=1e-5)
            assert float(row['mIoU']) == pytest.approx(iou[union > 0].mean(), abs=1e-5)
    written = json.loads((work_dir / 'plan.json').read_text(encoding='utf-8'))
    assert written['command'] == ['the', 'command'] and written['block_size'] == 20
    check_leftovers(jobs)

    again = here()
    run_plan(plan, jobs, work_dir, [], again)
    assert not again.started, 'all of it is finished'
    check_without_weights(plan, jobs, work_dir, here)
    check_sharing(toy_plan, here, tmp_path, jobs)


def test_a_step_of_a_config_of_classes(toy_plan, here, tmp_path, monkeypatch):
    """It is written with paths of the classes, read in a process of its own, and run."""
    monkeypatch.setattr(cost, 'measure_step', lambda *_: cost.StepCost(1, 1.0))
    plan = toy_plan(arms=['tuned'], cfg={'mix_and_match.max_iters': 1}, recall=dict(images=0))
    path = Path(plan.configs['toy'])
    write_new_style(Config.fromfile(path), path)
    jobs = build(plan, tmp_path)
    run_plan(plan, jobs, tmp_path / 'bench', [], here({'fine_tuning': 0}))
    tuning, fine_tuning = jobs[0].steps
    assert read_content(tuning.product)['meta']['iterations'] == 1
    for step in (tuning, fine_tuning):
        written = read_step(step.folder).cfg
        assert written.to_dict() == step.cfg.to_dict()
        assert written.model.backbone.type == 'mmseg.models.backbones.resnet.ResNet'


def check_without_weights(plan, jobs, work_dir, here):
    """Weights that only finished jobs needed may go; their rows stay whole."""
    rows = (work_dir / 'results.csv').read_text(encoding='utf-8')
    aside = [(s.product, s.product.with_suffix('.aside')) for s in jobs[-1].steps[:-1]]
    for product, kept in aside:
        product.rename(kept)
    executor = here()
    run_plan(plan, jobs, work_dir, [], executor)
    assert aside and not executor.started and ', 0 to do' in outlook(jobs, 1)
    assert (work_dir / 'results.csv').read_text(encoding='utf-8') == rows
    for product, kept in aside:
        kept.rename(product)


def check_leftovers(jobs):
    """No checkpoint stays but the products; the record tells what was made."""
    for step in distinct_steps(jobs):
        files = {path.name for path in step.folder.rglob('*.pth')}
        assert files == ({step.product.name} if step.product.suffix == '.pth' else set())
        record = json.loads((step.folder / 'record.json').read_text(encoding='utf-8'))
        assert record['kind'] == step.kind and record['iterations'] == step.iterations
        assert record['flops'] == step.flops > 0 and record['seconds'] > 0
        assert record['code'] == code_digest()
    tuned = read_content(jobs[-1].steps[0].product)
    assert tuned['meta']['iterations'] == 2 and 'conv1.weight' in tuned['state_dict']


def check_sharing(toy_plan, here, tmp_path, jobs):
    """Another benchmark with the same cache tunes nothing anew."""
    plan = toy_plan(
        arms=['tuned'], cfg={'mix_and_match.max_iters': 2}, cfg_options={'train_cfg.max_iters': 2}
    )
    executor = here()
    others = build(plan, tmp_path, 'other')
    assert others[0].steps[0].product == jobs[-1].steps[0].product
    run_plan(plan, others, tmp_path / 'other', [], executor)
    assert [step.kind for step in executor.started] == ['fine_tuning']


class Seen(Exception):
    """The first batch of a fine-tuning was seen."""


def first_step_of_fine_tuning(step, monkeypatch):
    """(first batch, weights of the head, weights of the backbone) as fine-tuning begins."""
    from mmseg.models import EncoderDecoder

    caught = {}

    def train_step(self, data, optim_wrapper):
        caught['batch'] = [x.clone() for x in data['inputs']]
        caught['names'] = [s.img_path for s in data['data_samples']]
        caught['head'] = {k: v.clone() for k, v in self.decode_head.state_dict().items()}
        caught['backbone'] = {k: v.clone() for k, v in self.backbone.state_dict().items()}
        raise Seen

    prepare(step)
    with monkeypatch.context() as patch:
        patch.setattr(EncoderDecoder, 'train_step', train_step)
        with pytest.raises(Seen):
            run_step(step.folder)
    return caught


def test_a_pair_begins_with_the_same_head_data_and_start(toy_plan, tmp_path, monkeypatch):
    jobs = build(toy_plan(arms=['direct', 'tuned', 'direct-twice'], seeds=[5]), tmp_path)
    direct, tuned, twice = ([*job.steps] for job in jobs)
    for before in (tuned[0], twice[0]):
        prepare(before)
        run_step(before.folder)
    begun = [first_step_of_fine_tuning(s[-1], monkeypatch) for s in (direct, tuned, twice)]
    for other in begun[1:]:
        assert other['names'] == begun[0]['names']
        assert all(torch.equal(a, b) for a, b in zip(begun[0]['batch'], other['batch']))
        for name, value in begun[0]['head'].items():
            assert torch.equal(value, other['head'][name]), name
        assert not torch.equal(
            begun[0]['backbone']['conv1.weight'], other['backbone']['conv1.weight']
        ), 'the backbone is what the arms differ in'
    start = read_content(Path(direct[0].cfg.mix_and_match.checkpoint))['state_dict']
    for name, value in begun[0]['backbone'].items():
        assert torch.equal(value, start[name]), name


def test_a_random_start_is_drawn_by_its_seed(toy_plan, tmp_path):
    jobs = build(toy_plan(arms=['direct'], seeds=[5, 6]), tmp_path)
    cfgs = [job.steps[0].cfg for job in jobs]
    written = []
    for name, cfg in (('a', cfgs[0]), ('b', cfgs[1]), ('c', cfgs[0])):
        torch.rand(7)  # whatever was drawn before
        write_random_start(cfg, tmp_path / name)
        written.append(hash_state_dict(read_content(tmp_path / name)['state_dict']))
    assert written[0] == written[2] != written[1]
    before = hash_file(tmp_path / 'a')
    write_random_start(cfgs[1], tmp_path / 'a')
    assert hash_file(tmp_path / 'a') == before, 'what is there is kept'


def test_the_start_and_what_was_made_are_measured_alike(toy_plan, tmp_path, monkeypatch):
    step = build(toy_plan(arms=['direct']), tmp_path)[0].steps[0]
    prepare(step)
    (step.folder / OBSERVED).write_text('{}')
    save_backbone(step.folder / START, {'w': torch.ones(1)}, {})
    asked = []
    monkeypatch.setattr(step_kinds, 'measure_recall', lambda *ask: asked.append(ask) or len(asked))
    record = step_kinds._record(step, step_kinds.Made(step.product, {'w': torch.zeros(1)}, {}))
    assert (record['recall'], record['recall_start']) == (1, 2)
    (*made, weights), (*start, weights_of_start) = asked
    assert made == start and made[1:] == [
        step.cfg[STEP_OPTIONS][name] for name in ('gallery', 'queries', 'recall')
    ]
    assert (weights['w'].item(), weights_of_start['w'].item()) == (0, 1)


def test_a_proxy_is_a_start(toy_plan, proxy, here, tmp_path):
    plan = toy_plan(arms=['direct'], starts={'colours': dict(proxy=proxy)})
    jobs = build(plan, tmp_path)
    rows = run_plan(plan, jobs, tmp_path / 'bench', [], here())
    made = jobs[0].steps[0]
    assert rows[0]['status'] == 'done' and rows[0]['proxy_flops'] == made.flops > 0
    assert rows[0]['flops'] == jobs[0].steps[1].flops, 'all but the proxy'
    content = read_content(made.product)
    assert 'layer4.1.conv2.weight' in content['state_dict'], 'the backbone, by its own names'
    assert content['meta']['hash_after'] == hash_state_dict(content['state_dict'])
    assert made.cfg.randomness.seed == 0 and made.cfg[STEP_OPTIONS].images == 8


def test_a_killed_step_goes_on_to_the_same_result(toy_plan, tmp_path):
    """SIGKILL between two checkpoints; the areas and the weights are those of an unbroken run."""
    options = dict(arms=['direct'], keep_checkpoints=True, cfg_options={'train_cfg.max_iters': 8})
    whole, broken = (build(toy_plan(**options), tmp_path, name)[0].steps[0] for name in 'ab')
    for step in (whole, broken):
        prepare(step)
    kill_behind_iteration(broken.folder, 5)
    assert not broken.product.exists() and (broken.folder / 'run' / 'iter_4.pth').is_file()
    run_step(broken.folder)
    run_step(whole.folder)
    assert 'resumed epoch' in log_of(broken.folder) and 'resumed epoch' not in log_of(whole.folder)
    with np.load(whole.product) as one, np.load(broken.product) as other:
        assert all(np.array_equal(one[name], other[name]) for name in one.files)
    one, other = (read_content(s.folder / 'run' / 'iter_8.pth') for s in (whole, broken))
    for name, value in one['state_dict'].items():
        assert torch.equal(value, other['state_dict'][name]), name
    assert hash_file(whole.folder / 'step.json') != hash_file(broken.folder / 'step.json')


def kill_behind_iteration(folder, iteration):
    """Run a step in a forked process that kills itself."""
    import os
    import signal

    child = os.fork()
    if child == 0:
        from mmengine.hooks import LoggerHook

        def after_train_iter(self, runner, *args, **kwargs):
            if runner.iter + 1 == iteration:
                os.kill(os.getpid(), signal.SIGKILL)

        LoggerHook.after_train_iter = after_train_iter
        run_step(folder)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def log_of(folder):
    return ''.join(path.read_text() for path in (Path(folder) / 'run').glob('*/*.log'))


# ---- failures


def test_a_failure_is_a_row_and_the_rest_goes_on(toy_plan, here, tmp_path):
    plan = toy_plan(arms=['tuned', 'direct'])
    jobs = build(plan, tmp_path)
    collector = Collector(jobs, tmp_path)
    assert [row['status'] for row in collector.write()] == ['missing', 'missing']
    rows = run_plan(plan, jobs, tmp_path / 'bench', [], here({'tuning': 2}))
    assert [row['status'] for row in rows] == ['failed', 'done']
    assert 'ended with 2' in rows[0]['error'] and rows[0]['mIoU'] is None
    assert rows[1]['mIoU'] is not None


def test_a_step_without_what_it_needs(toy_plan, tmp_path):
    job = build(toy_plan(arms=['tuned']), tmp_path)[0]
    prepare(job.steps[-1])
    last = job.steps[-1]
    with mistake(re.compile(r'tuned_backbone\.pth$'), last.name):
        run_step(last.folder)


def test_a_folder_that_was_not_prepared(tmp_path):
    with mistake(str(tmp_path), 'FileNotFoundError', 'tools/benchmark.py'):
        run_step(tmp_path)
    (tmp_path / 'step.json').write_text('{')
    with mistake(str(tmp_path), 'JSONDecodeError', 'tools/benchmark.py'):
        run_step(tmp_path)


def test_what_is_prepared_is_read_back(toy_plan, tmp_path):
    for step in distinct_steps(build(toy_plan(), tmp_path)):
        prepare(step)
        read = read_step(step.folder)
        assert read.cfg.to_dict() == step.cfg.to_dict()
        assert (read.kind, read.product, read.needs) == (step.kind, step.product, step.needs)
        assert (read.iterations, read.flops) == (step.iterations, step.flops)


def test_a_pool_makes_what_steps_need_first(toy_plan, here, tmp_path):
    steps = distinct_steps(build(toy_plan(arms=['tuned']), tmp_path))
    executor = here({'tuning': 0, 'fine_tuning': 0})
    outcomes = run_steps(list(reversed(steps)), executor)
    assert [step.kind for step in executor.started] == ['tuning'], 'it made no product'
    assert {outcome.status for outcome in outcomes.values()} == {'failed'}
