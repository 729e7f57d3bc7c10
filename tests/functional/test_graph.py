"""Graph and triplets: the exact joint distribution, invariants, edges, messages."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import graph as reference
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2_contingency, chisquare

from mm_tuning_plugin.functional import class_connected_graph, graph_triplets

LABELS = st.lists(st.integers(-2, 4), max_size=40)


def exact_distribution(labels):
    """Probability of each ((anchor, positive, negative), ...), by going through all orders."""
    everyone = range(len(labels))
    probability = Counter()
    orders = list(itertools.permutations(everyone))
    for order in orders:
        choices = []
        for at, i in enumerate(order):
            before = order[:at]
            same = [j for j in before if labels[j] == labels[i]]
            same = same or [j for j in everyone if labels[j] == labels[i] and j != i]
            other = [j for j in before if labels[j] != labels[i]]
            other = other or [j for j in everyone if labels[j] != labels[i]]
            if same and other:
                choices.append([(i, p, n) for p in same for n in other])
        outcomes = 1
        for choice in choices:
            outcomes *= len(choice)
        for outcome in itertools.product(*choices):
            probability[tuple(sorted(outcome))] += 1 / outcomes / len(orders)
    return probability


@pytest.mark.parametrize('labels', [[0, 1, 1, 0, 1], [3, 0, 0, 7, 0], [2, 2, 2, 5]])
def test_triplets_have_the_exact_joint_distribution(labels, device, seeded):
    expected = exact_distribution(labels)
    draws, generator = 12000, seeded(1)
    tensor = torch.tensor(labels, device=device)
    seen = Counter()
    for _ in range(draws):
        triplets = graph_triplets(tensor, generator=generator)
        seen[tuple(sorted(zip(*(index.tolist() for index in triplets))))] += 1
    assert set(seen) <= set(expected)
    outcomes = sorted(expected, key=expected.get)
    # outcomes that are too rare for the test's approximation are taken together
    groups = np.cumsum([expected[o] * draws for o in outcomes]) // 8
    observed = np.bincount(groups.astype(int), [seen[o] for o in outcomes])
    model = np.bincount(groups.astype(int), [expected[o] * draws for o in outcomes])
    observed, model = observed[model > 0], model[model > 0]
    assert chisquare(observed, model * observed.sum() / model.sum()).pvalue > 0.001


def tree_of(edges, size):
    """The parents' ranks by entry, and how many children each rank has, for one class."""
    rank = {}
    parents = []
    for child, parent in zip(*edges.tolist()):
        if not rank:
            rank[parent] = 0
        rank[child] = len(rank)
        parents.append(rank[parent])
    return parents, np.bincount(parents, minlength=size)


def test_parents_are_uniform_among_the_predecessors(device, seeded):
    size, draws, generator = 8, 2500, seeded(2)
    labels = torch.tensor([0] * size + [1] * 5, device=device)
    labels = labels[torch.randperm(len(labels), generator=generator, device=device)]
    ranks, first = np.zeros((size, size)), Counter()
    for _ in range(draws):
        edges = class_connected_graph(labels, generator=generator)
        edges = edges[:, labels[edges[0]] == 0]
        for child, parent in enumerate(tree_of(edges, size)[0], start=1):
            ranks[child, parent] += 1
        first[int(edges[1, 0])] += 1
    for child in range(2, size):
        assert ranks[child, child:].sum() == 0
        assert chisquare(ranks[child, :child]).pvalue > 0.001, child
    assert chisquare(list(first.values())).pvalue > 0.001  # anyone may be the root
    assert len(first) == size


def shape_counts(positives, negatives, labels):
    """Histograms of how often a node is taken as positive and as negative."""
    count = len(labels)
    positive = np.bincount(np.bincount(positives, minlength=count), minlength=12)
    negative = np.bincount(np.bincount(negatives, minlength=count), minlength=12)
    return positive[:12], negative[:12]


def test_degrees_match_the_plain_loop_in_a_batch_of_the_usual_size(device, seeded):
    generator, rng = seeded(3), random.Random(3)
    labels = torch.randint(0, 9, (144,), generator=torch.Generator().manual_seed(5))
    ours, theirs = np.zeros((2, 12)), np.zeros((2, 12))
    for _ in range(150):
        triplets = graph_triplets(labels.to(device), generator=generator)
        ours += shape_counts(triplets.positive.cpu(), triplets.negative.cpu(), labels)
        plain = np.array(reference.triplets(labels.tolist(), rng, reference.grow_lean))
        theirs += shape_counts(plain[:, 1], plain[:, 2], labels)
    for mine, plain in zip(ours, theirs):
        common = (mine + plain) > 40
        assert chi2_contingency(np.stack((mine, plain))[:, common]).pvalue > 0.001


@pytest.mark.parametrize('sizes', [(3, 4), (1, 6), (2, 2, 2, 20)])
def test_the_two_reference_loops_agree(sizes):
    labels = [c for c, size in enumerate(sizes) for _ in range(size)]
    full = reference.triplets(labels, random.Random(0))
    lean = reference.triplets(labels, random.Random(0), reference.grow_lean)
    assert sorted(t[0] for t in full) == sorted(t[0] for t in lean)


