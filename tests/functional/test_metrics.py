import math

import pytest
import torch
from reference import losses as reference

from mm_tuning_plugin.functional import (
    embedding_variance,
    intra_inter_distance,
    lone_classes,
    mean_average_precision_at_r,
    recall_at_k,
)


def retrieval(seed, device, queries=17, items=23):
    generator = torch.Generator().manual_seed(seed)
    q, g = (torch.randn(n, 4, generator=generator) for n in (queries, items))
    ql, gl = (torch.randint(0, 5, (n,), generator=generator) for n in (queries, items))
    return [tensor.to(device) for tensor in (q, ql, g, gl)]


@pytest.mark.parametrize('k', [1, 2, 7, 23])
@pytest.mark.parametrize('seed', range(3))
def test_recall_equals_the_loop(seed, k, device, monkeypatch):
    inputs = retrieval(seed, device)
    expected = reference.recall_at_k(*inputs, k)
    assert recall_at_k(*inputs, k).item() == pytest.approx(expected)
    monkeypatch.setattr('mm_tuning_plugin.functional.metrics._CHUNK', 50)  # two queries a chunk
    assert recall_at_k(*inputs, k).item() == pytest.approx(expected)


@pytest.mark.parametrize('seed', range(3))
def test_map_at_r_equals_the_loop(seed, device, monkeypatch):
    inputs = retrieval(seed, device)
    expected = reference.map_at_r(*inputs)
    assert mean_average_precision_at_r(*inputs).item() == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr('mm_tuning_plugin.functional.metrics._CHUNK', 50)
    assert mean_average_precision_at_r(*inputs).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('seed', range(3))
def test_excluding_oneself_equals_the_loop(seed, device, monkeypatch):
    monkeypatch.setattr('mm_tuning_plugin.functional.metrics._CHUNK', 70)
    _, _, x, labels = retrieval(seed, device)
    inputs = (x, labels, x, labels)
    assert recall_at_k(*inputs) == 1
    for k in (1, 5, 22):
        expected = reference.recall_at_k(*inputs, k, exclude_self=True)
        assert recall_at_k(*inputs, k, exclude_self=True).item() == pytest.approx(expected)
    expected = reference.map_at_r(*inputs, exclude_self=True)
    value = mean_average_precision_at_r(*inputs, exclude_self=True)
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('seed', range(3))
def test_distances_equal_the_loop(seed, device):
    _, _, x, labels = retrieval(seed, device)
    x[3] = 0
    expected = reference.intra_inter(x, labels)
    values = intra_inter_distance(x, labels)
    assert [value.item() for value in values] == pytest.approx(expected, rel=1e-5)


def test_length_does_not_matter_direction_does():
    gallery = torch.tensor([[10.0, 0], [0, 0.1]])
    query = torch.tensor([[0.3, 1.0]])
    labels = torch.tensor([0, 1])
    assert recall_at_k(query, torch.tensor([1]), gallery, labels) == 1
    assert recall_at_k(query, torch.tensor([0]), gallery, labels) == 0
    assert recall_at_k(query, torch.tensor([0]), gallery, labels, 2) == 1
    assert recall_at_k(query, torch.tensor([5]), gallery, labels, 2) == 0  # a class without item
    assert mean_average_precision_at_r(query, torch.tensor([5]), gallery, labels) == 0


def test_distances_without_pairs_are_nan():
    alone = intra_inter_distance(torch.eye(3), torch.arange(3))
    assert math.isnan(alone.intra) and alone.inter.item() == pytest.approx(1)
    together = intra_inter_distance(torch.ones(3, 2), torch.zeros(3, dtype=torch.int64))
    assert math.isnan(together.inter) and together.intra.item() == pytest.approx(0, abs=1e-12)


