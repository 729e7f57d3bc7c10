"""Run two steps of both stages in a separate process, for the doctor.

``python -m mm_tuning_plugin.cli.common.trial_run CONFIG ...`` takes the arguments of
``tools/train.py``. It builds, reads and writes the same as the first steps of the whole run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mm_tuning_plugin.cli.common.environment import require_stack
from mm_tuning_plugin.cli.common.run import run
from mm_tuning_plugin.cli.train import apply_arguments, build_parser, load_config

if TYPE_CHECKING:
    from mmengine.config import Config

STEPS = 2
PROG = 'trial.py'


def make_cheap(cfg: Config) -> None:
    """Reduce validation, retrieval and BatchNorm estimation to a few images; log only locally.

    Both stages keep their lengths, because schedules depend on them. `ShortRun` ends early.
    """
    options = dict(cfg['mix_and_match'], overwrite=False)
    for name in ('retrieval_images', 'bn_crops'):
        if options.get(name) or name == 'retrieval_images':
            options[name] = min(STEPS, options.get(name, STEPS))
    cfg['mix_and_match'] = options
    if isinstance(cfg.get('val_dataloader'), Mapping):
        sampler = dict(type='mm_tuning_plugin.FirstSampler', count=STEPS)
        cfg['val_dataloader'] = dict(cfg['val_dataloader'], sampler=sampler)
    # A backend of the user's may publish runs; a trial is not one.
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
