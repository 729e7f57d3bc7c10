"""Joining ranks, wrapping the model on them, and what goes wrong before anything is trained."""

import copy
import os
import re
import socket

import pytest
import torch
import torch.distributed as dist
from gloo import end_group
from launching import ROOT, free_port
from mistakes import mistake
from torch.nn.parallel import DistributedDataParallel

from mm_tuning_plugin.cli.train import entry
from mm_tuning_plugin.engine import MixAndMatchRunner, derive_tuning_config
from mm_tuning_plugin.engine.config import user_config
from mm_tuning_plugin.engine.distributed import join_ranks
from mm_tuning_plugin.engine.resume import runner
from mm_tuning_plugin.engine.runner import FineTuningRunner

TORCHRUN = dict(RANK=0, WORLD_SIZE=1, LOCAL_RANK=0, MASTER_ADDR='127.0.0.1')
SLURM = dict(SLURM_PROCID=0, SLURM_NTASKS=1, SLURM_LOCALID=0, SLURM_NODELIST='node[7-9]')
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='there is an accelerator')


@pytest.fixture(autouse=True)
def ranks(monkeypatch):
    """No launcher's environment to begin with, and no process group left behind."""
    before = dict(os.environ)
    for name in [*TORCHRUN, *SLURM, 'MASTER_PORT']:
        monkeypatch.delenv(name, raising=False)
    yield
    if dist.is_initialized():
        end_group()
    for name in os.environ.keys() - before.keys():
        os.environ.pop(name)


def launched_by(monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


def torchrun(monkeypatch, **variables):
    launched_by(monkeypatch, **{**TORCHRUN, 'MASTER_PORT': free_port(), **variables})


def scontrol(monkeypatch, folder, answer):
    """A scontrol of our own, first in the PATH."""
    script = folder / 'scontrol'
    script.write_text(f'#!/bin/sh\n[ "$*" = "show hostname node[7-9]" ] && printf "{answer}"\n')
    script.chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}{os.pathsep}{os.environ["PATH"]}')


def test_torchrun_on_a_cpu_starts_gloo_whatever_the_config_says(monkeypatch, capsys):
    torchrun(monkeypatch)
    dist_cfg = dict(backend='nccl', init_backend='torch', timeout=60)
    join_ranks(dict(launcher='pytorch', env_cfg=dict(dist_cfg=dist_cfg)))
    assert dist.get_backend() == 'gloo' and dist.get_world_size() == 1
    assert '1 CPU ranks' in capsys.readouterr().out
    join_ranks(dict(launcher='pytorch'))  # joined already: nothing to do
    assert 'CPU ranks' not in capsys.readouterr().out


def test_without_a_launcher_nothing_is_started(monkeypatch):
    torchrun(monkeypatch)
    join_ranks(dict(launcher='none'))
    join_ranks(dict())
    assert not dist.is_initialized()


def test_torchrun_without_a_word_of_it(monkeypatch):
    torchrun(monkeypatch, WORLD_SIZE=4, TORCHELASTIC_RUN_ID='none')
    fails('none', problem=["'none'", '4 processes'], remedy="'pytorch'")
    torchrun(monkeypatch, WORLD_SIZE=1)
    join_ranks(dict(launcher='none'))
    assert not dist.is_initialized()


def test_srun_on_a_cpu(monkeypatch, tmp_path):
    launched_by(monkeypatch, **SLURM, LOCAL_RANK=5)
    scontrol(monkeypatch, tmp_path, r'127.0.0.1\nnode8\n')
    port = free_port()
    join_ranks(dict(launcher='slurm', env_cfg=dict(dist_cfg=dict(backend='nccl', port=port))))
    assert dist.get_backend() == 'gloo'
    names = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')
    assert [os.environ[name] for name in names] == ['0', '1', '0', '127.0.0.1', str(port)]


