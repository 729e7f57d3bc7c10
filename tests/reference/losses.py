"""Losses and metrics, pair after pair, in Python floats or differentiable scalars."""

import math

import numpy as np
import torch


def unit(row):
    length = row.square().sum().sqrt()
    return row / length if length > 1e-12 else row * 0


def squared_distance(a, b):
    return (a - b).square().sum()


def triplet_margin(embeddings, triplets, margin=2.1):
    rows = [unit(row) for row in embeddings]
    terms = []
    for a, p, n in zip(*(index.tolist() for index in triplets)):
        gap = squared_distance(rows[a], rows[p]) - squared_distance(rows[a], rows[n])
        terms.append(max(torch.zeros_like(gap), margin + gap))
    return sum(terms) / (2 * len(terms))


def expected_triplet(embeddings, labels, margin=2.1):
    rows, labels = [unit(row) for row in embeddings], labels.tolist()
    anchors = []
    for a, row in enumerate(rows):
        terms = [
            (margin + squared_distance(row, rows[p]) - squared_distance(row, rows[n])) / 2
            for p in range(len(rows))
            for n in range(len(rows))
            if p != a and labels[p] == labels[a] and labels[n] != labels[a]
        ]
        if terms:
            anchors.append(sum(terms) / len(terms))
    return sum(anchors) / len(anchors)


def supervised_contrastive(embeddings, labels, temperature=0.1):
    rows, labels = [unit(row) for row in embeddings], labels.tolist()
    anchors = []
    for a, row in enumerate(rows):
        logits = {k: (row * rows[k]).sum() / temperature for k in range(len(rows)) if k != a}
        total = torch.stack(list(logits.values())).exp().sum().log() if logits else None
        terms = [total - logits[k] for k in logits if labels[k] == labels[a]]
        if terms:
            anchors.append(sum(terms) / len(terms))
    return sum(anchors) / len(anchors)


def balanced_contrastive(embeddings, labels, temperature=0.1):
    rows, labels = [unit(row) for row in embeddings], labels.tolist()
    by_class = {}
    for a, row in enumerate(rows):
        others = {}
        for k in range(len(rows)):
            if k != a:
                others.setdefault(labels[k], []).append((row * rows[k]).sum() / temperature)
        own = others.get(labels[a])
        if own:
            means = [torch.stack(logits).exp().mean() for logits in others.values()]
            term = sum(means).log() - sum(own) / len(own)
            by_class.setdefault(labels[a], []).append(term)
    classes = [sum(terms) / len(terms) for terms in by_class.values()]
    return sum(classes) / len(classes)


def cosine(a, b):
    return float((unit(a) * unit(b)).sum())


def ranked(query, gallery, skip=None):
    """Gallery items from the nearest to the farthest."""
    items = [i for i in range(len(gallery)) if i != skip]
    return sorted(items, key=lambda i: -cosine(query, gallery[i]))


def recall_at_k(queries, query_labels, gallery, gallery_labels, k, exclude_self=False):
    hits = 0
    for q in range(len(queries)):
        order = ranked(queries[q], gallery, q if exclude_self else None)
        hits += any(gallery_labels[i] == query_labels[q] for i in order[:k])
    return hits / len(queries)


def map_at_r(queries, query_labels, gallery, gallery_labels, exclude_self=False):
    scores = []
    for q in range(len(queries)):
        order = ranked(queries[q], gallery, q if exclude_self else None)
        right = [bool(gallery_labels[i] == query_labels[q]) for i in order]
        relevant = sum(right)
        score = sum(sum(right[: i + 1]) / (i + 1) for i in range(relevant) if right[i])
        scores.append(score / relevant if relevant else 0.0)
    return sum(scores) / len(scores)


def intra_inter(embeddings, labels):
    inside, across = [], []
    for i in range(len(labels)):
        for j in range(i):
            pairs = inside if labels[i] == labels[j] else across
            pairs.append(1 - cosine(embeddings[i], embeddings[j]))
    return tuple(sum(pairs) / len(pairs) if pairs else math.nan for pairs in (inside, across))


def triplet_margin_with_gradient(embeddings, triplets, margin=2.1):
    """The released loss and its gradient, by the chain rule on paper: no autograd, float64.

    On unit rows u = x / |x|, a term is max(0, margin + |a - p|^2 - |a - n|^2); its derivatives are
    2 (n - p) for a, 2 (p - a) for p and 2 (a - n) for n, each divided by 2 T. Through the length:
    dx = (du - u (u . du)) / |x|.

    Args:
        embeddings: (N, D) array, no row of zeros.
        triplets: (anchors, positives, negatives), lists of ints.

    Returns:
        The loss, and (N, D).
    """
    lengths = np.array([math.sqrt((row * row).sum()) for row in embeddings])
    rows = [row / length for row, length in zip(embeddings, lengths)]
    slopes = [np.zeros(len(row)) for row in rows]
    total, count = 0.0, len(triplets[0])
    for a, p, n in zip(*triplets):
        near, far = rows[a] - rows[p], rows[a] - rows[n]
        term = margin + (near * near).sum() - (far * far).sum()
        if term > 0:
            total += term / (2 * count)
            slopes[a] += (rows[n] - rows[p]) / count
            slopes[p] += (rows[p] - rows[a]) / count
            slopes[n] += (rows[a] - rows[n]) / count
    through = [
        (slope - row * (row * slope).sum()) / length
        for row, slope, length in zip(rows, slopes, lengths)
    ]
    return total, np.stack(through)
