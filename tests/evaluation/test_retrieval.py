import logging

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator

from mm_tuning_plugin.evaluation import NodeRetrievalMetric
from mm_tuning_plugin.registry import METRICS


def rows(*angles):
    """Points of a circle, at angles in degrees."""
    radians = torch.deg2rad(torch.tensor(angles, dtype=torch.float32))
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def image(role, angles, labels):
    return role, {'embeddings': rows(*angles), 'labels': torch.tensor(labels, dtype=torch.int64)}


# nearest of the gallery: to 5 degrees 0 (right), to 40 the one at 50 (wrong, then 0 at rank 3),
# to 100 the one at 90 (right), to 180 again 90 (wrong; its class is not there at all)
GALLERY = [image('gallery', [0, 50], [1, 2]), image('gallery', [], []), image('gallery', [90], [3])]
QUERIES = [image('query', [5, 40], [1, 1]), image('query', [100, 180], [3, 4])]


def evaluate(images, **options):
    metric = NodeRetrievalMetric(**options)
    for role, sample in images:  # as the loops call it: a batch of one
        batch = pseudo_collate([{'meta': {'img_path': '', 'role': role}}])
        metric.process(batch, [sample])
    assert len(metric.results) == len(images), 'one result an image'
    return metric.evaluate(len(images))


def test_recall_on_a_case_made_by_hand():
    assert evaluate(GALLERY + QUERIES, topk=(1, 2, 3)) == {
        'retrieval/recall@1': 0.5,
        'retrieval/recall@2': 0.75,
        'retrieval/recall@3': 0.75,
    }


def test_order_of_images_does_not_matter():
    expected = evaluate(GALLERY + QUERIES, topk=(1,))
    assert evaluate([*QUERIES[:1], *GALLERY, *QUERIES[1:]], topk=(1,)) == expected


def test_lengths_of_descriptors_do_not_matter():
    longer = [(role, {**s, 'embeddings': s['embeddings'] * 7}) for role, s in GALLERY]
    assert evaluate(longer + QUERIES) == evaluate(GALLERY + QUERIES)


def test_a_k_above_the_gallery_is_left_out():
    assert list(evaluate(GALLERY + QUERIES)) == ['retrieval/recall@1']
    assert list(evaluate(GALLERY + QUERIES, topk=(3, 4))) == ['retrieval/recall@3']


@pytest.mark.parametrize(
    ('images', 'queries', 'gallery'),
    [(GALLERY, 0, 3), (QUERIES, 4, 0), ([GALLERY[1], *QUERIES], 4, 0)],
)
def test_an_empty_side_is_a_warning_and_no_metric(images, queries, gallery, monkeypatch):
    said = []
    monkeypatch.setattr(
        'mm_tuning_plugin.evaluation.retrieval.print_log',
        lambda message, logger, level: said.append((message, level)),
    )
    assert evaluate(images) == {}
    ((message, level),) = said
    assert level == logging.WARNING
    assert f'{queries} query' in message and f'{gallery} gallery' in message


def test_several_images_in_a_batch_and_no_gradient_kept():
    metric = NodeRetrievalMetric()
    images = GALLERY + QUERIES
    samples = [
        {**sample, 'embeddings': sample['embeddings'].requires_grad_()} for _, sample in images
    ]
    metric.process(pseudo_collate([{'meta': {'role': role}} for role, _ in images]), samples)
    assert len(metric.results) == len(images)
    assert not any(result['embeddings'].requires_grad for result in metric.results)
    assert metric.evaluate(len(images))['retrieval/recall@1'] == 0.5


def test_built_by_name_and_named_by_prefix():
    metric = METRICS.build(
        {'type': 'mm_tuning_plugin.NodeRetrievalMetric', 'topk': [1], 'prefix': 'nodes'}
    )
    evaluator = Evaluator(metric)
    for role, sample in GALLERY + QUERIES:
        evaluator.process(data_samples=[sample], data_batch={'meta': {'role': [role]}})
    done = evaluator.evaluate(5)
    assert done == {'nodes/recall@1': 0.5} and isinstance(done['nodes/recall@1'], float)
    assert np.isfinite(list(done.values())).all()
