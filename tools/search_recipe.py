"""Tries ideas for the recipe of stage one, quickly: rows of mIoU, paired over seeds.

python tools/search_recipe.py rows.csv --fold 2 --fraction 0.03125 --seeds 0 1 2 3

The network, the labels and the augmentation of an mmseg config, random starts, in one process
without runner, log or checkpoint. Each idea is one entry of `IDEAS`; most are not in the package,
as they were not worth it. The rows give directions: what is kept is measured again by
``tools/benchmark.py``.

Shape legend: B crops of S x S pixels, N nodes of D numbers, K keys they are compared with.
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
from typing import Any, NamedTuple

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

from mm_tuning_plugin import functional
from mm_tuning_plugin.benchmark.splits import Library, read_folds
from mm_tuning_plugin.functional.reading import read_at_points

CONFIG = Path(__file__).resolve().parent.parent / 'configs/camvid/fcn_r18_camvid_cpu.py'
FIELDS = ('idea', 'fold', 'fraction', 'seed', 'tuning', 'fine_tuning', 'mIoU', 'IoU', 'seconds')
TEMPERATURE, WIDTH = 0.1, 128
COST = 1.175  # steps of fine-tuning that one step of tuning costs, in FLOPs of the default recipe
BORDER = 3  # pixels: how near to another class a node of the border lies
STRONG = dict(
    brightness_delta=64, contrast_range=(0.25, 1.75), saturation_range=(0.25, 1.75), hue_delta=36
)


class Idea(NamedTuple):
    """One way to spend stage one.

    Attributes:
        loss: 'nodes' (balanced contrastive and prototypes), 'cross_entropy' or 'triplets'.
        length: Iterations, as a multiple of the config's; the comparison is unfair above 1.
        per_class: Most nodes of a class and crop.
        others: Whether positives are of other images alone, for nodes that have such.
        memory: Past nodes of each class that stay as further keys.
        views: Crops of one place that differ by their colours; nodes are at the same points.
        strong: Whether colours are distorted about twice as much as in fine-tuning.
        near: Share of the nodes that lie near another class.
        rare: Whether crops are centred on pixels of classes, all classes alike.
        within: The same, of the classes of the image whose turn it is.
        levels: Levels of the backbone that are read, each by a head of its own.
    """

    loss: str = 'nodes'
    length: float = 1
    per_class: int = 8
    others: bool = False
    memory: int = 0
    views: int = 1
    strong: bool = False
    near: float = 0
    rare: bool = False
    within: bool = False
    levels: tuple[int, ...] = (-1,)


IDEAS = {
    'default': Idea(),
    'cross-entropy': Idea('cross_entropy'),
    'triplets': Idea('triplets'),
    'other-images': Idea(others=True),
    'memory': Idea(memory=32),
    'two-views': Idea(views=2),
    'two-strong-views': Idea(views=2, strong=True),
    'borders': Idea(near=0.5),
    'rare-crops': Idea(rare=True),
    'class-crops': Idea(within=True),
    'class-crops-cross-entropy': Idea('cross_entropy', within=True),
    'rare-crops-cross-entropy': Idea('cross_entropy', rare=True),
    'levels-apart': Idea(levels=(0, 1, 2)),
    'long': Idea(length=4),
    'rare-crops-long': Idea(rare=True, length=4),
    'rare-crops-memory': Idea(rare=True, memory=32),
    'rare-crops-strong-views': Idea(rare=True, views=2, strong=True),
    'long-cross-entropy': Idea('cross_entropy', length=4),
}
BASELINES = {'direct': 1.0, 'direct-matched': None, 'direct-2x': 2.0}


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
        resize = next(step for step in cfg.train_pipeline if step['type'] == 'RandomResize')
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


class Matching(nn.Module):
    """Heads on the levels of a backbone, and the loss of an idea."""

    def __init__(self, idea: Idea, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.idea, self.num_classes = idea, num_classes
        classify = idea.loss == 'cross_entropy'
        self.heads = nn.ModuleList(
            nn.Linear(channels[level], num_classes if classify else WIDTH) for level in idea.levels
        )
        self.prototypes = nn.ParameterList(
            torch.randn(num_classes, WIDTH) for _ in idea.levels if idea.loss == 'nodes'
        )
        self.past: list[tuple[Tensor, Tensor] | None] = [None] * len(idea.levels)

    def forward(self, maps: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Maps (B, C_i, h_i, w_i) and labels (B, S, S) -> mean loss of the levels."""
        points, classes = self._points(labels)
        size = tuple(labels.shape[1:])
        losses = []
        for index, level in enumerate(self.idea.levels):
            rows = read_at_points(maps[level], points, size)
            outputs = self.heads[index](rows)
            if self.idea.loss == 'cross_entropy':
                losses.append(F.cross_entropy(outputs, classes))
            elif self.idea.loss == 'triplets':
                triplets = functional.graph_triplets(classes)
                losses.append(functional.triplet_margin_loss(outputs, triplets))
            else:
                unit = F.normalize(outputs, dim=1)
                near = functional.prototype_loss(unit, classes, self.prototypes[index], TEMPERATURE)
                losses.append(self._contrast(unit, classes, points[:, 0], index) + near)
        return torch.stack(losses).mean()

    def _points(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes (N, 3), image, y, x, and their classes (N,); views share their places."""
        points, classes = [], []
        for image, label in enumerate(labels):
            if image % self.idea.views:
                points.append(points[-1] + torch.tensor([1, 0, 0]))
                classes.append(classes[-1])
                continue
            wanted = round(self.idea.per_class * self.idea.near)
            drawn = []
            if wanted:
                drawn.append(functional.sample_points(border(label), wanted))
            if wanted < self.idea.per_class:
                drawn.append(functional.sample_points(label, self.idea.per_class - wanted))
            where = torch.cat([item.points for item in drawn])
            points.append(F.pad(where, (1, 0), value=image))
            classes.append(torch.cat([item.labels for item in drawn]))
        return torch.cat(points), torch.cat(classes)

    def _contrast(self, unit: Tensor, classes: Tensor, images: Tensor, index: int) -> Tensor:
        """Balanced contrastive loss of nodes (N, D) against these and past ones (K, D)."""
        if not self.idea.memory and not self.idea.others:
            return functional.supervised_contrastive_loss(unit, classes, TEMPERATURE, balanced=True)
        keys, of_keys = unit, classes
        if self.past[index] is not None:
            keys = torch.cat((unit, self.past[index][0]))
            of_keys = torch.cat((classes, self.past[index][1]))
        if self.idea.memory:
            kept = [torch.nonzero(of_keys == c)[: self.idea.memory, 0] for c in of_keys.unique()]
            kept = torch.cat(kept)
            self.past[index] = keys[kept].detach(), of_keys[kept]
        return balanced_contrast(unit, classes, keys, of_keys, images if self.idea.others else None)


def balanced_contrast(
    unit: Tensor, classes: Tensor, keys: Tensor, of_keys: Tensor, images: Tensor | None
) -> Tensor:
    """The balanced contrastive loss with further keys, the first N of which are the nodes.

    Args:
        unit: (N, D).
        classes: (N,).
        keys: (K, D).
        of_keys: (K,) classes.
        images: (N,) of the nodes, if positives are of other images where there are such.
    """
    counts = torch.bincount(of_keys).to(unit)
    itself = torch.eye(len(unit), len(keys), dtype=torch.bool)
    cosines = (unit @ keys.T / TEMPERATURE).masked_fill(itself, -1e4)
    positive = (classes[:, None] == of_keys) & ~itself
    if images is not None:
        apart = torch.ones_like(positive)
        apart[:, : len(unit)] = images[:, None] != images
        elsewhere = positive & apart
        positive = torch.where(elsewhere.any(1, keepdim=True), elsewhere, positive)
    number = positive.sum(1)
    pulled = (cosines * positive).sum(1) / number.clamp_min(1)
    terms = (cosines - counts[of_keys].log()).logsumexp(1) - pulled
    weights = (number > 0) / torch.bincount(classes).to(unit)[classes]
    return (terms * weights).sum() / weights.sum().clamp_min(1e-6)


def border(labels: Tensor) -> Tensor:
    """Labels (S, S), 255 except within `BORDER` pixels of another class."""
    values = labels.float()[None, None]
    window = dict(kernel_size=2 * BORDER + 1, stride=1, padding=BORDER)
    differs = F.max_pool2d(values, **window) != -F.max_pool2d(-values, **window)
    return torch.where(differs[0, 0], labels, 255)


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
    kinds = ('LoadImageFromFile', 'LoadAnnotations', 'mm_tuning_plugin.MapLabels')
    steps = [step for step in cfg.train_pipeline if step['type'] in kinds]
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
