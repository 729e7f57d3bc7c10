"""Tries ideas for the recipe of stage one, quickly: rows of mIoU, paired over seeds.

python tools/search_recipe.py rows.csv --fold 2 --fraction 0.03125 --seeds 0 1 2 3

The network, the labels and the augmentation of an mmseg config, random starts, in one process
without runner, log or checkpoint. The ideas are in `recipe_ideas.py`; most are not in the package,
as they were not worth it. The rows give directions: what is kept is measured again by
``tools/benchmark.py``.

Shape legend: B crops of S x S pixels.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmseg.datasets.transforms import PhotoMetricDistortion
from mmseg.registry import DATASETS, MODELS
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from recipe_ideas import BASELINES, IDEAS, Idea, Matching

from mm_tuning_plugin.benchmark.design.splits import Library, read_folds
from mm_tuning_plugin.config_types import base_type

CONFIG = Path(__file__).resolve().parent.parent / 'configs/camvid/fcn_r18_camvid_cpu.py'
FIELDS = ('idea', 'fold', 'fraction', 'seed', 'tuning', 'fine_tuning', 'mIoU', 'IoU', 'seconds')
COST = 1.175  # steps of fine-tuning that one step of tuning costs, in FLOPs of the default recipe
STRONG = dict(
    brightness_delta=64, contrast_range=(0.25, 1.75), saturation_range=(0.25, 1.75), hue_delta=36
)


class Crops:
    """Endless training crops of a few images, as the config's pipeline makes them.

    Args:
        images: (image (H, W, 3) uint8 BGR, label map (H, W) uint8) of each.
        cfg: The config.
        idea: `views`, `strong` and `rare` count.
        seed: Of all that is drawn.
    """

    def __init__(self, images: Sequence[tuple], cfg: Config, idea: Idea, seed: int) -> None:
        self.images, self.idea, self.draws = images, idea, random.Random(seed)
        resize = next(step for step in cfg.train_pipeline if base_type(step) == 'RandomResize')
        self.scale, self.ratios, self.side = (
            resize['scale'],
            resize['ratio_range'],
            cfg.crop_size[0],
        )
        self.mean, self.std = (np.float32(cfg.model.data_preprocessor[k]) for k in ('mean', 'std'))
        self.colour = PhotoMetricDistortion(**(STRONG if idea.strong else {}))
        self.places = {  # images of each class
            c: where
            for c in range(256 - 1)
            if (where := [i for i, (_, labels) in enumerate(images) if (labels == c).any()])
        }
        self.order = self._endless()

    def _endless(self) -> Iterator[int]:
        while True:
            yield from self.draws.sample(range(len(self.images)), len(self.images))

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Normalised (B, 3, S, S), views of a place next to each other, and labels (B, S, S)."""
        pixels, labels = [], []
        for _ in range(size // self.idea.views):
            image, label = self._crop()
            beside = [(0, self.side - edge) for edge in label.shape]
            label = np.pad(label, beside, constant_values=255)
            for _ in range(self.idea.views):
                coloured = self.colour({'img': image.copy()})['img']
                normal = (coloured[..., ::-1].astype(np.float32) - self.mean) / self.std
                pixels.append(np.pad(normal, [*beside, (0, 0)]).transpose(2, 0, 1))
                labels.append(label)
        stacked = torch.from_numpy(np.ascontiguousarray(np.stack(pixels)))
        return stacked, torch.from_numpy(np.stack(labels)).long()

    def _crop(self) -> tuple[np.ndarray, np.ndarray]:
        target = self.draws.choice(list(self.places)) if self.idea.rare else None
        index = next(self.order) if target is None else self.draws.choice(self.places[target])
        image, labels = self.images[index]
        if self.idea.within:
            target = self.draws.choice([c for c, where in self.places.items() if index in where])
        ratio = self.draws.uniform(*self.ratios)
        size = tuple(round(edge * ratio) for edge in self.scale)
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
        for _ in range(10):  # as RandomCrop's cat_max_ratio
            window = self._window(labels, target)
            counts = np.bincount(labels[window].ravel(), minlength=256)[:255]
            if target is not None or (
                (counts > 0).sum() > 1 and counts.max() < 0.75 * counts.sum()
            ):
                break
        image, labels = image[window], labels[window]
        flip = slice(None, None, -1 if self.draws.random() < 0.5 else 1)
        return image[:, flip], labels[:, flip]

    def _window(self, labels: np.ndarray, target: int | None) -> tuple[slice, slice]:
        """A crop anywhere, or around a pixel of a class, as far as the image reaches."""
        corner = [self.draws.randint(0, max(edge - self.side, 0)) for edge in labels.shape]
        members = np.flatnonzero(labels == target) if target is not None else ()
        if len(members):
            middle = np.unravel_index(members[self.draws.randrange(len(members))], labels.shape)
            corner = [
                min(max(centre - self.side // 2, 0), max(edge - self.side, 0))
                for centre, edge in zip(middle, labels.shape)
            ]
        return tuple(slice(low, low + self.side) for low in corner)


def train(parameters: Sequence[nn.Parameter], cfg: Config, steps: int, loss: Any) -> None:
    """Minimise `loss()` for some steps: the config's AdamW, polynomial decay."""
    settings = {
        k: v for k, v in cfg.optim_wrapper.optimizer.items() if k not in ('type', '_delete_')
    }
    optimizer = torch.optim.AdamW(parameters, **settings)
    schedule = cfg.param_scheduler[0]
    for step in range(steps):
        share = (1 - step / steps) ** schedule['power']
        for group in optimizer.param_groups:
            group['lr'] = schedule['eta_min'] + (settings['lr'] - schedule['eta_min']) * share
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def evaluate(
    model: nn.Module, images: Sequence[tuple], crops: Crops, num_classes: int
) -> np.ndarray:
    """IoU of the classes in per cent, over the pixels of all images at their own size."""
    model.eval()
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for start in range(0, len(images), 16):
        chunk = images[start : start + 16]
        small = [cv2.resize(image, tuple(crops.scale))[..., ::-1] for image, _ in chunk]
        batch = torch.from_numpy((np.stack(small) - crops.mean) / crops.std).permute(0, 3, 1, 2)
        with torch.no_grad():
            scores = model.decode_head(model.backbone(batch.float().contiguous()))
            scores = F.interpolate(scores, batch.shape[2:], mode='bilinear')
            labels = np.stack([label for _, label in chunk])
            found = F.interpolate(scores, labels.shape[1:], mode='bilinear').argmax(1).numpy()
        known = labels < num_classes
        pairs = labels[known].astype(np.int64) * num_classes + found[known]
        matrix += np.bincount(pairs, minlength=num_classes**2).reshape(matrix.shape)
    hits = np.diag(matrix)
    return 100 * hits / np.maximum(matrix.sum(0) + matrix.sum(1) - hits, 1)


def run(name: str, cfg: Config, train_images: list, val_images: list, seed: int) -> dict[str, Any]:
    """One row: what an idea, or a baseline, comes to."""
    began = time.time()
    num_classes = cfg.model.decode_head.num_classes
    torch.manual_seed(seed)
    model = MODELS.build(cfg.model)
    model.init_weights()
    head = {key: value.clone() for key, value in model.decode_head.state_dict().items()}
    tuning, length = 0, cfg.train_cfg.max_iters
    if name in IDEAS:
        idea = IDEAS[name]
        tuning = round(cfg.mix_and_match.max_iters * idea.length)
        _seed(seed + 1000)
        crops = Crops(train_images, cfg, idea, seed + 1000)
        probe = model.backbone(torch.zeros(2, 3, crops.side, crops.side))
        matching = Matching(idea, [level.shape[1] for level in probe], num_classes)

        def loss() -> Tensor:
            images, labels = crops.batch(cfg.mix_and_match.images_per_batch)
            return matching(model.backbone(images), labels)

        train([*model.backbone.parameters(), *matching.parameters()], cfg, tuning, loss)
    else:
        extra = COST * cfg.mix_and_match.max_iters
        length = round(length + extra if name == 'direct-matched' else length * BASELINES[name])
    model.decode_head.load_state_dict(head)
    _seed(seed + 2000)
    crops = Crops(train_images, cfg, Idea(), seed + 2000)

    def fine_tuning_loss() -> Tensor:
        images, labels = crops.batch(cfg.train_dataloader.batch_size)
        scores = F.interpolate(
            model.decode_head(model.backbone(images)), labels.shape[1:], mode='bilinear'
        )
        # as mmseg: the mean over all pixels, ignored ones too
        return F.cross_entropy(scores, labels, ignore_index=255, reduction='none').mean()

    train(list(model.parameters()), cfg, length, fine_tuning_loss)
    ious = evaluate(model, val_images, crops, num_classes)
    return dict(
        idea=name, seed=seed, tuning=tuning, fine_tuning=length, mIoU=round(float(ious.mean()), 2),
        IoU=' '.join(f'{value:.1f}' for value in ious), seconds=round(time.time() - began),
    )  # fmt: skip


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)  # of the distortion of colours


def read_images(dataset: Mapping[str, Any], cfg: Config) -> list[tuple[np.ndarray, np.ndarray]]:
    """All (image, label map) of a data set, at their own size."""
    kinds = ('LoadImageFromFile', 'LoadAnnotations', 'MapLabels')
    steps = [step for step in cfg.train_pipeline if base_type(step) in kinds]
    samples = DATASETS.build(dict(dataset, pipeline=steps))
    return [(sample['img'], sample['gt_seg_map']) for sample in samples]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [*BASELINES, *IDEAS]
    parser.add_argument(
        'rows', type=Path, help='CSV that rows are added to; what it has is not run again'
    )
    parser.add_argument('--ideas', nargs='+', choices=known, default=known, metavar='IDEA',
                        help=', '.join(known))  # fmt: skip
    parser.add_argument('--fold', type=int, default=2)
    parser.add_argument('--fraction', type=float, default=0.03125, help='of the training labels')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2, 3])
    parser.add_argument('--part', default='0/1', help='I/N: every N-th row, from the I-th on')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    return parser.parse_args(arguments)