def test_half_precision_and_gradients():
    q, ql, g, gl = retrieval(0, 'cpu')
    value = recall_at_k(q.half().requires_grad_(), ql, g.half(), gl)
    assert value.dtype == torch.float32 and not value.requires_grad


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'k': 0}, r'^k\b.* 0 \('),
        ({'k': 24}, r'^k\b.*\b23\b.*\b24$'),
        ({'k': 1.0}, r'^k\b.*1\.0 \('),
        (
            {'queries': torch.zeros(0, 4), 'query_labels': torch.zeros(0).long()},
            r'^queries\b',
        ),
        ({'gallery': torch.zeros(0, 4), 'gallery_labels': torch.zeros(0).long()}, r'^gallery\b'),
        ({'gallery': torch.zeros(23, 5)}, r'^gallery\b.*\b4\b.*\b5\b'),
        ({'query_labels': torch.zeros(3).long()}, r'^query_labels\b.*\b17\b.*\b3$'),
        ({'gallery_labels': torch.zeros(23)}, r'^gallery_labels\b.*float32'),
        ({'queries': torch.zeros(17)}, r'^queries\b.*\(17,\)'),
        ({'exclude_self': True}, r'^exclude_self\b.*\b17\b.*\b23\b'),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    names = ('queries', 'query_labels', 'gallery', 'gallery_labels')
    arguments = {**dict(zip(names, retrieval(0, 'cpu'))), **changes}
    with pytest.raises(ValueError, match=message):
        recall_at_k(**arguments)
    if 'k' not in arguments:
        with pytest.raises(ValueError, match=message):
            mean_average_precision_at_r(**arguments)


def test_k_counts_the_items_without_oneself():
    x, labels = torch.eye(3), torch.arange(3)
    with pytest.raises(ValueError, match=r'^k\b.*\b2\b.*\b3$'):
        recall_at_k(x, labels, x, labels, 3, exclude_self=True)


def test_wrong_distance_arguments_are_named():
    with pytest.raises(ValueError, match=r'^embeddings\b'):
        intra_inter_distance(torch.zeros(0, 2), torch.zeros(0).long())
    with pytest.raises(ValueError, match=r'^labels\b.*\b2\b.*\b1$'):
        intra_inter_distance(torch.zeros(2, 2), torch.zeros(1).long())


@pytest.mark.parametrize('seed', range(3))
def test_variance_is_half_the_mean_cosine_distance_of_all_pairs(seed, device):
    _, _, x, _ = retrieval(seed, device)
    pairs = [1 - torch.cosine_similarity(a, b, dim=0).item() for a in x for b in x]
    expected = sum(pairs) / len(pairs)
    assert embedding_variance(x).item() == pytest.approx(expected, rel=1e-4)
    scaled = x * torch.rand(len(x), 1, device=device).add(0.1)
    assert embedding_variance(scaled).item() == pytest.approx(expected, rel=1e-4)


def test_variance_of_a_collapse_and_of_its_opposite(device):
    one = torch.tensor([[3.0, 4.0]], device=device)
    assert embedding_variance(one.repeat(9, 1)).item() == pytest.approx(0, abs=1e-12)
    assert embedding_variance(torch.zeros(5, 3, device=device)) == 0
    assert embedding_variance(torch.cat([one, -one])).item() == pytest.approx(1)
    near = one + 1e-3 * torch.eye(2, device=device)  # tiny, but not lost to rounding
    expected = (1 - torch.cosine_similarity(near[:1].double(), near[1:].double())).item() / 2
    assert embedding_variance(near).item() == pytest.approx(expected, rel=1e-2)


def test_variance_keeps_out_of_half_precision_and_of_gradients(device):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        half = embedding_variance(x.requires_grad_())
    assert not half.requires_grad and half.item() == pytest.approx(embedding_variance(x).item())
    assert embedding_variance(x.bfloat16()).dtype == torch.float32
    with pytest.raises(ValueError, match=r'^embeddings\b'):
        embedding_variance(x[:0])


@pytest.mark.parametrize('seed', range(5))
def test_lone_classes_equal_the_loop(seed, device):
    labels = torch.randint(0, 12, (seed * 5,), generator=torch.Generator().manual_seed(seed))
    listed = labels.tolist()
    expected = sum(listed.count(label) == 1 for label in set(listed))
    assert lone_classes(labels.to(device)) == expected


def test_lone_classes_at_the_edges(device):
    for listed, expected in (([], 0), ([4], 1), ([2, 2], 0), ([7, 1, 7, 0], 2)):
        assert lone_classes(torch.tensor(listed, dtype=torch.int64, device=device)) == expected
    with pytest.raises(ValueError, match=r'^labels\b.*float32'):
        lone_classes(torch.ones(3))
