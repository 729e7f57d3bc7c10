"""A benchmark's folder whose answers are known: scores come from areas, areas from planted IoUs."""

import json

import numpy as np

from mm_tuning_plugin.benchmark.report.tables import write_csv

CLASSES = ('sky', 'road', 'pole')
FLOPS = {'direct': 1.0, 'direct-matched': 1.4, 'direct-2x': 2.0, 'tuned': 1.4}
VERSIONS = dict(
    device='CPU', commit='abc', mm_tuning_plugin='1', torch='2', mmengine='3', mmcv='4', mmseg='5'
)


def job(arm, seed, iou, *, start='s', fraction=1.0, fold=0, images=20, noise=0.0, **more):
    """A row of results.csv and its areas: `iou` percent in each class and image, plus noise."""
    generator = np.random.default_rng(seed)
    iou = iou + noise * generator.normal(size=(images, len(CLASSES)))
    union = np.full(iou.shape, 10_000)
    intersect = np.round(union * iou / 100).astype(np.int64)
    per_class = 100 * intersect.sum(0) / union.sum(0)
    name = f'{start}-{fraction:g}-{arm}-fold{fold}-seed{seed}'
    row = dict(
        job=name, backbone='r18', start=start, arm=arm, fraction=fraction, fold=fold, seed=seed,
        images=100 * fraction, status='done', error='', mIoU=round(per_class.mean(), 2),
        **{f'IoU.{c}': round(v, 2) for c, v in zip(CLASSES, per_class)},
        flops=1e12 * FLOPS.get(arm, 1.4), seconds=36, recall=0.5, recall_start=0.25, **VERSIONS,
    )  # fmt: skip
    return {**row, **more}, (intersect, union)


def write(folder, jobs, plan=None, classes=CLASSES):
    """Write results.csv, areas/ and plan.json; a job whose areas are None has none."""
    (folder / 'areas').mkdir(parents=True, exist_ok=True)
    write_csv(folder / 'results.csv', [row for row, _ in jobs])
    for row, areas in jobs:
        if areas is not None:
            names = np.array([f'{i:03d}' for i in range(len(areas[0]))])
            path = folder / 'areas' / f'{row["job"]}.npz'
            np.savez(
                path, names=names, classes=np.array(classes), intersect=areas[0], union=areas[1]
            )
    plan = {'block_size': 5, 'command': 'python tools/benchmark.py PLAN', **(plan or {})}
    (folder / 'plan.json').write_text(json.dumps(plan), encoding='utf-8')
    return folder


def arms(scores, **more):
    """Jobs of several arms: `scores` gives the IoU of each seed, 0, 1, ..."""
    return [
        job(arm, seed, iou, **more) for arm, line in scores.items() for seed, iou in enumerate(line)
    ]
