"""A user's mistake: one line that names the thing, exit status 2, no traceback.

The commands run in this process, as their entry points do, so that many mistakes fit into a
minute; one of each kind of ending also runs as a process.
"""

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from commands import fails, works
from mistakes import check_mistake, mistake
from mmengine.config import Config

from mm_tuning_plugin.cli.common.run import run

ROOT = Path(__file__).parents[2]


def first(folder):
    return sorted(folder.iterdir())[0]


def test_no_such_config(capfd):
    check_mistake(fails(capfd, 'nowhere.py'), 'nowhere.py', 'no such file')


def test_a_config_that_is_none(capfd, tmp_path):
    (tmp_path / 'bad.py').write_text('a = (')
    bad, empty, text = (tmp_path / name for name in ('bad.py', 'empty.py', 'config.txt'))
    check_mistake(fails(capfd, bad), str(bad), 'SyntaxError')
    empty.write_text('')
    check_mistake(fails(capfd, empty), 'model', 'None')
    text.write_text('hello')
    check_mistake(fails(capfd, text), str(text), 'OSError')


def test_a_config_that_imports_what_is_not_installed(capfd, tmp_path):
    (tmp_path / 'a.py').write_text("custom_imports = dict(imports='mmnothing.models')\n")
    line = fails(capfd, tmp_path / 'a.py')
    check_mistake(line, str(tmp_path / 'a.py'), 'mmnothing', 'pip install mmnothing')


def test_a_head_of_a_package_that_is_not_installed_is_told_before_tuning(capfd, project):
    config, _ = project
    with open(config, 'a') as file:
        file.write("\nmodel['decode_head']['loss_decode'] = [dict(type='mmnothing.DiceLoss')]\n")
    check_mistake(fails(capfd, config), 'model.decode_head.loss_decode.0', 'mmnothing')
    assert not (config.parent / 'work' / 'tuning').exists()


def test_data_root_missing(capfd, project):
    config, data = project
    shutil.rmtree(data)
    check_mistake(fails(capfd, config), re.compile('data_root$'), str(data))


def test_data_root_empty(capfd, project):
    config, data = project
    shutil.rmtree(data)
    data.mkdir()
    check_mistake(fails(capfd, config), re.compile('^train_dataloader'), str(data))
    (data / 'img' / 'train').mkdir(parents=True)
    (data / 'ann' / 'train').mkdir(parents=True)
    check_mistake(fails(capfd, config), re.compile('^train_dataloader'), str(data))


def test_a_label_map_is_missing(capfd, project):
    config, data = project
    path = first(data / 'ann' / 'train')
    path.unlink()
    check_mistake(fails(capfd, config), str(path), 'no such file')


def test_a_label_map_of_another_size(capfd, project):
    config, data = project
    path = first(data / 'ann' / 'train')
    cv2.imwrite(str(path), np.zeros((32, 64), np.uint8))
    line = fails(capfd, config)
    check_mistake(line, str(path), '64 x 32')
    assert '64 x 64' in line


def test_label_values_beyond_the_classes(capfd, project):
    config, data = project
    path = first(data / 'ann' / 'train')
    cv2.imwrite(str(path), np.full((64, 64), 17, np.uint8))
    line = fails(capfd, config)
    check_mistake(line, str(path), '17')
    assert '0 to 7' in line


def test_all_images_wholly_ignored(capfd, project):
    config, data = project
    for path in (data / 'ann' / 'train').iterdir():
        cv2.imwrite(str(path), np.full((64, 64), 255, np.uint8))
    check_mistake(fails(capfd, config), re.compile('^train_dataloader'), 'all 8 images')


@pytest.mark.parametrize('content', [b'', b'not an image', None])
@pytest.mark.parametrize('kind', ['img', 'ann'])
def test_an_unreadable_image_is_named(capfd, project, content, kind):
    config, data = project
    path = first(data / kind / 'train')
    path.write_bytes(path.read_bytes()[:20] if content is None else content)
    check_mistake(fails(capfd, config), re.compile(rf'{path.stem}\.\w+$'), 'image')