@settings(max_examples=150, deadline=None)
@given(LABELS, st.integers(0, 1000))
def test_each_class_is_one_tree(labels, seed):
    labels = torch.tensor(labels, dtype=torch.int64)
    edges = class_connected_graph(labels, generator=torch.Generator().manual_seed(seed))
    classes = labels.unique()
    assert edges.shape == (2, len(labels) - len(classes))
    assert edges.dtype == torch.int64
    assert (labels[edges[0]] == labels[edges[1]]).all()
    assert len(edges[0].unique()) == edges.shape[1]  # one parent each
    matrix = coo_matrix((np.ones(edges.shape[1]), edges.numpy()), (len(labels), len(labels)))
    parts = connected_components(matrix, directed=False)[0] if len(labels) else 0
    assert parts == len(classes)  # with N - classes edges: connected, hence without a cycle


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_any_integer_labels_make_the_same_graph(dtype):
    labels = torch.arange(60) % 7
    spread = labels.to(dtype) * {torch.uint8: 40, torch.int16: 5000}.get(dtype, 65536)
    one, two = (
        graph_triplets(values, generator=torch.Generator().manual_seed(3))
        for values in (labels, spread)  # multiples of 65536 are alike in their lowest 16 bits
    )
    assert all(torch.equal(a, b) for a, b in zip(one, two))


@settings(max_examples=150, deadline=None)
@given(LABELS, st.integers(0, 1000))
def test_triplets_and_graph_are_one_draw(labels, seed):
    labels = torch.tensor(labels, dtype=torch.int64)
    edges = class_connected_graph(labels, generator=torch.Generator().manual_seed(seed))
    triplets = graph_triplets(labels, generator=torch.Generator().manual_seed(seed))
    anchor, positive, negative = triplets
    assert all(index.dtype == torch.int64 for index in triplets)
    size = (labels[:, None] == labels).sum(1)
    usable = ((size > 1) & (size < len(labels))).nonzero().flatten()
    assert anchor.sort().values.tolist() == usable.tolist()  # each node with both, once
    assert (labels[anchor] == labels[positive]).all() and (anchor != positive).all()
    assert (labels[anchor] != labels[negative]).all()
    parents = dict(zip(*edges.tolist()))
    for a, p in zip(anchor.tolist(), positive.tolist()):
        assert parents.get(a, p) == p


def test_negatives_of_all_but_early_nodes_entered_earlier():
    # one class is met but by its root before the other class comes: count by exact distribution
    labels = torch.tensor([0, 0, 1, 1])
    exact = exact_distribution(labels.tolist())
    generator = torch.Generator().manual_seed(4)
    pairs = Counter()
    for _ in range(4000):
        t = graph_triplets(labels, generator=generator)
        chosen = dict(zip(t.anchor.tolist(), t.negative.tolist()))
        pairs[sum(chosen[chosen[a]] == a for a in range(4))] += 1
    model = Counter()
    for outcome, probability in exact.items():
        chosen = {a: n for a, _, n in outcome}
        model[sum(chosen[chosen[a]] == a for a in range(4))] += probability * 4000
    keys = sorted(model)
    assert chisquare([pairs[k] for k in keys], [model[k] for k in keys]).pvalue > 0.001


def test_same_seed_same_triplets_and_the_default_generator_works(device, seeded):
    labels = torch.arange(60, device=device) % 7
    one, two = (graph_triplets(labels, generator=seeded(9)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    graph_triplets(labels.cpu(), generator=torch.Generator())
    assert torch.equal(before, torch.get_rng_state())
    assert len(graph_triplets(labels).anchor) == 60


def test_a_cpu_generator_serves_any_device(device):
    labels = torch.arange(60) % 7
    here = graph_triplets(labels, generator=torch.Generator().manual_seed(1))
    there = graph_triplets(labels.to(device), generator=torch.Generator().manual_seed(1))
    assert there.anchor.device.type == device.type
    assert all(torch.equal(a, b.cpu()) for a, b in zip(here, there))


@pytest.mark.parametrize('labels', [[], [4], [4, 4, 4], [1, 2, 3]])
def test_no_triplets_without_positive_or_negative(labels, device):
    triplets = graph_triplets(torch.tensor(labels, dtype=torch.int64, device=device))
    assert [len(index) for index in triplets] == [0, 0, 0]


def test_singletons_serve_as_negatives_only(seeded, device):
    labels = torch.tensor([0, 0, 1], device=device)
    for seed in range(20):
        triplets = graph_triplets(labels, generator=seeded(seed))
        assert sorted(triplets.anchor.tolist()) == [0, 1]
        assert triplets.negative.tolist() == [2, 2]


@pytest.mark.parametrize('function', [class_connected_graph, graph_triplets])
@pytest.mark.parametrize(
    ('labels', 'came'),
    [
        (torch.zeros(3), r'float32 tensor of shape \(3,\)'),
        (torch.zeros(3, 2, dtype=torch.int64), r'shape \(3, 2\)'),
        (torch.zeros(3, dtype=torch.bool), r'torch\.bool'),
        ([1, 2], r'\[1, 2\]'),
    ],
)
def test_wrong_labels_are_named(function, labels, came):
    with pytest.raises(ValueError, match=rf'^labels\b.*{came}'):
        function(labels)