def main() -> None:
    """Run the rows that are lacking."""
    args = parse()
    MMLogger.get_instance('mmengine', log_level='ERROR')
    torch.set_num_threads(1)
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(args.cfg_options)
    init_default_scope('mmseg')
    fold = read_folds(Path(cfg.data_root) / 'folds.json')[args.fold]
    done = set()
    if args.rows.exists():
        with args.rows.open() as file:
            done = {(r['idea'], r['fold'], r['fraction'], r['seed']) for r in csv.DictReader(file)}
    wanted = [(seed, idea) for seed in args.seeds for idea in args.ideas]
    part, parts = (int(number) for number in args.part.split('/'))
    with tempfile.TemporaryDirectory() as folder:
        library = Library(Path(folder))
        whole = library.named(cfg.train_dataloader.dataset, fold['train']).dataset
        val_images = read_images(
            library.named(cfg.train_dataloader.dataset, fold['val']).dataset, cfg
        )
        for seed, idea in wanted[part::parts]:
            where = dict(fold=args.fold, fraction=args.fraction)
            if (idea, str(args.fold), str(args.fraction), str(seed)) in done:
                continue
            train_images = read_images(library.subset(whole, args.fraction, seed).dataset, cfg)
            row = {**run(idea, cfg, train_images, val_images, seed), **where}
            new = not args.rows.exists()
            with args.rows.open('a', newline='') as file:
                writer = csv.DictWriter(file, FIELDS)
                if new:
                    writer.writeheader()
                writer.writerow(row)
            print(*row.values(), flush=True)


if __name__ == '__main__':
    sys.exit(main())