@pytest.mark.parametrize('arm', [[], ['--no-tuning']])
def test_checkpoints_that_are_none(capfd, project, tmp_path, arm):
    config, _ = project
    none, text, void, other = (tmp_path / f'{n}.pth' for n in ('none', 'text', 'void', 'other'))
    text.write_text('hello')
    void.write_bytes(b'')
    torch.save({'state_dict': {'a.b': torch.ones(3)}}, other)
    for path, fact in ((none, 'no such file'), (text, 'text'), (void, 'empty'), (other, 'a.b')):
        check_mistake(fails(capfd, config, '--ssl-checkpoint', path, *arm), str(path), fact)


@pytest.mark.parametrize(
    ('option', 'where', 'problem', 'remedy'),
    [
        ('nodes_per_image=0', 'mix_and_match.nodes_per_image', '0', '1'),
        ('max_iters=0', 'mix_and_match.max_iters', '0', '1'),
        ('size_range=256,64', 'mix_and_match.size_range', '[256, 64]', ''),
        ('max_iter=5', 'mix_and_match.max_iter', '', 'max_iters'),
        ('recipe=best', 'mix_and_match.recipe', "'best'", 'paper'),
        ('background_index=8', 'mix_and_match.background_index', '8', '8'),
        ('tuned_backbone=none.pth', 'none.pth', 'no such file', ''),
    ],
)
def test_options_that_are_wrong(capfd, project, option, where, problem, remedy):
    config, _ = project
    line = fails(capfd, config, '--cfg-options', f'mix_and_match.{option}')
    check_mistake(line, where, problem, remedy)


@pytest.mark.parametrize('arm', [[], ['--no-tuning']])
def test_parts_of_the_model_that_do_not_exist(capfd, project, arm):
    config, _ = project
    line = fails(capfd, config, *arm, '--cfg-options', 'model.backbone.type=ResNot')
    check_mistake(line, 'model.backbone', "'ResNot'")
    line = fails(capfd, config, *arm, '--cfg-options', 'model.backbone.depht=18')
    check_mistake(line, 'model.backbone', ('ResNet', 'depht'))


def test_a_work_dir_that_is_a_file(capfd, project, tmp_path):
    (tmp_path / 'file').write_text('')
    file = tmp_path / 'file'
    check_mistake(fails(capfd, project[0], '--work-dir', file), 'work_dir', str(file))


@pytest.mark.parametrize('command', ['benchmark', 'demo'])
def test_results_that_cannot_be_written(capfd, tmp_path, command):
    import importlib

    entry_of = importlib.import_module(f'mm_tuning_plugin.cli.{command}').entry
    (tmp_path / 'file').write_text('')
    plan = [str(ROOT / 'configs' / 'benchmarks' / 'camvid_cpu.py')]
    folder = str(tmp_path / 'file' / 'x')
    assert entry_of([*(plan if command == 'benchmark' else []), '--work-dir', folder]) == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    check_mistake(last.removeprefix('error: '), '--work-dir', folder)


def test_a_launcher_that_did_not_launch(capfd, project, monkeypatch):
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)
    line = fails(capfd, project[0], '--launcher', 'pytorch')
    check_mistake(line, 'launcher', "'pytorch'")


def test_cfg_options_that_lead_nowhere(capfd, project):
    config, _ = project
    check_mistake(fails(capfd, config, '--cfg-options', 'abc'), '--cfg-options', "'abc'", '=')
    line = fails(capfd, config, '--cfg-options', 'log_level.x.y=3')
    check_mistake(line, '--cfg-options', 'log_level.x.y=3')


def test_load_from_is_refused(capfd, project):
    config, _ = project
    line = fails(capfd, config, '--cfg-options', 'load_from=x.pth')
    check_mistake(line, 'load_from', 'x.pth', 'mix_and_match.checkpoint')


def test_amp_without_an_accelerator(capfd, project):
    if torch.cuda.is_available():
        pytest.skip('there is an accelerator')
    check_mistake(fails(capfd, project[0], '--amp'), '--amp', 'accelerator', 'CPU')


