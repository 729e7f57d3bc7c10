"""Data between the steps of the method: named tuples of tensors.

Shape legend: P patches of one image, M images, N nodes, T triplets, C channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

Sample = dict[str, Any]
"""One sample on its way through the transforms: ``img``, ``gt_seg_map``, paths and more."""


class PatchBoxes(NamedTuple):
    """Labelled squares on one image.

    Attributes:
        boxes: (P, 4) int64, (y0, x0, y1, x1) in pixels, half-open; may exceed the image.
        labels: (P,) int64, the class of each square's centre pixel.
    """

    boxes: Tensor
    labels: Tensor


class LabelledPoints(NamedTuple):
    """Labelled pixels of one image.

    Attributes:
        points: (P, 2) int64, (y, x), pixel indices; the centre of a pixel is at +0.5.
        labels: (P,) int64, the class of each pixel.
    """

    points: Tensor
    labels: Tensor


class NodeBatch(NamedTuple):
    """The mixed nodes of a whole batch.

    Attributes:
        images: (M, C, H, W) float32, normalised. If nodes are patches, each patch is one image.
        points: (N, 3) int64, (image, y, x): the image of each node and the pixel on it.
        labels: (N,) int64, the class of each node.
    """

    images: Tensor
    points: Tensor
    labels: Tensor


class Triplets(NamedTuple):
    """Indices of nodes of one batch, from the graph to the loss.

    Attributes:
        anchor: (T,) int64.
        positive: (T,) int64, of the anchor's class, never the anchor itself.
        negative: (T,) int64, of another class.
    """

    anchor: Tensor
    positive: Tensor
    negative: Tensor
