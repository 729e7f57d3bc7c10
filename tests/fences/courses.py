"""Short training runs whose weights must not change: one for every loss, recipe and node kind."""

from __future__ import annotations

import copy
import hashlib
import platform
from importlib import metadata
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mm_tuning_plugin.engine import MixAndMatchRunner, derive_tuning_config

STEPS = 20
LOSSES = (
    'graph_triplet', 'expected_triplet', 'supervised_contrastive', 'balanced_contrastive',
    'prototype_contrastive', 'cross_entropy',
)  # fmt: skip
PATCHES = dict(size_range=(16, 32), patch_size=32)
GROUPED = dict(chunk_size=2, graph_groups=2, loss='graph_triplet', levels='all')
TUNING = {
    **{loss: dict(loss=loss) for loss in LOSSES},
    'paper': dict(recipe='paper', **PATCHES),
    'patches by class': dict(nodes='patches', balance='class', **PATCHES),
    'strong augmentation': dict(augment='strong', border_share=0.5),
    'chunks and groups': GROUPED,
    'pytorch-metric-learning': dict(
        loss=dict(type='mm_tuning_plugin.PMLLoss', loss='TripletMarginLoss')
    ),
}
BOTH_STAGES = {'default': {}, 'graph_triplet, crops': dict(loss='graph_triplet', bn_crops=4)}


def tuned(cfg: Config, options: dict) -> dict:
    """Weights after 20 steps of stage one."""
    cfg = copy.deepcopy(cfg)
    cfg.mix_and_match.update(options, max_iters=STEPS, retrieval_images=0, checkpoint_interval=99)
    derived = derive_tuning_config(cfg)
    # 4 images a batch, as in the toy; what observes is left out
    derived.custom_hooks = []
    runner = Runner.from_cfg(derived)
    return runner.train().state_dict()


def fine_tuned(cfg: Config, options: dict) -> dict:
    """Weights after 20 steps of each stage."""
    cfg = copy.deepcopy(cfg)
    cfg.mix_and_match.update(options, max_iters=STEPS, checkpoint_interval=99)
    cfg.train_cfg.update(max_iters=STEPS, val_interval=STEPS)
    return MixAndMatchRunner.from_cfg(cfg).train().state_dict()


def summary(state: dict) -> dict:
    """A digest of names and bits, and three numbers that another processor gives as well."""
    digest, values = hashlib.sha256(), []
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
        values.append(value.double().flatten())
    every = torch.cat(values)
    numbers = [every.sum().item(), every.abs().sum().item(), every.norm().item()]
    return dict(digest=digest.hexdigest()[:16], numbers=numbers)


def machine() -> str:
    """What the bits of a result depend on, besides the code: processor and torch."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    model = [line.partition(': ')[2] for line in lines if line.startswith('model name')]
    names = [model[0] if model else platform.processor(), torch.__version__]
    return ', '.join([*names, torch.backends.cpu.get_cpu_capability()])


def stack() -> str:
    """'fork' or 'original'."""
    try:
        metadata.distribution('onedl-mmengine')
    except metadata.PackageNotFoundError:
        return 'original'
    return 'fork'