def test_a_work_dir_with_another_fingerprint(capfd, project, tmp_path):
    config, _ = project
    run = [config, '--work-dir', tmp_path / 'run']
    works(capfd, *run)
    changed = ['--cfg-options', 'mix_and_match.max_iters=2']
    line = fails(capfd, *run, *changed)
    check_mistake(line)
    assert re.search('max_iters.* 1 .* 2', line) and '--overwrite' in line
    works(capfd, *run, '--overwrite', *changed)


def test_warned_of_but_not_stopped(capfd, project):
    """An image without usable labels, a class that never occurs, a batch without triplets."""
    config, data = project
    paths = sorted((data / 'ann' / 'train').iterdir())
    for path in paths[:-1]:
        cv2.imwrite(str(path), np.full((64, 64), 255, np.uint8))
    cv2.imwrite(str(paths[-1]), np.zeros((64, 64), np.uint8))
    said = works(
        capfd, config, '--cfg-options', 'mix_and_match.max_iters=2',
        'mix_and_match.images_per_batch=8',
    )  # fmt: skip
    told = [line for line in said.splitlines() if 'WARNING' in line]
    for facts in ('usable labels', 'triplets.* 1 classes', '2 of 2 batches', ': ground, field'):
        assert [line for line in told if re.search(facts, line)], (facts, told)


def test_a_worker_says_the_same_line(capfd, project, monkeypatch):
    """An image that turns bad after the check: the line comes out of the loading process."""
    config, data = project
    path = first(data / 'img' / 'train')
    from mm_tuning_plugin.engine import runner

    plain = runner.check_data

    def check_then_spoil(*args, **kwargs):
        items = plain(*args, **kwargs)
        path.write_bytes(b'gone')
        return items

    monkeypatch.setattr(runner, 'check_data', check_then_spoil)
    line = fails(
        capfd, config, '--cfg-options', 'train_dataloader.num_workers=1',
        'mix_and_match.images_per_batch=8',
    )  # fmt: skip
    check_mistake(line, problem='image')
    assert str(path) in line


def run_process(*argv, **env):
    return subprocess.run(
        [sys.executable, *map(str, argv)],
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1', **env},
        check=False,
    )


def last_line(done):
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('error: ')
    return last.removeprefix('error: ')


def test_as_a_process(project, forked_processes):
    """By an interpreter of its own: tests/test_mim_layout.py."""
    config, _ = project
    done = run_process(
        ROOT / 'tools' / 'train.py', config, '--cfg-options', 'mix_and_match.max_iters=0'
    )
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    check_mistake(last_line(done), 'mix_and_match.max_iters', '0', '1')


