"""Measures whether a long tuning stays flat: resident memory, open handles, threads, processes.

python tools/perf/long_run.py --steps 20000 --workers 2 --out docs/results/perf/long_run.json

A real stage one of a very small network on drawn images, with checkpoints, logs and all states as
in any run. Beside the JSON a picture is drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from run import hardware, versions

from mm_tuning_plugin.demo.dataset import METAINFO, write_demo_dataset
from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.engine.resume.runner import ResumableRunner

SAMPLES = 200


class ProcessHook(Hook):
    """Note what the process holds, `SAMPLES` times in the run."""

    priority = 'LOWEST'

    def __init__(self, steps: int) -> None:
        self.interval = max(1, steps // SAMPLES)
        self.samples: list[dict[str, float]] = []

    def after_train_iter(self, runner: Any, batch_idx: int, *_: Any, **__: Any) -> None:
        """Take a sample."""
        if batch_idx % self.interval == 0:
            histories = runner.message_hub.log_scalars.values()  # mmengine keeps every value
            kept = sum(sum(array.nbytes for array in history.data) for history in histories)
            self.samples.append({'step': batch_idx, **held(), 'log_histories_mib': kept / 2**20})


def held() -> dict[str, float]:
    """Resident MiB (that of loading workers included), handles, threads and child processes."""
    me = os.getpid()
    children = Path(f'/proc/{me}/task/{me}/children').read_text().split()
    pages = [int(Path(f'/proc/{pid}/statm').read_text().split()[1]) for pid in (me, *children)]
    mib = os.sysconf('SC_PAGE_SIZE') / 2**20
    return {
        'rss_mib': pages[0] * mib,
        'workers_rss_mib': sum(pages[1:]) * mib,
        'handles': len(os.listdir(f'/proc/{me}/fd')),
        'threads': len(os.listdir(f'/proc/{me}/task')),
        'children': len(children),
    }


def tiny_config(data: Path, work_dir: Path, steps: int, workers: int) -> Config:
    """The stage one of a project with a very small network."""
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(data),
        metainfo=dict(METAINFO),
        data_prefix=dict(img_path='img/train', seg_map_path='ann/train'),
        img_suffix='.jpg',
        seg_map_suffix='.png',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomCrop', crop_size=(32, 32)),
            dict(type='PackSegInputs'),
        ],
    )
    norm = dict(type='BN', requires_grad=True)
    config = dict(
        default_scope='mmseg',
        work_dir=str(work_dir),
        randomness=dict(seed=0),
        model=dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor', size=(32, 32)),
            backbone=dict(
                type='ResNet', depth=18, stem_channels=4, base_channels=4, norm_cfg=norm,
                out_indices=(0, 1, 2, 3),
            ),
            decode_head=dict(type='FCNHead', in_channels=32, in_index=3, channels=4, num_classes=8),
        ),
        train_dataloader=dict(
            batch_size=2, num_workers=workers, persistent_workers=workers > 0,
            sampler=dict(type='InfiniteSampler'), dataset=dataset,
        ),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
        mix_and_match=dict(
            max_iters=steps, images_per_batch=2, checkpoint_interval=max(1, steps // 40),
            retrieval_images=0,
        ),
    )  # fmt: skip
    return derive_tuning_config(Config(config))


def growth(samples: list[dict[str, float]], name: str) -> dict[str, float]:
    """Mean of the second fifth and of the last fifth of a run, and the slope from there on."""
    values = np.array([sample[name] for sample in samples])
    steps = np.array([sample['step'] for sample in samples])
    fifth = max(1, len(values) // 5)
    slope = np.polyfit(steps[fifth:], values[fifth:], 1)[0] if len(values) > fifth + 1 else 0.0
    return {
        'second_fifth': float(values[fifth : 2 * fifth].mean()),
        'last_fifth': float(values[-fifth:].mean()),
        'per_1000_steps': float(1000 * slope),
        'lowest': float(values.min()),
        'highest': float(values.max()),
    }


def draw(samples: list[dict[str, float]], path: Path) -> None:
    """Draw the samples over the steps."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 1, figsize=(7, 4.5), sharex=True, layout='constrained')
    steps = [sample['step'] for sample in samples]
    for name, label in (
        ('rss_mib', 'process'),
        ('workers_rss_mib', 'loading workers'),
        ('log_histories_mib', "mmengine's log histories"),
    ):
        axes[0].plot(steps, [sample[name] for sample in samples], label=label)
    for name in ('handles', 'threads', 'children'):
        axes[1].plot(steps, [sample[name] for sample in samples], label=name)
    axes[0].set_ylabel('resident memory, MiB')
    axes[1].set(xlabel='step', ylabel='count')
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.legend(loc='lower right')
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--steps', type=int, default=20_000)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--out', type=Path, required=True, metavar='FILE.json')
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = write_demo_dataset(
            Path(folder) / 'data', image_size=64, num_unlabelled=1, num_train=16, num_val=1
        )
        config = tiny_config(data, Path(folder) / 'run', options.steps, options.workers)
        runner = ResumableRunner.from_cfg(config)
        hook = ProcessHook(options.steps)
        runner.register_hook(hook)
        begun = time.time()
        runner.train()
        seconds = time.time() - begun
    names = [name for name in hook.samples[0] if name != 'step']
    report = {
        'steps': options.steps,
        'workers': options.workers,
        'seconds': round(seconds, 1),
        'hardware': hardware(torch.device('cpu')),
        'versions': versions(),
        'growth': {name: growth(hook.samples, name) for name in names},
        'samples': hook.samples,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
    draw(hook.samples, options.out.with_suffix('.png'))
    print(json.dumps(report['growth'], indent=1))


if __name__ == '__main__':
    main()
