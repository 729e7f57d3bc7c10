"""What the stages of the method hand to each other: named tuples of tensors, nothing else.

Shape legend: P patches of one image, M images, N nodes, T triplets, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class PatchBoxes(NamedTuple):
    """Labelled squares on one image.

    Attributes:
        boxes: (P, 4) int64, (y0, x0, y1, x1) in pixels, half-open; may reach outside the image.
        labels: (P,) int64, the class of each square's centre pixel.
    """

    boxes: Tensor
    labels: Tensor


class LabelledPoints(NamedTuple):
    """Labelled pixels of one image.

    Attributes:
        points: (P, 2) int64, (y, x) in pixels: the index of the pixel, whose centre is at +0.5.
        labels: (P,) int64, the class of each pixel.
    """

    points: Tensor
    labels: Tensor


class NodeBatch(NamedTuple):
    """The mixed nodes of a whole batch: what the tuner embeds.

    Attributes:
        images: (M, C, H, W) float32, normalised. For patch nodes every patch is one image.
        points: (N, 3) int64, (image, y, x): which image a node lies on and at which of its pixels.
        labels: (N,) int64, the class of each node.
    """

    images: Tensor
    points: Tensor
    labels: Tensor


class Triplets(NamedTuple):
    """Indices into the nodes of one batch: the interface between matching and loss.

    Attributes:
        anchor: (T,) int64.
        positive: (T,) int64, of the anchor's class, never the anchor itself.
        negative: (T,) int64, of another class.
    """

    anchor: Tensor
    positive: Tensor
    negative: Tensor
