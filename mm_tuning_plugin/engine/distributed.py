"""Ranks: joining those that a launcher started, and wrapping the model on each of them.

With an accelerator both are mmengine's own. Without one mmengine starts no rank at all; here CPU
ranks communicate by gloo, so that a distributed run can be tested without an accelerator.
"""

from __future__ import annotations

import atexit
import datetime
import os
import subprocess
import time

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import init_dist, is_distributed, is_main_process
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import Runner

from mm_tuning_plugin.config_types import PlainConfig
from mm_tuning_plugin.engine.common.messages import warn
from mm_tuning_plugin.errors import UserError

# What torch reads from the environment, by the names under which each launcher leaves it there.
VARIABLES = {
    'pytorch': {
        name: name for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')
    },
    'slurm': {'RANK': 'SLURM_PROCID', 'WORLD_SIZE': 'SLURM_NTASKS', 'LOCAL_RANK': 'SLURM_LOCALID'},
}
DEFAULT_PORT = '29500'  # torch's and mmengine's


def join_ranks(cfg: Config) -> None:
    """Start the process group that the launcher prepared, before anything counts the ranks.

    Args:
        cfg: The user's config; ``launcher`` and ``env_cfg.dist_cfg`` are read.

    Raises:
        UserError: The launcher's environment or the devices are not there, or a launcher is at
            work that the config does not name.
    """
    launcher = cfg.get('launcher', 'none')
    if is_distributed():
        return
    if launcher == 'none':
        _refuse_unnamed_torchrun()
        return
    options = dict((cfg.get('env_cfg') or {}).get('dist_cfg') or {})
    try:
        if get_device() == 'cpu':
            _join_cpu_ranks(launcher, options)
        else:
            init_dist(launcher, **options)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, AssertionError, AttributeError) as error:
        reason = f'{type(error).__name__}: {error}'.splitlines()[0]
        raise UserError(
            'launcher',
            f'{launcher!r} found, but no process group can be started: {reason}',
            'run it by that launcher, with an accelerator for each rank or none at all',
        ) from error


def _refuse_unnamed_torchrun() -> None:
    count = os.environ.get('WORLD_SIZE', '1')
    if 'TORCHELASTIC_RUN_ID' in os.environ and count != '1':
        raise UserError(
            'launcher',
            f"'none' found in {count} processes of torchrun, each of which would run all of it, "
            'into the same files',
            "expected 'pytorch' (--launcher pytorch)",
        )


def _join_cpu_ranks(launcher: str, options: PlainConfig) -> None:
    """Start gloo from what the launcher left in the environment, read as mmengine reads it.

    Args:
        launcher: 'pytorch' or 'slurm'.
        options: ``dist_cfg``: its backends are those of accelerators; the rest counts.

    Raises:
        UserError: Another launcher, or a variable is missing.
    """
    if launcher not in VARIABLES:
        raise UserError(
            'launcher',
            f'{launcher!r} found on a machine without an accelerator',
            f'expected one of {", ".join(VARIABLES)}',
        )
    for name, source in VARIABLES[launcher].items():
        os.environ[name] = _variable(launcher, source)
    port = options.pop('port', None)
    if launcher == 'slurm':
        if port is not None:
            os.environ['MASTER_PORT'] = str(port)
        os.environ.setdefault('MASTER_PORT', DEFAULT_PORT)
        if 'MASTER_ADDR' not in os.environ:
            os.environ['MASTER_ADDR'] = _first_host(_variable(launcher, 'SLURM_NODELIST'))
    options = {k: v for k, v in options.items() if k not in ('backend', 'init_backend')}
    if options.get('timeout') is not None:
        options['timeout'] = datetime.timedelta(seconds=options['timeout'])
    dist.init_process_group('gloo', **options)
    atexit.register(_leave_cpu_ranks)
    if is_main_process():  # a logger from before the ranks joined speaks on all of them
        warn(f'{dist.get_world_size()} CPU ranks over gloo: meant for tests, not for training')


def _leave_cpu_ranks() -> None:
    """End the group once its thread is idle.

    After a collective that thread lets go of tensors, for which it needs the interpreter's lock. If
    the interpreter ends meanwhile, a run that has finished ends by an abort.
    """
    if is_distributed():
        time.sleep(0.2)
        dist.destroy_process_group()


def _variable(launcher: str, name: str) -> str:
    if name not in os.environ:
        raise UserError(
            'launcher',
            f'{launcher!r} found, but {name} is not set in the environment',
            'run it by that launcher (torchrun, srun)',
        )
    return os.environ[name]


def _first_host(nodes: str) -> str:
    """The first host of a Slurm node list such as ``node[1-4]``."""
    command = ['scontrol', 'show', 'hostname', nodes]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise UserError(
            'MASTER_ADDR',
            f'not set, and {" ".join(command)} names no host ({type(error).__name__})',
            'set it to the address of the first node',
        ) from error


class RankRunner(Runner):
    """A plain Runner whose ranks may be CPUs.

    Without ranks, and with an accelerator, the model is wrapped as mmengine wraps it.
    """

    def wrap_model(self, model_wrapper_cfg: dict | None, model: torch.nn.Module) -> torch.nn.Module:
        """See mmengine."""
        if not self.distributed or get_device() != 'cpu' or is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        kinds = {type(module).__name__ for module in model.modules()}  # torch's, or mmcv's own
        if 'SyncBatchNorm' in kinds or self.cfg.get('sync_bn') is not None:
            warn('SyncBN found, expected accelerators for it: on CPU ranks it is BatchNorm')
        unused = self.cfg.get('find_unused_parameters', False)
        wrapper = {
            'type': 'MMDistributedDataParallel',
            **(model_wrapper_cfg or dict(broadcast_buffers=False, find_unused_parameters=unused)),
        }
        # No device_ids here, where mmengine adds the rank's accelerator.
        return MODEL_WRAPPERS.build(wrapper, default_args=dict(module=revert_sync_batchnorm(model)))
