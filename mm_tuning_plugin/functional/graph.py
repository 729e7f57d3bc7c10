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

import torch
from torch import Generator, Tensor

from ..structures import Triplets
from ._checks import check_integers
from ._draws import indices_below, permutation


class _Forest(NamedTuple):
    """One draw of the graph. All (N,) int64; all but `order` by class, in a class by entry."""

    order: Tensor  # the nodes by order of entry
    node: Tensor  # index into the labels
    entry: Tensor  # how many nodes entered before it
    rank: Tensor  # how many nodes of its class entered before it; 0 is the root
    start: Tensor  # place at which its class begins
    size: Tensor  # nodes of its class
    positive: Tensor  # place of its parent; of any other member for a root; void if it has none


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
    return torch.stack((forest.node[child], forest.node[forest.positive[child]]))


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
    usable = ((forest.size > 1) & (forest.size < len(labels))).nonzero().squeeze(1)
    return Triplets(
        anchor=forest.node.index_select(0, usable),
        positive=forest.node.index_select(0, forest.positive.index_select(0, usable)),
        negative=forest.order.index_select(0, negative_entry.index_select(0, usable)),
    )


def _grow(labels: Tensor, generator: Generator | None) -> _Forest:
    """Draws the order of entry and everybody's positive."""
    order = permutation(len(labels), generator, labels.device)  # (N,) by entry: node
    classes, entry = labels.index_select(0, order).sort(stable=True)
    _, index, counts = torch.unique_consecutive(classes, return_inverse=True, return_counts=True)
    start = (counts.cumsum(0) - counts).index_select(0, index)
    size = counts.index_select(0, index)
    rank = torch.arange(len(labels), device=labels.device) - start
    is_root = rank == 0
    # a root has no predecessor: it chooses among the size - 1 places after its own
    choice = indices_below(torch.where(is_root, size - 1, rank), generator)
    positive = start + is_root + choice
    return _Forest(order, order.index_select(0, entry), entry, rank, start, size, positive)


def _draw_negatives(forest: _Forest, generator: Generator | None) -> Tensor:
    """Draws for each node the order of entry of its negative; void in a batch of one class.

    The j-th node outside a class, by order of entry, entered as number j + m where m counts the
    members before it: those which have at most j outsiders before themselves. As the
    number of outsiders before a member rises along its class, m is a binary search.
    """
    total = len(forest.node)
    outsiders = forest.entry - forest.rank  # (N,) other-class nodes that entered before
    j = indices_below(
        torch.where(outsiders > 0, outsiders, total - forest.size), generator
    )  # (N,) j-th outsider
    offset = forest.start * total  # keeps the classes apart in one sorted sequence
    members = torch.searchsorted(offset + outsiders, offset + j, right=True) - forest.start
    return j + members
