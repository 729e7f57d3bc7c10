"""``python -m mm_tuning_plugin.cli.trial CONFIG ...``: two steps of both stages, for the doctor.

It takes the arguments of ``tools/train.py``. All that costs time is cut short; what is built, read
and written is the same as in the whole run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mm_tuning_plugin.cli.environment import require_stack
from mm_tuning_plugin.cli.run import run
from mm_tuning_plugin.cli.train import apply_arguments, build_parser, load_config

if TYPE_CHECKING:
    from mmengine.config import Config

STEPS = 2
PROG = 'trial.py'


def shorten(cfg: Config) -> None:
    """Cut both stages of a config down to `STEPS` steps, and validation to as many images."""
    options = dict(cfg['mix_and_match'])
    options.update(max_iters=STEPS, checkpoint_interval=STEPS, val_interval=None, overwrite=False)
    for name in ('retrieval_images', 'bn_crops'):
        if options.get(name) or name == 'retrieval_images':
            options[name] = min(STEPS, options.get(name, STEPS))
    cfg['mix_and_match'] = options
    cfg['train_cfg'] = dict(type='IterBasedTrainLoop', max_iters=STEPS, val_interval=STEPS)
    hooks = dict(cfg.get('default_hooks') or {})
    given = dict(hooks.get('checkpoint') or dict(type='CheckpointHook'))
    hooks['checkpoint'] = dict(given, by_epoch=False, interval=STEPS)
    cfg['default_hooks'] = hooks
    cfg['log_processor'] = dict(by_epoch=False)
    if isinstance(cfg.get('val_dataloader'), Mapping):
        sampler = dict(type='mm_tuning_plugin.FirstSampler', count=STEPS)
        cfg['val_dataloader'] = dict(cfg['val_dataloader'], sampler=sampler)
    # A backend of the user's could tell the world of a run that is none.
    visualizer = dict(cfg.get('visualizer') or dict(type='Visualizer'))
    cfg['visualizer'] = dict(visualizer, vis_backends=[dict(type='LocalVisBackend')])
    cfg['resume'] = False


def main(argv: Sequence[str] | None = None, prog: str = PROG) -> None:
    """Run both stages, cut short.

    Raises:
        UserError: A mistake of the user's.
    """
    args: argparse.Namespace = build_parser(prog).parse_args(argv)
    require_stack()
    cfg = load_config(args.config)
    apply_arguments(cfg, args)
    shorten(cfg)
    from mm_tuning_plugin.engine import MixAndMatchRunner

    MixAndMatchRunner.from_cfg(cfg).train()


if __name__ == '__main__':
    sys.exit(run(partial(main, prog=PROG)))
