"""The doctor with a config: each thing that a run needs, spoilt once."""

import json
import math
import re
import shutil
import signal
import subprocess
from collections import namedtuple

import pytest
import torch
from mistakes import check_mistake
from mmengine.config import Config

from mm_tuning_plugin.cli import doctor
from mm_tuning_plugin.cli.common import config_checks, trial_run
from mm_tuning_plugin.cli.common.environment import ERROR, NOTE, OK
from mm_tuning_plugin.datasets.samplers import FirstSampler
from mm_tuning_plugin.engine.config.options import resolve_options
from mm_tuning_plugin.engine.preflight.disk_space import bytes_needed, kept_checkpoints


@pytest.fixture
def examine(project, tmp_path, monkeypatch):
    """Findings about the project's config; the trial is left out unless asked for."""
    monkeypatch.chdir(tmp_path)

    def run(*argv, with_trial=False):
        words = [str(project[0]), *map(str, argv)]
        words[1:1] = [] if with_trial else ['--no-trial']
        return list(config_checks.examine(doctor.build_parser().parse_args(words)))

    return run


def levels(findings):
    return [(finding.level, finding.subject) for finding in findings]


def one_error(findings):
    """The only error; everything has a remedy where it is no good news."""
    (error,) = [finding for finding in findings if finding.level == ERROR]
    assert error.remedy and '\n' not in error.found + error.remedy
    return error


SOUND = [
    (OK, 'config'),
    (OK, 'train_dataloader'),
    (OK, 'val_dataloader'),
    (OK, 'fine-tuning'),
    (NOTE, 'start'),
    (OK, 'work_dir'),
]


def test_two_steps_of_both_stages_of_which_nothing_stays(
    examine, tmp_path, monkeypatch, forked_processes
):
    (tmp_path / 'scratch').mkdir()
    monkeypatch.setattr(config_checks.tempfile, 'tempdir', str(tmp_path / 'scratch'))
    before = {path for path in tmp_path.rglob('*') if path.is_file()}
    findings = examine('--work-dir', 'results/run', '--trial-seconds', '900', with_trial=True)
    assert levels(findings) == [*SOUND, (OK, 'trial')], findings
    assert '8 classes; stage one: 1 iterations on points' in findings[0].found
    assert '8 images with labels; 8 read' in findings[1].found
    assert 'two steps of both stages ran in ' in findings[-1].found
    assert 's of 900 s allowed (tuning ' in findings[-1].found
    assert {path for path in tmp_path.rglob('*') if path.is_file()} == before
    assert not (tmp_path / 'results').exists() and not any((tmp_path / 'scratch').iterdir())


def test_a_trial_that_fails_is_told_in_one_line(examine, forked_processes):
    findings = examine(
        '--trial-seconds',
        '900',
        '--cfg-options',
        'optim_wrapper.clip_grad.max_norm=large',
        with_trial=True,
    )
    error = one_error(findings)
    assert error.subject == 'trial' and 'status 1: ' in error.found


def test_what_does_not_fit_the_first_batch_is_told_without_a_trial(examine):
    findings = examine('--cfg-options', 'model.decode_head.in_channels=5', with_trial=True)
    error = one_error(findings)
    assert (
        error.subject == 'fine-tuning' and 'in_channels=5' in error.found and '64' in error.remedy
    )
    assert 'trial' not in [finding.subject for finding in findings]


@pytest.mark.parametrize(
    ('said', 'told'),
    [
        ('a\nerror: x: 1 found; expected 2\nleft over\n', '^x: 1 found; expected 2$'),
        ('Traceback:\n  a\nKeyError: 3\n', 'status 1: KeyError: 3$'),
        ('', 'status 1: '),
    ],
)
def test_the_mistake_that_ended_a_trial(tmp_path, said, told):
    (tmp_path / 'log').write_text(said)
    assert re.search(told, config_checks._last_line(tmp_path / 'log', 1))


def test_a_trial_that_takes_too_long_is_ended(examine, tmp_path, monkeypatch):
    (tmp_path / 'scratch').mkdir()
    monkeypatch.setattr(config_checks.tempfile, 'tempdir', str(tmp_path / 'scratch'))
    children = []
    popen = config_checks.subprocess.Popen

    def recorded(*args, **options):
        children.append(popen(*args, **options))
        return children[-1]

    monkeypatch.setattr(config_checks.subprocess, 'Popen', recorded)
    finding = examine('--trial-seconds', '1', with_trial=True)[-1]
    assert (finding.level, finding.subject) == (NOTE, 'trial')
    assert ' 1 s' in finding.found
    assert '--trial-seconds' in finding.remedy
    assert children[0].returncode is not None and not any((tmp_path / 'scratch').iterdir())


