"""``python -m mm_tuning_plugin.cli.trial CONFIG ...``: two steps of both stages, for the doctor.

It takes the arguments of ``tools/train.py``. What is built, read and written is the same as in the
whole run, of which these are the first steps.
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


def make_cheap(cfg: Config) -> None:
    """Cut down what both stages of a config look at beside their steps, and tell nobody of them.

    How long they are stays as it is, and all that is measured against it: see `engine.short`.
    """
    options = dict(cfg['mix_and_match'], overwrite=False)
    for name in ('retrieval_images', 'bn_crops'):
        if options.get(name) or name == 'retrieval_images':
            options[name] = min(STEPS, options.get(name, STEPS))
    cfg['mix_and_match'] = options
    if isinstance(cfg.get('val_dataloader'), Mapping):
        sampler = dict(type='mm_tuning_plugin.FirstSampler', count=STEPS)
        cfg['val_dataloader'] = dict(cfg['val_dataloader'], sampler=sampler)
    # A backend of the user's could tell the world of a run that is none.
    visualizer = dict(cfg.get('visualizer') or dict(type='Visualizer'))
    cfg['visualizer'] = dict(visualizer, vis_backends=[dict(type='LocalVisBackend')])
    cfg['resume'] = False


def main(argv: Sequence[str] | None = None, prog: str = PROG) -> None:
    """Run the first steps of both stages.

    Raises:
        UserError: A mistake of the user's.
    """
    args: argparse.Namespace = build_parser(prog).parse_args(argv)
    require_stack()
    cfg = load_config(args.config)
    apply_arguments(cfg, args)
    make_cheap(cfg)
    from mm_tuning_plugin.inspection.short_run import ShortRun

    run = ShortRun.from_cfg(cfg)
    run.iterations = STEPS
    run.train()


if __name__ == '__main__':
    sys.exit(run(partial(main, prog=PROG)))