def test_an_address_that_is_given_needs_no_scontrol(monkeypatch):
    port = free_port()
    launched_by(monkeypatch, **SLURM, MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    monkeypatch.delenv('SLURM_NODELIST')
    join_ranks(dict(launcher='slurm'))
    assert dist.is_initialized() and os.environ['MASTER_PORT'] == str(port)


def fails(launcher, where='launcher', problem=(), remedy=(), **dist_cfg):
    with mistake(where, problem, remedy):
        join_ranks(dict(launcher=launcher, env_cfg=dict(dist_cfg=dist_cfg)))
    assert not dist.is_initialized()


@pytest.mark.parametrize('name', [*TORCHRUN, 'MASTER_PORT'])
def test_a_variable_that_torchrun_would_have_set(monkeypatch, name):
    torchrun(monkeypatch)
    monkeypatch.delenv(name)
    fails('pytorch', problem=["'pytorch'", f' {name} '], remedy='torchrun')


@pytest.mark.parametrize('name', SLURM)
def test_a_variable_that_srun_would_have_set(monkeypatch, name):
    launched_by(monkeypatch, **SLURM)
    monkeypatch.delenv(name)
    fails('slurm', problem=["'slurm'", f' {name} '], remedy='srun')


@pytest.mark.parametrize('answer', ['', None])
def test_a_scontrol_that_names_no_host(monkeypatch, tmp_path, answer):
    launched_by(monkeypatch, **SLURM)
    if answer is None:
        monkeypatch.setenv('PATH', str(tmp_path))
    else:
        scontrol(monkeypatch, tmp_path, answer)
    fails('slurm', 'MASTER_ADDR', 'scontrol show hostname node[7-9]')


def test_another_launcher(monkeypatch):
    fails('mpi', problem="'mpi'", remedy='pytorch, slurm')


def test_a_port_that_is_taken(monkeypatch):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        torchrun(monkeypatch, MASTER_PORT=taken.getsockname()[1])
        fails('pytorch', problem=re.compile("'pytorch'.*address already in use", re.IGNORECASE))


def test_a_dist_cfg_that_torch_does_not_know(monkeypatch):
    torchrun(monkeypatch)
    fails('pytorch', problem=["'pytorch'", 'no_such_thing'], no_such_thing=1)


def built(cfg, **changes):
    cfg = copy.deepcopy(cfg)
    cfg.update(changes)
    return FineTuningRunner.from_cfg(cfg)


def test_the_model_is_wrapped_for_cpus_as_mmengine_wraps_it_for_gpus(monkeypatch, toy_cfg, capsys):
    assert not isinstance(built(toy_cfg).model, DistributedDataParallel)
    torchrun(monkeypatch)
    toy_cfg.launcher = 'pytorch'
    join_ranks(toy_cfg)
    warning = r'WARNING.*\bSyncBN\b.*\bBatchNorm\b'
    model = built(toy_cfg, experiment_name='a').model
    assert type(model).__name__ == 'MMDistributedDataParallel' and model.device_ids is None
    assert not model.broadcast_buffers and not model.find_unused_parameters
    assert not re.search(warning, capsys.readouterr().out)
    model = built(toy_cfg, experiment_name='b', find_unused_parameters=True).model
    assert model.find_unused_parameters

    wrapper = dict(type='DistributedDataParallel', broadcast_buffers=True)
    model = built(toy_cfg, experiment_name='c', model_wrapper_cfg=wrapper).model
    assert type(model) is DistributedDataParallel and model.device_ids is None
    assert model.broadcast_buffers and wrapper.keys() == {'type', 'broadcast_buffers'}

    synchronised = copy.deepcopy(toy_cfg.model)
    synchronised.backbone.norm_cfg.type = 'SyncBN'
    for changes in (dict(model=synchronised), dict(sync_bn='torch')):
        name = next(iter(changes))
        model = built(toy_cfg, experiment_name=name, **changes).model
        assert not [m for m in model.modules() if isinstance(m, torch.nn.SyncBatchNorm)]
        assert re.search(warning, capsys.readouterr().out)


def test_a_proxy_task_over_ranks(monkeypatch, demo_root, tmp_path):
    torchrun(monkeypatch)
    config = ROOT / 'configs' / 'proxy' / 'colorization_resnet18_demo.py'
    options = [
        f'train_dataloader.dataset.data_root={demo_root}', 'train_dataloader.batch_size=2',
        'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
        'train_cfg.max_iters=1', 'train_cfg.val_interval=1',
    ]  # fmt: skip
    arguments = [config, '--launcher', 'pytorch', '--work-dir', tmp_path]
    assert entry([*map(str, arguments), '--cfg-options', *options]) == 0
    saved = torch.load(tmp_path / 'iter_1.pth', weights_only=False)
    assert saved['meta']['iter'] == 1 and dist.is_initialized()
    assert not [name for name in saved['state_dict'] if name.startswith('module.')]


def test_images_that_the_ranks_cannot_share(monkeypatch, toy_cfg):
    monkeypatch.setattr(user_config, 'get_world_size', lambda: 3)
    with mistake('mix_and_match.images_per_batch', '4', '3'):
        derive_tuning_config(toy_cfg)
    toy_cfg.mix_and_match.images_per_batch = 6
    assert derive_tuning_config(toy_cfg).train_dataloader.batch_size == 2


@pytest.mark.parametrize('ranks', [1, 4])
def test_a_checkpoint_of_other_ranks_is_one_line(monkeypatch, toy_cfg, capsys, ranks):
    toy_cfg.mix_and_match.enabled = False
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    path = f'{toy_cfg.work_dir}/iter_4.pth'
    saved = torch.load(path, weights_only=False)
    assert len(saved[runner.KEY]['ranks']) == 1
    saved[runner.KEY]['ranks'] *= ranks
    torch.save(saved, path)
    monkeypatch.setattr(runner, 'get_world_size', lambda: 2)
    toy_cfg.resume = True
    capsys.readouterr()
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    said = capsys.readouterr().out
    assert re.search(rf'iter_4\.pth: .*\b{ranks} ranks.*\b2\b', said)
