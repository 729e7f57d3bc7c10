"""The match step: class-wise connected graphs over the nodes of a batch, and their triplets.

Shape legend: N nodes, E edges, T triplets.

Facts from Zhan et al., "Mix-and-Match Tuning for Self-Supervised Semantic Segmentation", AAAI 2018
(arXiv 1712.00661) and its released code (github XiaohangZhan/mix-and-match at 8d4c9df): nodes are
added in random order; each is linked to a random earlier node of its class. So each class becomes
one random recursive tree, which is connected and therefore pulls the class into one cluster. With n
independent random positives a class can fall into several parts.
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
    """One draw of the graph. All are (N,).

    All but `order` and `label` are sorted by class, then by order of entry.
    """

    order: Indices  # the nodes by order of entry
    label: NDArray[np.integer]  # their classes
    node: Indices  # index into the labels
    entry: Indices  # number of nodes that entered before it
    rank: Indices  # number of nodes of its class that entered before it; 0 for the root
    start: Indices  # position at which its class begins
    size: Indices  # number of nodes of its class
    positive: Indices  # position of its parent; for a root of any other member; invalid if alone


def class_connected_graph(labels: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Link the nodes of each class to one tree: a uniform random recursive tree per class.

    The distribution is that of adding all nodes in random order, each with a parent drawn uniformly
    from the earlier nodes of its class. Computed without a loop in O(N log N): in the order by
    class and entry, the parent of the k-th node of a class is one of the k positions before it.

    With the same generator state, `graph_triplets` draws the same graph.

    Args:
        labels: (N,) integers, the class of each node; no value has a special meaning.
        generator: Source of randomness, on the device of the labels or on the CPU.

    Returns:
        (2, E) int64 `edge_index`: children in row 0, their parents in row 1. A class of n nodes
        has n - 1 edges. They are sorted by class, then by the child's order of entry. Empty if no
        class has two nodes.

    Raises:
        ValueError: The labels are not an integer vector.

    Examples:
        >>> labels = torch.tensor([7, 3, 7, 3, 5])
        >>> edges = class_connected_graph(labels, generator=torch.Generator().manual_seed(0))
        >>> labels[edges]  # both ends of an edge have one class
        tensor([[3, 7],
                [3, 7]])
    """
    check_integers('labels', labels, '(N,)', 1)
    forest = _grow(labels, generator)
    child = forest.rank > 0
    edges = np.array((forest.node[child], forest.node[forest.positive[child]]))
    return torch.from_numpy(edges).to(labels.device)


def graph_triplets(labels: Tensor, *, generator: Generator | None = None) -> Triplets:
    """Draw the class-wise connected graph, and one triplet per node from it.

    The positive of a node is its parent in `class_connected_graph`; for a root it is uniform among
    the other members of its class. The negative is uniform among the earlier nodes of other
    classes, or among all nodes of other classes if there is no earlier one.

    Deviation from the released code: nodes without a positive or a negative are left out. There,
    the only node of a class is its own positive, and in a batch of one class the negative is a zero
    vector.

    Args:
        labels: (N,) integers, the class of each node; no value has a special meaning.
        generator: Source of randomness, on the device of the labels or on the CPU.

    Returns:
        T triplets, at most one per node as anchor, in the order of the graph. Empty for a batch of
        a single class, and if no class has two nodes.

    Raises:
        ValueError: The labels are not an integer vector.

    Examples:
        >>> labels = torch.tensor([0, 0, 1])
        >>> graph_triplets(labels, generator=torch.Generator().manual_seed(0))
        Triplets(anchor=tensor([0, 1]), positive=tensor([1, 0]), negative=tensor([2, 2]))
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
    """Draw the order of entry and the positive of each node."""
    order = permutation(len(labels), generator)
    label = on_host(labels)[order]
    entry = stable_order(label)
    begins, sizes, rank = find_runs(label[entry])
    start, size = begins.repeat(sizes), sizes.repeat(sizes)
    is_root = rank == 0
    # a root has no earlier node: it draws from the size - 1 positions after its own
    choice = indices_below(rank + is_root * (size - 1), generator)
    positive = start + is_root + choice
    return _Forest(order, label, order[entry], entry, rank, start, size, positive)


def _draw_negatives(forest: _Forest, generator: Generator | None) -> Indices:
    """Draw the order of entry of each node's negative; invalid in a batch of one class.

    The first try is any earlier node, since most are of other classes. If it has the node's own
    class (or there is no earlier node), one of the outsiders, the nodes of other classes, is drawn
    by its number. This is uniform too and cannot fail, but needs a binary search.

    The j-th outsider of a class, by order of entry, entered as number j + m, where m is the number
    of members of the class before it: those with at most j outsiders before them. The number of
    outsiders before a member increases along its class, so a binary search finds m.
    """
    total = len(forest.node)
    negative = indices_below(forest.entry, generator)
    retry = np.flatnonzero(forest.label[negative] == forest.label[forest.entry])
    outsiders = forest.entry - forest.rank  # (N,) other-class nodes that entered before
    earlier, start = outsiders[retry], forest.start[retry]
    spans = np.where(earlier > 0, earlier, total - forest.size[retry])
    j = indices_below(spans, generator)
    # start * total is an offset that makes one sorted sequence of all classes
    sequence = forest.start * total + outsiders
    negative[retry] = j + sequence.searchsorted(start * total + j, side='right') - start
    return negative
