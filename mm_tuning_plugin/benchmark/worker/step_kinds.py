"""Run one step in this process: one function for each kind of step."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

from mm_tuning_plugin.atomic_write import write_json
from mm_tuning_plugin.benchmark.code import code_digest
from mm_tuning_plugin.benchmark.settings import RUN, STEP_OPTIONS
from mm_tuning_plugin.benchmark.steps import RECORD_FILE, Step, read_step
from mm_tuning_plugin.benchmark.worker.observe_hook import OBSERVED, START
from mm_tuning_plugin.benchmark.worker.retrieval import measure_recall
from mm_tuning_plugin.checkpoint import hash_state_dict, save_backbone
from mm_tuning_plugin.checkpoint.io.read import read_content
from mm_tuning_plugin.datasets.wrappers import random_state
from mm_tuning_plugin.engine import MixAndMatchRunner
from mm_tuning_plugin.engine.common.models import unwrap
from mm_tuning_plugin.engine.report.versions import commit, device_name, versions
from mm_tuning_plugin.engine.single_stage import train_alone
from mm_tuning_plugin.errors import UserError

Weights = Mapping[str, Tensor]


class Made(NamedTuple):
    """The result of a step. It is renamed to the product after the record is written.

    Attributes:
        path: The file.
        weights: The final weights of the backbone.
        metrics: By name.
    """

    path: Path
    weights: Weights
    metrics: dict[str, float | None]


def run_step(folder: Path) -> None:
    """Run the step that a folder was prepared for; resume it if it was interrupted.

    Writes ``record.json``, then the product.

    Raises:
        UserError: The folder is not prepared, a needed file is missing, or the config is wrong.
        SystemExit: After SIGINT or SIGTERM, with a checkpoint.
    """
    step = read_step(folder)
    if step.finished:
        return
    code_digest()  # cached now, as the files may change while the step runs
    for need in step.needs:
        if not need.is_file():
            raise UserError(
                f'{need}',
                f'no such file, and {step.name} needs it',
                'expected it to be made before',
            )
    cfg = copy.deepcopy(step.cfg)
    cfg['resume'] = any(Path(cfg['work_dir']).rglob('*.pth'))
    checkpoint = (cfg.get('mix_and_match') or {}).get('checkpoint')
    if checkpoint and cfg[STEP_OPTIONS].get('random_start'):
        write_random_start(cfg, Path(checkpoint))
    made = RUNS[step.kind](step, cfg)
    write_json(folder / RECORD_FILE, _record(step, made))
    os.replace(made.path, step.product)
    _clear_away(step)


def write_random_start(cfg: Config, path: Path) -> None:
    """Write the backbone of a config, initialised from its seed, unless the file exists.

    Tuning and fine-tuning draw different random numbers before they initialise the backbone, so
    without this file they would start from different weights.
    """
    if path.is_file():
        return
    scope = cfg.get('default_scope') or 'mmseg'
    with random_state(cfg['randomness']['seed']), DefaultScope.overwrite_default_scope(scope):
        backbone = MODELS.build(copy.deepcopy(cfg['model']['backbone']))
        backbone.init_weights()
    weights = backbone.state_dict()
    save_backbone(path, weights, dict(hash_after=hash_state_dict(weights)))


def _run_proxy(step: Step, cfg: Config) -> Made:
    backbone = getattr(unwrap(train_alone(cfg)), 'backbone', None)
    if backbone is None:
        raise UserError('model.backbone', f'none found in {step.name}', 'expected a model with one')
    return _keep_backbone(step, backbone.state_dict())


def _run_tuning(step: Step, cfg: Config) -> Made:
    path = MixAndMatchRunner.from_cfg(cfg).tune()
    return Made(path, read_content(path)['state_dict'], {})


def _run_first_pass(step: Step, cfg: Config) -> Made:
    model = MixAndMatchRunner.from_cfg(cfg).train()
    return _keep_backbone(step, unwrap(model).backbone.state_dict())


def _run_fine_tuning(step: Step, cfg: Config) -> Made:
    model = MixAndMatchRunner.from_cfg(cfg).train()
    path = step.folder / RUN / 'areas.npz'
    return Made(path, unwrap(model).backbone.state_dict(), read_metrics(path))


RUNS: dict[str, Callable[[Step, Config], Made]] = {
    'proxy': _run_proxy,
    'tuning': _run_tuning,
    'first_pass': _run_first_pass,
    'fine_tuning': _run_fine_tuning,
}


def read_metrics(path: Path) -> dict[str, float | None]:
    """mIoU, mAcc, aAcc and each class's IoU, in percent, from the areas of `ImageIoUMetric`.

    As mmseg computes them, unrounded. A class that neither label nor prediction has is None, and
    counts in no mean.
    """
    with np.load(path, allow_pickle=False) as file:
        classes = [str(name) for name in file['classes']]
        intersect, union, label = (file[k].sum(0) for k in ('intersect', 'union', 'label'))  # (C,)
    with np.errstate(invalid='ignore', divide='ignore'):
        iou, accuracy = 100 * intersect / union, 100 * intersect / label
        values = {
            'mIoU': np.nanmean(iou),
            'mAcc': np.nanmean(accuracy),
            'aAcc': 100 * intersect.sum() / label.sum(),
            **{f'IoU.{name}': value for name, value in zip(classes, iou)},
        }
    return {
        name: round(float(value), 6) if np.isfinite(value) else None
        for name, value in values.items()
    }


def _keep_backbone(step: Step, weights: Weights) -> Made:
    path = step.folder / f'unfinished_{step.product.name}'
    save_backbone(path, weights, dict(hash_after=hash_state_dict(weights)))
    return Made(path, weights, {})


def _record(step: Step, made: Made) -> dict[str, Any]:
    observed = json.loads((step.folder / OBSERVED).read_text(encoding='utf-8'))
    options = step.cfg[STEP_OPTIONS]
    start = step.folder / START
    recall = recall_start = None
    if 'recall' in options:
        ask = step.cfg, *(options[name] for name in ('gallery', 'queries', 'recall'))
        recall = measure_recall(*ask, made.weights)
        if options.get('from_start', True):
            recall_start = measure_recall(*ask, read_content(start)['state_dict'])
    return dict(
        kind=step.kind,
        name=step.name,
        **observed,
        flops=step.flops,
        device=device_name(),
        versions=versions(),
        commit=commit(),
        code=code_digest(),
        images=options['images'],
        metrics=made.metrics,
        recall=recall,
        recall_start=recall_start,
    )


def _clear_away(step: Step) -> None:
    """Remove the files that only an unfinished step needs."""
    (step.folder / START).unlink(missing_ok=True)
    if not step.cfg[STEP_OPTIONS].get('keep_checkpoints'):
        for path in (step.folder / RUN).rglob('*.pth'):
            path.unlink()
