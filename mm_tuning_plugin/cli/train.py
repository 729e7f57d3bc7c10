"""``tools/train.py``: both stages of a config, or the baseline without tuning."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mm_tuning_plugin.cli.common.environment import (
    import_error,
    missing_package,
    remedy_for,
    require_stack,
)
from mm_tuning_plugin.cli.common.run import run
from mm_tuning_plugin.cli.common.usage import add_run_options, make_parser
from mm_tuning_plugin.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

SCRIPT = 'train.py'
RUNNER = 'mm_tuning_plugin.MixAndMatchRunner'
MMPRETRAIN_TASKS = ('DenseCL', 'MAE', 'MoCo', 'SimSiam')
"""Models of mmpretrain that are proxy tasks. Ours, and a user's, say so: ``proxy_task``."""


def build_parser(prog: str = SCRIPT) -> argparse.ArgumentParser:
    """The options of the command."""
    parser = make_parser(
        prog,
        'Tune the backbone of an mmseg config by mix-and-match, then fine-tune it.',
        [
            'my_config.py --ssl-checkpoint moco_r50.pth',
            'my_config.py --ssl-checkpoint moco_r50.pth --no-tuning',
            'my_config.py --resume --cfg-options mix_and_match.max_iters=4000',
        ],
    )
    parser.add_argument('config', help='a config of an mmseg project')
    add_run_options(parser)
    parser.add_argument(
        '--no-tuning', action='store_true', help='the baseline: fine-tune from the same start'
    )
    parser.add_argument(
        '--resume', action='store_true', help='continue in the stage that was interrupted'
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace a finished tuning that other settings made',
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--compare', metavar='DIR', help="another run's --work-dir, set beside in the report"
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes it; mmengine reads the environment.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def load_config(path: str) -> Config:
    """Read a config file.

    Raises:
        UserError: It is missing, or is no config.
    """
    from mmengine.config import Config

    from mm_tuning_plugin.config_types import with_named_types

    if not os.path.isfile(path):
        raise UserError(path, 'no such file', 'expected a config of an mmseg project')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is code: it can raise anything
        package = missing_package(error)
        if package is not None:
            raise UserError(
                path,
                f'it imports {package}, which is not installed',
                f'install it beside mmseg: {remedy_for(f"No module named {package!r}")}',
            ) from error
        reason = f'{type(error).__name__}: {error}'.splitlines()[0]
        raise UserError(
            path, f'cannot be read as a config ({reason})', 'expected a config of an mmseg project'
        ) from error
    try:
        return with_named_types(cfg)
    except UserError as error:
        raise UserError(path, f'{error.where}: {error.problem}', error.remedy) from error


def merge_cfg_options(cfg: Config, pairs: Sequence[str]) -> None:
    """Merge ``KEY=VALUE`` arguments into a config, with mmengine's own parser of values.

    Raises:
        UserError: An argument has no ``=``, or its key leads nowhere.
    """
    from mmengine.config import DictAction

    for pair in pairs:
        if '=' not in pair:
            raise UserError('--cfg-options', f'{pair!r} found', 'expected KEY=VALUE')
    action = DictAction(['--cfg-options'], 'cfg_options', nargs='+')
    namespace = argparse.Namespace()
    action(argparse.ArgumentParser(), namespace, list(pairs))
    try:
        cfg.merge_from_dict(namespace.cfg_options)
    except (KeyError, IndexError, TypeError, AssertionError) as error:
        raise UserError(
            '--cfg-options',
            f'{" ".join(pairs)} does not fit ({" ".join(str(error).split())})',
            'expected KEYs of entries that the config has',
        ) from error


def enable_amp(cfg: Config) -> None:
    """Switch the optimizer wrapper to mixed precision, as mmseg's own ``--amp`` does.

    Raises:
        UserError: The wrapper is of another type, or there is no accelerator.
    """
    import torch

    from mm_tuning_plugin.config_types import base_type

    wrapper = cfg.get('optim_wrapper') or {}
    kind = base_type(wrapper)
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(
            '--amp', f'optim_wrapper of type {wrapper.get("type")!r} found', 'expected OptimWrapper'
        )
    if not torch.cuda.is_available():
        raise UserError('--amp', 'no accelerator found', 'expected one (leave --amp out on a CPU)')
    if kind == 'OptimWrapper':
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'


def apply_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Put the command's options into the config."""
    merge_cfg_options(cfg, args.cfg_options)
    given = cfg.get('mix_and_match') or {}
    if not isinstance(given, Mapping):
        raise UserError('mix_and_match', f'{given!r} found', 'expected a dict of options')
    options: dict[str, Any] = dict(given)
    if args.ssl_checkpoint is not None:
        options['checkpoint'] = args.ssl_checkpoint
    if args.allow_pickle:
        options['allow_pickle'] = True
    if args.no_tuning:
        options['enabled'] = False
    if args.overwrite:
        options['overwrite'] = True
    if args.compare is not None:
        options['compare'] = args.compare
    cfg.mix_and_match = options
    cfg.runner_type = RUNNER
    cfg.launcher = args.launcher
    cfg.resume = args.resume
    if args.work_dir == '':
        raise UserError('--work-dir', "'' found", 'expected the name of a folder')
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        # The baseline has its own folder, because both arms write checkpoints of the same names.
        name = os.path.splitext(os.path.basename(args.config))[0]
        cfg.work_dir = os.path.join('work_dirs', name + ('_no-tuning' if args.no_tuning else ''))
    if args.amp:
        enable_amp(cfg)


def is_proxy_task(cfg: Config) -> bool:
    """Whether a config trains a proxy task, which has a single stage."""
    from mmengine.registry import MODELS

    from mm_tuning_plugin.config_types import class_of, full_type

    model, scope = cfg.get('model') or {}, cfg.get('default_scope') or 'mmengine'
    if full_type(model, scope) in [f'mmpretrain.{name}' for name in MMPRETRAIN_TASKS]:
        return True
    return bool(getattr(class_of(model, MODELS, scope), 'proxy_task', False))


def train_proxy(cfg: Config, args: argparse.Namespace) -> None:
    """Train a proxy task.

    Raises:
        UserError: An option has no meaning here, mmpretrain is needed and cannot be imported, or
            something in the config cannot be built.
        SystemExit: After SIGINT or SIGTERM, with a checkpoint and one line.
    """
    for name in ('ssl_checkpoint', 'allow_pickle', 'no_tuning', 'overwrite'):
        if getattr(args, name):
            raise UserError(
                f'--{name.replace("_", "-")}',
                f'found for the proxy task {cfg.model.type}',
                'expected it for fine-tuning only, as a proxy starts at random and has a single '
                'stage',
            )
    scope = cfg.get('default_scope')
    error = import_error(f'{scope}.models') if scope == 'mmpretrain' else None
    if error:
        raise UserError(
            args.config, f'mmpretrain cannot be imported ({error})', 'expected it beside mmseg'
        )
    from mm_tuning_plugin.engine.single_stage import train_alone

    train_alone(cfg)


def main(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> None:
    """Train.

    Raises:
        UserError: A mistake of the user's.
    """
    args = build_parser(prog).parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    require_stack()
    cfg = load_config(args.config)
    apply_arguments(cfg, args)

    if is_proxy_task(cfg):
        train_proxy(cfg, args)
        return
    from mm_tuning_plugin.engine import MixAndMatchRunner

    MixAndMatchRunner.from_cfg(cfg).train()


def entry(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> int:
    """Run the command; return its exit status."""
    return run(partial(main, prog=prog), argv)


if __name__ == '__main__':
    sys.exit(entry())