def test_sigterm_leaves_nothing_of_a_trial(examine, tmp_path, monkeypatch):
    (tmp_path / 'scratch').mkdir()
    monkeypatch.setattr(config_checks.tempfile, 'tempdir', str(tmp_path / 'scratch'))
    children = []

    class Told(subprocess.Popen):
        def wait(self, timeout=None):
            if timeout is not None:
                children.append(self)
                signal.raise_signal(signal.SIGTERM)
            return super().wait(timeout)

    monkeypatch.setattr(config_checks.subprocess, 'Popen', Told)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        examine(with_trial=True)
    assert ended.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert children[0].returncode is not None and not any((tmp_path / 'scratch').iterdir())


def test_missing_data_are_told_and_nothing_is_tried(examine, project):
    shutil.rmtree(project[1] / 'ann' / 'val')
    findings = examine(with_trial=True)
    error = one_error(findings)
    assert error.subject == 'val_dataloader' and 'no such file' in error.found
    assert 'trial' not in [finding.subject for finding in findings]
    shutil.rmtree(project[1])
    subjects = [f.subject for f in examine() if f.level == ERROR]
    assert subjects == ['train_dataloader', 'val_dataloader']


def test_labels_that_do_not_fit_the_classes(examine):
    error = one_error(examine('--cfg-options', 'model.decode_head.num_classes=3', 'val_dataloader='
                              'None', 'val_cfg=None', 'val_evaluator=None'))  # fmt: skip
    assert error.subject == 'train_dataloader' and '0 to 2' in error.found + error.remedy


def test_a_start_that_fits_and_others(examine, project, tmp_path):
    from mm_tuning_plugin.cli.common.stock_file import build_backbone

    backbone = build_backbone(Config.fromfile(project[0]).model.backbone)
    torch.save(backbone.state_dict(), tmp_path / 'fits.pth')
    finding = examine('--ssl-checkpoint', tmp_path / 'fits.pth')[4]
    assert (finding.level, finding.subject) == (OK, 'start')
    assert 'fits.pth: fills 100.0% of ResNet, layout ' in finding.found
    torch.save({'a.weight': torch.ones(3)}, tmp_path / 'other.pth')
    for name, told in (('other.pth', 'other.pth'), ('none.pth', 'no such file')):
        error = one_error(examine('--ssl-checkpoint', tmp_path / name))
        assert error.subject == 'start' and told in error.found
        assert 'convert --inspect' in error.remedy


def test_a_full_disk(examine, monkeypatch):
    usage = namedtuple('usage', 'free')
    monkeypatch.setattr(config_checks.shutil, 'disk_usage', lambda path: usage(1000))
    error = one_error(examine())
    assert error.subject == 'work_dir' and '1e-06 GB free' in error.found
    assert 'max_keep_ckpts' in error.remedy


def test_a_work_dir_that_cannot_be_made(examine, tmp_path):
    (tmp_path / 'file').touch()
    error = one_error(examine('--work-dir', tmp_path / 'file' / 'run'))
    assert error.subject == 'work_dir' and str(tmp_path / 'file') in error.found


@pytest.mark.parametrize(
    ('options', 'found', 'remedy'),
    [
        (['mix_and_match.max_iter=5'], 'mix_and_match.max_iter: ', 'max_iters'),
        (['load_from=a.pth'], 'load_from: ', 'mix_and_match.checkpoint'),
        (['train_cfg.type=NoSuchLoop'], "train_cfg: type 'NoSuchLoop'", ''),
        (['default_hooks.timer.type=Timer'], "default_hooks.timer: type 'Timer'", ''),
        (['model.type=mm_tuning_plugin.JigsawModel'], 'mm_tuning_plugin.JigsawModel', ''),
    ],
)
def test_a_config_that_cannot_be_tuned_is_the_only_finding(examine, options, found, remedy):
    findings = examine('--cfg-options', *options)
    assert levels(findings) == [(ERROR, 'config')]
    assert found in findings[0].found and remedy in findings[0].remedy


