"""The `paper` recipe's graph: a class is a random recursive tree, by exact laws and by the loop.

A tree in which the k-th node chooses its parent uniformly among the k - 1 before it is well known:
the children of its root and the depth of its last node follow Stirling's numbers of the first kind,
its nodes without children Euler's. Degrees at the size of a batch, which classes mix, are compared
with the plain loop, which has the mended rules: a lone node is not its own positive, a batch of one
class has no negatives (there: itself, and a vector of zeros).

Elsewhere: the exact joint law of the triplets of small batches, connectedness, batches without
triplets (tests/functional/test_graph.py); 576 nodes at once (test_paper_step.py).
"""

import math
import random
from functools import cache

import numpy as np
import pytest
import torch
from laws import LEAST_P, p_of_counts, p_of_law, p_of_sizes
from reference import graph as reference

from mm_tuning_plugin.functional import class_connected_graph, graph_triplets

TREE = 10  # nodes of the class that is looked at
TREES = 4000


@cache
def stirling(n, k):
    """Permutations of n things with k cycles."""
    if n == 0 or k == 0:
        return int(n == k)
    return stirling(n - 1, k - 1) + (n - 1) * stirling(n - 1, k)


@cache
def euler(n, k):
    """Permutations of n things with k descents."""
    if n == 0 or k < 0 or k >= n:
        return int(n == k == 0)
    return (k + 1) * euler(n - 1, k) + (n - k) * euler(n - 1, k - 1)


LAW = {
    'children of the root': lambda k: stirling(TREE - 1, k),
    'depth of the last': lambda k: stirling(TREE - 1, k),
    'nodes without children': lambda k: euler(TREE - 1, k - 1),
}


def grown_by_us(labels, generator):
    """The parent of each node of class 0 but the root, by order of entry, as (child, parent)."""
    edges = class_connected_graph(torch.tensor(labels), generator=generator)
    return [(c, p) for c, p in zip(*edges.tolist()) if labels[c] == 0]


def grown_by_the_loop(labels, rng):
    order, positive, _ = reference.grow(labels, rng)
    return [(i, positive[i]) for i in order if labels[i] == 0][1:]


@pytest.fixture(scope='module', params=['ours', 'loop'])
def trees(request):
    labels = [0] * TREE + [1] * 6 + [2] * 3 + [3]
    random.Random(0).shuffle(labels)
    if request.param == 'ours':
        generator = torch.Generator().manual_seed(1)
        return [grown_by_us(labels, generator) for _ in range(TREES)]
    rng = random.Random(2)
    return [grown_by_the_loop(labels, rng) for _ in range(TREES)]


def shape_of(tree):
    """What LAW speaks of, of a tree of (child, parent)."""
    depth, children = {tree[0][1]: 0}, {tree[0][1]: 0}
    for child, parent in tree:
        assert child not in depth  # and its parent entered before it, or this is no key:
        depth[child], children[child] = depth[parent] + 1, 0
        children[parent] += 1
    return {
        'children of the root': children[tree[0][1]],
        'depth of the last': depth[tree[-1][0]],
        'nodes without children': sum(number == 0 for number in children.values()),
    }


def test_a_class_is_a_random_recursive_tree(trees):
    assert {len(tree) for tree in trees} == {TREE - 1}
    shapes = [shape_of(tree) for tree in trees]
    for name, number in LAW.items():
        law = {k: number(k) / math.factorial(TREE - 1) for k in range(1, TREE)}
        assert sum(law.values()) == pytest.approx(1)
        assert p_of_law([shape[name] for shape in shapes], law) > LEAST_P, name


def batch(images, foreground):
    """Labels as the recipe draws them: of each image one background, the others of 20 classes."""
    rng = np.random.default_rng(0)
    often = 1 / np.arange(1, 21)  # in the smallest batch there are singletons
    own = rng.choice(np.arange(1, 21), (images, foreground), p=often / often.sum())
    return np.concatenate((own, np.zeros((images, 1), int)), axis=1).flatten().tolist()


def degrees_of(anchor, positive, negative, labels):
    """One number of each kind from a graph: how far its nodes are used."""
    count = len(labels)
    taken = np.bincount(positive, minlength=count)
    pushed = np.bincount(negative, minlength=count)
    labels = np.asarray(labels)
    return {
        'never a positive': int((taken == 0).sum()),
        'once a positive': int((taken == 1).sum()),
        'most often a positive': int(taken.max()),
        'never a negative': int((pushed == 0).sum()),
        'most often a negative': int(pushed.max()),
        'background as negative': int((labels[negative] == 0).sum()),
    }


@pytest.mark.parametrize(
    ('images', 'foreground', 'draws'), [(4, 9, 3000), (16, 8, 1000), (40, 9, 300)]
)
def test_degrees_in_a_batch_follow_the_loop(images, foreground, draws):
    """A tenth of AlexNet's batch, VGG-16's on one GPU, AlexNet's."""
    labels = batch(images, foreground)
    tensor, generator = torch.tensor(labels), torch.Generator().manual_seed(3)
    rng, seen = random.Random(4), ([], [])
    for _ in range(draws):
        ours = [index.tolist() for index in graph_triplets(tensor, generator=generator)]
        loop = [list(index) for index in zip(*reference.triplets(labels, rng, reference.grow_lean))]
        assert sorted(ours[0]) == sorted(loop[0])  # the same anchors: a triplet a node, singles not
        for which, triplets in enumerate((ours, loop)):
            seen[which].append(degrees_of(*triplets, labels))
    for name in seen[0][0]:
        ours, loop = ([degrees[name] for degrees in some] for some in seen)
        assert p_of_sizes(ours, loop) > LEAST_P, name
        assert p_of_counts(ours, loop) > LEAST_P, name
