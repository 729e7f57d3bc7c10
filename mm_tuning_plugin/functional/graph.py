"""The match step: class-wise connected graphs over the nodes of a batch, and triplets from them.

Shape legend: N nodes, E edges, T triplets.

Facts from Zhan et al., "Mix-and-Match Tuning for Self-Supervised Semantic Segmentation", AAAI 2018
(arXiv 1712.00661) and its released code (github XiaohangZhan/mix-and-match at 8d4c9df): the nodes
enter one after the other in a random order; each is tied to a random node of its own class that
is already there. So every class becomes one random recursive tree, connected by construction, which
is what pulls a class into one cluster: n independent random positives leave it in pieces.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from mm_tuning_plugin.functional.runs import find_runs, stable_order

from ..structures import Triplets
from ._checks import check_integers
from ._draws import Indices, indices_below, on_host, permutation


class _Forest(NamedTuple):
    """One draw of the graph. All (N,); all but the first two by class, in a class by entry."""

    order: Indices  # the nodes by order of entry
    label: NDArray[np.integer]  # their classes
    node: Indices  # index into the labels
    entry: Indices  # how many nodes entered before it
    rank: Indices  # how many nodes of its class entered before it; 0 is the root
    start: Indices  # place at which its class begins
    size: Indices  # nodes of its class
    positive: Indices  # place of its parent; of any other member for a root; void if it has none


def class_connected_graph(labels: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Ties the nodes of each class into one tree: a uniform random recursive tree per class.

    Equal in distribution to letting all nodes enter in a random order, each choosing its parent
    uniformly among the nodes of its class that are already there. Computed without that loop in
    O(N log N): sorted by class and order of entry, the parent of a class's k-th node is one of the
    k places before it.

    With the same generator state, `graph_triplets` draws this very graph.

    Args:
        labels: (N,) integers, the class of each node; any values, none is special.
        generator: Source of randomness, on the device of the labels or on the CPU.

    Returns:
        (2, E) int64 `edge_index`: children in row 0, their parents in row 1. A class of n nodes
        has n - 1 edges; edges come class by class, in a class by the child's order of entry.
        Empty where no class has two nodes.

    Raises:
        ValueError: If the labels are no integer vector.
    """
    check_integers('labels', labels, '(N,)', 1)
    forest = _grow(labels, generator)
    child = forest.rank > 0
    edges = np.array((forest.node[child], forest.node[forest.positive[child]]))
    return torch.from_numpy(edges).to(labels.device)


def graph_triplets(labels: Tensor, *, generator: Generator | None = None) -> Triplets:
    """Draws the class-wise connected graph and reads one triplet per node off it.

    The positive of a node is its parent in `class_connected_graph`; that of a root is uniform among
    the other members of its class. The negative is uniform among the nodes of other classes that
    entered earlier, and among all nodes of other classes where none did.

    Deviation from the released code, which takes a lone node as its own positive and a zero vector
    as the negative of a batch of one class: nodes without a positive or a negative are left out.

    Args:
        labels: (N,) integers, the class of each node; any values, none is special.
        generator: Source of randomness, on the device of the labels or on the CPU.

    Returns:
        T triplets, at most one per node as anchor, in the class-by-class order of the graph. Empty
        for a batch of a single class and where no class has two nodes.

    Raises:
        ValueError: If the labels are no integer vector.
    """
    check_integers('labels', labels, '(N,)', 1)
    forest = _grow(labels, generator)
    negative_entry = _draw_negatives(forest, generator)
    usable = np.flatnonzero((forest.size > 1) & (forest.size < len(labels)))
    anchor = forest.node[usable]
    positive = forest.node[forest.positive[usable]]
    negative = forest.order[negative_entry[usable]]
    triplets = np.array((anchor, positive, negative))
    return Triplets(*torch.from_numpy(triplets).to(labels.device).unbind())


def _grow(labels: Tensor, generator: Generator | None) -> _Forest:
    """Draws the order of entry and everybody's positive."""
    order = permutation(len(labels), generator)
    label = on_host(labels)[order]
    entry = stable_order(label)
    begins, sizes, rank = find_runs(label[entry])
    start, size = begins.repeat(sizes), sizes.repeat(sizes)
    is_root = rank == 0
    # a root has no predecessor: it chooses among the size - 1 places after its own
    choice = indices_below(rank + is_root * (size - 1), generator)
    positive = start + is_root + choice
    return _Forest(order, label, order[entry], entry, rank, start, size, positive)


def _draw_negatives(forest: _Forest, generator: Generator | None) -> Indices:
    """Draws for each node the order of entry of its negative; void in a batch of one class.

    Any node that entered earlier is tried first, as most are of other classes. Where it is of the
    node's own class (or nobody entered earlier), one of the outsiders is drawn by its number: that
    is as uniform, and cannot fail, but takes a binary search.

    The j-th node outside a class, by order of entry, entered as number j + m where m counts the
    members before it: those which have at most j outsiders before themselves. As the
    number of outsiders before a member rises along its class, m is found by that search.
    """
    total = len(forest.node)
    negative = indices_below(forest.entry, generator)
    retry = np.flatnonzero(forest.label[negative] == forest.label[forest.entry])
    outsiders = forest.entry - forest.rank  # (N,) other-class nodes that entered before
    earlier, start = outsiders[retry], forest.start[retry]
    spans = np.where(earlier > 0, earlier, total - forest.size[retry])
    j = indices_below(spans, generator)
    # the first node's number times `total` keeps the classes apart in one sorted sequence
    sequence = forest.start * total + outsiders
    negative[retry] = j + sequence.searchsorted(start * total + j, side='right') - start
    return negative