def test_the_command_ends_with_what_is_to_mend_first(project, capsys, monkeypatch):
    monkeypatch.setattr(doctor, 'diagnose', lambda: [doctor.Finding(OK, 'python', '3')])
    assert doctor.entry([str(project[0]), '--no-trial']) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == 'ok     python: 3' and out[-1] == 'usable'
    assert any(line.startswith('note   trial: left out  ->  ') for line in out)
    shutil.rmtree(project[1])
    assert doctor.entry([str(project[0])]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('error: ')
    check_mistake(last.removeprefix('error: '), 'train_dataloader', ('data_root: ', '2 to mend'))


def test_an_installation_that_is_broken_is_mended_first(monkeypatch, capsys):
    monkeypatch.setattr(doctor, 'diagnose', lambda: [doctor.Finding(ERROR, 'torch', 'no', 'pip')])
    assert doctor.entry(['nowhere.py']) == 2
    assert 'nowhere' not in capsys.readouterr().out


@pytest.mark.parametrize(
    ('argv', 'problem', 'remedy'),
    [
        (['--trial-seconds', '0'], '0', '1'),
        (['--ssl-checkpoint', 'a.pth'], '', 'CONFIG'),
        (['--no-trial'], '', 'CONFIG'),
    ],
)
def test_options_that_make_no_sense(argv, problem, remedy, capsys):
    assert doctor.entry(argv) == 2
    line = capsys.readouterr().err.removeprefix('error: ')
    check_mistake(line, argv[0], problem, remedy)


def test_a_trial_takes_two_steps_and_its_files_are_as_large_as_foretold(project, tmp_path):
    torch.set_num_threads(1)
    work_dir = tmp_path / 'work'
    trial_run.main([str(project[0]), '--work-dir', str(work_dir), '--cfg-options',
                'default_hooks.checkpoint.interval=100', 'mix_and_match.max_iters=500',
                'train_cfg.max_iters=100', 'train_cfg.val_interval=100',
                'visualizer.vis_backends.0.type=NoSuchBackend'])  # fmt: skip
    stages = json.loads((work_dir / 'stages.json').read_text())
    assert stages['tuning']['iterations'] == stages['fine_tuning']['iterations'] == 2
    assert 'mIoU' in stages['fine_tuning']['metrics']

    cfg = Config.fromfile(project[0])
    cfg.mix_and_match.max_iters, cfg.train_cfg.max_iters = 2, 2
    cfg.default_hooks.checkpoint.interval = 2
    needed, described = bytes_needed(cfg, resolve_options(cfg.mix_and_match))
    sizes = {path.relative_to(work_dir): path.stat().st_size for path in work_dir.rglob('*.pth')}
    assert len(sizes) == 3  # a checkpoint of each stage, the tuned backbone
    written = sum(sizes.values()) + (work_dir / 'iter_2.pth').stat().st_size
    assert needed == pytest.approx(written, rel=0.2)
    assert described.startswith('1 of tuning, ') and '1 of fine-tuning, ' in described


@pytest.mark.parametrize(
    ('hook', 'loop', 'kept'),
    [
        (dict(by_epoch=False, interval=1000), dict(max_iters=8000), 8),
        (dict(by_epoch=False, interval=1000, max_keep_ckpts=3), dict(max_iters=8000), 3),
        (dict(by_epoch=False, interval=3000), dict(max_iters=8000), 3),  # the last, too
        (dict(by_epoch=False, interval=3000, save_last=False), dict(max_iters=8000), 2),
        (dict(interval=5), dict(max_epochs=20), 4),
        (dict(by_epoch=False, interval=4000, save_best='mIoU'), dict(max_iters=8000), 3),
        (dict(by_epoch=False, interval=4000, save_best=['mIoU', 'aAcc']), dict(max_iters=8000), 4),
        (dict(by_epoch=False), dict(max_iters=8000), 1),
        ({}, {}, 1),
    ],
)
def test_checkpoints_that_stay(hook, loop, kept):
    cfg = dict(default_hooks=dict(checkpoint=hook), train_cfg=loop)
    assert kept_checkpoints(cfg) == kept


@pytest.mark.parametrize(
    ('optimizer', 'numbers'),
    [
        (dict(type='SGD', momentum=0.9), 1),
        (dict(type='SGD'), 0),
        (dict(type='AdamW'), 2),
        (dict(type='Lion'), 1),
    ],
)
def test_what_an_optimizer_keeps_takes_room(toy_cfg, optimizer, numbers):
    """Relative to the weights: BatchNorm's statistics, which it does not keep, are few."""
    toy_cfg.optim_wrapper.optimizer = optimizer
    options = resolve_options(dict(toy_cfg.mix_and_match, enabled=False))
    needed, _ = bytes_needed(toy_cfg, options)
    toy_cfg.default_hooks.checkpoint.save_optimizer = False
    bare, _ = bytes_needed(toy_cfg, options)
    assert math.isclose(needed / bare, 1 + numbers, rel_tol=0.05)


def test_a_trial_validates_on_two_images_and_tells_nobody(toy_cfg):
    toy_cfg.mix_and_match.bn_crops = 64
    toy_cfg.visualizer.vis_backends = [dict(type='WandbVisBackend', init_kwargs=dict(project='x'))]
    before = toy_cfg.copy()
    trial_run.make_cheap(toy_cfg)
    assert toy_cfg.val_dataloader.sampler == dict(type='mm_tuning_plugin.FirstSampler', count=2)
    assert toy_cfg.mix_and_match.bn_crops == toy_cfg.mix_and_match.retrieval_images == 2
    assert toy_cfg.visualizer.vis_backends == [dict(type='LocalVisBackend')]
    assert toy_cfg.mix_and_match.images_per_batch == 4  # what a step costs stays
    for part in ('train_cfg', 'param_scheduler', 'default_hooks', 'log_processor'):
        assert toy_cfg[part] == before[part], 'what a run is measured against stays'

    sampler = FirstSampler(range(5), 2, shuffle=True)
    assert list(sampler) == [0, 1] and len(sampler) == 2
    assert list(FirstSampler(range(1), 2)) == [0]
