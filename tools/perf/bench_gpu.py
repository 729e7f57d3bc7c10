"""GS1, GS2, GL1: the step of a large network on a GPU, and whether data keeps up with it.

Data set, transforms, loader and model are those that the package derives from a user's config; the
images are JPEG files, drawn into a temporary folder. On a CPU the same runs at a smoke size,
without a target.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from bench_cutting import image_like_a_photograph
from bench_sampling import dense
from bench_step import Stopwatch, as_comparison, check, update
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from timing import ROUNDS, Comparison, summary

from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.models import MixAndMatchTuner

CLASSES = [f'class {i}' for i in range(19)]
TARGET = 5.0  # percent, of each of the three


class Scale(NamedTuple):
    """How large: on a GPU, and for a smoke test on a CPU."""

    depth: int  # of the ResNet, at stride 32
    channels: int  # of its first stage
    files: int
    side: int  # of an image, pixels
    patch_images: int  # images of a batch of patches
    patches: int  # of an image
    patch_size: int  # pixels
    crops: int  # images of a batch of dense nodes
    points: int  # most of an image
    workers: int
    rounds: int


FULL = Scale(50, 64, 256, 512, 64, 16, 128, 16, 128, 8, 24)
SMOKE = Scale(18, 8, 4, 96, 2, 4, 32, 2, 16, 2, 3)


def write_files(root: Path, scale: Scale) -> None:
    """Draws photographs and label maps."""
    rng = np.random.default_rng(0)
    for folder in ('img', 'ann'):
        (root / folder).mkdir()
    for i in range(scale.files):
        image = image_like_a_photograph(rng, scale.side)
        cv2.imwrite(str(root / f'img/{i}.jpg'), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        labels = dense(scale.side, scale.side, rng).numpy().astype(np.uint8)
        cv2.imwrite(str(root / f'ann/{i}.png'), labels)


def tuning_config(root: Path, scale: Scale, points: bool, workers: int, pin: bool) -> Config:
    """Derives the config of stage one from a small mmseg project, as a user would have it."""
    norm = {'type': 'BN', 'requires_grad': True}
    backbone = {
        'type': 'ResNet', 'depth': scale.depth, 'base_channels': scale.channels,
        'stem_channels': scale.channels, 'norm_cfg': norm,
    }  # fmt: skip
    width = scale.channels * 8 * (4 if scale.depth >= 50 else 1)
    head = {
        'type': 'FCNHead', 'in_channels': width, 'in_index': 3, 'channels': 16,
        'num_classes': len(CLASSES), 'norm_cfg': norm,
    }  # fmt: skip
    normalisation = {
        'type': 'SegDataPreProcessor', 'mean': [123.7, 116.3, 103.5], 'std': [58.4, 57.1, 57.4],
        'bgr_to_rgb': True,
    }  # fmt: skip
    steps = [{'type': name} for name in ('LoadImageFromFile', 'LoadAnnotations')]
    steps += [{'type': 'RandomFlip', 'prob': 0.5}, {'type': 'PackSegInputs'}]
    dataset = {
        'type': 'BaseSegDataset', 'data_root': str(root), 'img_suffix': '.jpg',
        'data_prefix': {'img_path': 'img', 'seg_map_path': 'ann'}, 'seg_map_suffix': '.png',
        'metainfo': {'classes': CLASSES, 'palette': [[i] * 3 for i in range(19)]},
        'pipeline': steps,
    }  # fmt: skip
    if points:
        options = {'images_per_batch': scale.crops, 'nodes_per_image': scale.points}
    else:
        options = {
            'recipe': 'paper', 'images_per_batch': scale.patch_images,
            'nodes_per_image': scale.patches, 'patch_size': scale.patch_size,
            'size_range': (scale.side // 8, scale.side // 2),
        }  # fmt: skip
    return derive_tuning_config(
        Config({
            'default_scope': 'mmseg',
            'randomness': {'seed': 0},
            'model': {
                'type': 'EncoderDecoder', 'data_preprocessor': normalisation,
                'backbone': backbone, 'decode_head': head,
            },
            'train_dataloader': {
                'num_workers': workers, 'persistent_workers': workers > 0, 'pin_memory': pin,
                'dataset': dataset,
            },
            'optim_wrapper': {'type': 'OptimWrapper', 'optimizer': {'type': 'SGD', 'lr': 0.01}},
            'mix_and_match': options,
        })
    )  # fmt: skip


def build(cfg: Config, device: torch.device) -> tuple[MixAndMatchTuner, torch.optim.Optimizer]:
    """Builds the tuner, its weights in channels_last, and the optimizer of the recipe."""
    tuner = MODELS.build(cfg['model']).to(device, memory_format=torch.channels_last).train()
    return tuner, torch.optim.SGD(tuner.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)


def first_samples(batch: dict, count: int) -> dict:
    """Takes a smaller batch out of a batch."""
    return {key: batch[key][:count] for key in ('inputs', 'points', 'labels')}


def describe(cfg: Config, scale: Scale, batch: dict) -> str:
    """Names a setting by what is in its batch."""
    nodes = sum(map(len, batch['labels']))
    count, side = sum(map(len, batch['inputs'])), batch['inputs'][0].shape[-1]
    kind = 'dense nodes on' if 'Point' in cfg['model']['embedding']['type'] else 'patches,'
    return f'ResNet-{scale.depth}, bfloat16, channels_last, {nodes} {kind} {count} images of {side}'


def staged(name: str, cfg: Config, scale: Scale, device: torch.device) -> list[Comparison]:
    """Runs GS1 or GS2 on one batch that the loader made: stages, each to its end, and memory.

    Waiting for the device at the end of each stage adds what the host takes to launch it, so the
    share is an upper bound.
    """
    batch = next(iter(Runner.build_dataloader(cfg['train_dataloader'], seed=0)))
    tuner, optimizer = build(cfg, device)
    check(tuner, first_samples(batch, 2), device)
    if device.type == 'cuda':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    rounds = []
    for _ in range(ROUNDS + 2):
        watch = Stopwatch(device)
        update(tuner, batch, optimizer, watch, half=True)
        rounds.append(watch.spent)
    case = describe(cfg, scale, batch)
    on_gpu = device.type == 'cuda'
    results = [as_comparison(name, case, rounds[2:], TARGET if on_gpu else None)]
    if on_gpu:
        peak = torch.cuda.max_memory_allocated() / 2**20
        share = {'MiB a node': peak / sum(map(len, batch['labels']))}
        case = f'{case}: peak memory'
        results.append(Comparison(name, case, 'MiB', {'ours': summary([peak])}, share, None))
    return results


def waiting(cfg: Config, scale: Scale, device: torch.device) -> Comparison:
    """Runs GL1: how long the step waits for its batch, by the clock, in a row of real steps.

    What the workers have made in advance is used up first. The share is one of sums: batches come
    in bursts, which a median would not see.
    """
    iterator = iter(Runner.build_dataloader(cfg['train_dataloader'], seed=0))
    tuner, optimizer = build(cfg, device)
    waits, steps = [], []
    for _ in range(2 * scale.workers + scale.rounds):
        start = time.perf_counter()
        batch = next(iterator)
        ready = time.perf_counter()
        data = tuner.data_preprocessor(batch, True)
        with torch.autocast(device.type, torch.bfloat16):
            loss = tuner(**data, mode='loss')['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # as logging does in every step of a real run
        waits.append(1e3 * (ready - start))
        steps.append(1e3 * (time.perf_counter() - ready))
    waits, steps = waits[-scale.rounds :], steps[-scale.rounds :]
    whole = [wait + step for wait, step in zip(waits, steps)]
    figures = {'ours': summary(whole), 'waiting': summary(waits), 'step': summary(steps)}
    share = {'percent waiting for data': 100 * sum(waits) / sum(whole)}
    case = f'{describe(cfg, scale, batch)}, JPEG files, {scale.workers} workers'
    target = TARGET if device.type == 'cuda' else None
    return Comparison('GL1', case, 'ms', figures, share, target, lower_is_better=True)


def run(wanted: set[str], device: torch.device) -> list[Comparison]:
    """Runs GS1, GS2 and GL1."""
    on_gpu = device.type == 'cuda'
    scale = FULL if on_gpu else SMOKE
    results = []
    with tempfile.TemporaryDirectory() as folder, DefaultScope.overwrite_default_scope('mmseg'):
        root = Path(folder)
        write_files(root, scale)
        for name, points in (('GS1', False), ('GS2', True)):
            if name in wanted:
                cfg = tuning_config(root, scale, points, 0, on_gpu)
                results += staged(name, cfg, scale, device)
        if 'GL1' in wanted:
            cfg = tuning_config(root, scale, False, scale.workers, on_gpu)
            results.append(waiting(cfg, scale, device))
    return results