def test_no_distribution_installed(tmp_path, project):
    """An interpreter that finds no mmengine, mmcv or mmseg."""
    hide = tmp_path / 'sitecustomize.py'
    hide.write_text(
        "import sys\nfor name in ('mmengine', 'mmcv', 'mmseg'):\n    sys.modules[name] = None\n"
    )
    done = run_process(ROOT / 'tools' / 'train.py', project[0], PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    check_mistake(last_line(done), re.compile('mmengine'), remedy='pip install')


def test_help_needs_no_stack(tmp_path):
    hide = tmp_path / 'sitecustomize.py'
    hide.write_text("import sys\nsys.modules['torch'] = sys.modules['mmengine'] = None\n")
    done = run_process(ROOT / 'tools' / 'train.py', '--help', PYTHONPATH=str(tmp_path))
    assert done.returncode == 0 and '--ssl-checkpoint' in done.stdout


def test_under_mmsegs_own_script_the_line_is_the_exceptions_message(project):
    import mmengine
    from mmseg.registry import RUNNERS

    config, _ = project
    cfg = mmengine.Config.fromfile(config)
    cfg.runner_type = 'mm_tuning_plugin.MixAndMatchRunner'
    cfg.mix_and_match.max_iters = 0
    with mistake('mix_and_match.max_iters', '0', '1'):
        RUNNERS.build(copy.deepcopy(cfg))


def test_nothing_to_tune(capfd, project):
    line = fails(capfd, project[0], '--cfg-options', 'model.backbone.frozen_stages=4')
    check_mistake(line, 'model.backbone', ('ResNet', 'frozen', 'frozen_stages=4'))


def test_chunks_too_small_for_batch_norm(capfd, project):
    options = ('nodes=patches', 'size_range=[16,32]', 'patch_size=32', 'chunk_size=1')
    given = [f'mix_and_match.{option}' for option in options]
    line = fails(capfd, project[0], '--cfg-options', *given)
    check_mistake(line, 'mix_and_match.chunk_size', '1')
    assert '32 x 32' in line


@pytest.mark.parametrize(
    ('change', 'where', 'fact'),
    [
        (dict(param_scheduler=[dict(type='NoLR')]), 'param_scheduler.0', "'NoLR'"),
        (dict(val_evaluator=dict(type='NoMetric')), 'val_evaluator', "'NoMetric'"),
        (dict(train_cfg=dict(type='NoLoop', max_iters=1)), 'train_cfg', "'NoLoop'"),
        (
            dict(optim_wrapper=dict(optimizer=dict(type='NoSGD'))),
            'optim_wrapper.optimizer',
            "'NoSGD'",
        ),
        (
            dict(train_dataloader=dict(sampler=dict(type='NoSampler'))),
            'train_dataloader.sampler',
            "'NoSampler'",
        ),
        (
            dict(train_dataloader=dict(persistent_workers=True)),
            'train_dataloader.persistent_workers',
            'num_workers=0',
        ),
        (
            dict(val_dataloader=dict(dataset=dict(data_root='/nowhere'))),
            re.compile('data_root$'),
            "'/nowhere'",
        ),
        (
            dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, speed=3))),
            re.compile('^optim_wrapper'),
            'speed',
        ),
        (dict(custom_hooks=[dict(type='EMAHok')]), 'custom_hooks.0', "'EMAHok'"),
    ],
)
def test_what_mmengine_builds_late_is_told_before_anything_is_tuned(
    capfd, project, change, where, fact
):
    path, _ = project
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(change)
    for name in ('train_cfg', 'val_evaluator'):
        if name in change:
            cfg[name] = change[name]
    cfg.mix_and_match.retrieval_images = 2
    cfg.dump(path)
    check_mistake(fails(capfd, path), where, fact)
    assert not list(Path(cfg.work_dir).rglob('*.pth'))


def test_an_early_ctrl_c_is_one_line(capfd):
    def main(argv):
        raise KeyboardInterrupt

    assert run(main) == 130
    assert capfd.readouterr().err == 'interrupted by SIGINT: what was finished is kept\n'


def test_options_that_are_no_dict(capfd, project):
    config, _ = project
    line = fails(capfd, config, '--cfg-options', 'mix_and_match=3')
    check_mistake(line, 'mix_and_match', '3')


@pytest.mark.parametrize('arm', [[], ['--no-tuning']])
@pytest.mark.parametrize('spoilt', ['missing', 'of another size', 'unreadable'])
def test_validation_data_are_looked_at_before_anything_is_trained(capfd, project, spoilt, arm):
    config, data = project
    path = first(data / 'ann' / 'val')
    if spoilt == 'missing':
        path.unlink()
    elif spoilt == 'unreadable':
        path.write_bytes(b'hello')
    else:
        cv2.imwrite(str(path), np.zeros((32, 64), np.uint8))
    line = fails(capfd, config, *arm)
    check_mistake(line, re.compile(rf'val.{path.stem}\.\w+$'))
    assert not list(Path(Config.fromfile(config).work_dir).rglob('*.pth'))


def test_a_work_dir_without_a_name(capfd, project):
    check_mistake(fails(capfd, project[0], '--work-dir', ''), '--work-dir', "''")


def test_a_learning_rate_that_diverges_is_one_line(capfd, project):
    config, _ = project
    options = ['mix_and_match.lr=1e30', 'mix_and_match.max_iters=5']
    line = fails(capfd, config, '--cfg-options', *options)
    check_mistake(line, re.compile('tuning'), ('loss', '1e+30'), 'mix_and_match.lr')
    assert not list((config.parent / 'work').rglob('tuned_backbone.pth'))
