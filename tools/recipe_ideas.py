"""Ideas for the recipe of stage one: what they are called, and their losses.

What `search_recipe.py` tries; each is one entry of `IDEAS`. Shape legend: B crops of S x S pixels,
N nodes of D numbers, K keys they are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm_tuning_plugin import functional
from mm_tuning_plugin.functional.points import near_border
from mm_tuning_plugin.functional.reading import read_at_points

TEMPERATURE, WIDTH = 0.1, 128


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
    """Labels (S, S), 255 except near another class."""
    return torch.where(torch.from_numpy(near_border(labels)), labels, 255)
