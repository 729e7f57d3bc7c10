"""The `paper` recipe as a whole against plain loops: a step exactly, what is drawn in distribution.

Parts alone, at more settings, are in tests/functional: boxes, sides, labels, overlap, parents and
degrees of the graph, triplets, loss and gradients. The reference (tests/reference) is written
from the description of the released system. Where that is wrong (no background in the crop, an
overlap over another box's area, a node as its own positive), the reference has the mended rule.
"""

import copy

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from reference import graph as reference_graph
from reference import losses as reference_losses
from reference import sampling as reference_sampling
from scipy.stats import chi2_contingency, ks_2samp

from mm_tuning_plugin.datasets.samplers import SeededIndex
from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.functional import graph_triplets, sample_patches
from mm_tuning_plugin.paper.backbones import AlexNetBN
from mm_tuning_plugin.registry import MODELS

DRAWS = 600
LEAST_P = 0.001


@pytest.fixture
def step(toy_cfg):
    """The tuner of the recipe on the toy project, in double precision, and a mixed batch."""
    toy_cfg.model.backbone = dict(type='mm_tuning_plugin.AlexNetBN', width=0.1)
    toy_cfg.model.decode_head.update(in_channels=26, in_index=0)
    toy_cfg.model.pop('auxiliary_head', None)
    toy_cfg.mix_and_match = dict(
        recipe='paper', images_per_batch=6, size_range=(16, 48), patch_size=128, background_index=0
    )
    derived = derive_tuning_config(toy_cfg)
    with DefaultScope.overwrite_default_scope('mmseg'):
        torch.manual_seed(0)
        tuner = MODELS.build(copy.deepcopy(derived.model)).double().eval()
        for part in tuner.backbone.modules():
            if isinstance(part, torch.nn.Conv2d):  # so that features differ from patch to patch
                torch.nn.init.kaiming_normal_(part.weight)
        dataset = DATASETS.build(derived.train_dataloader.dataset)
    samples = [dataset[SeededIndex(i, (1, i))] for i in range(6)]
    batch = tuner.data_preprocessor(pseudo_collate(samples))
    nodes = batch['nodes']._replace(images=batch['nodes'].images.double())
    return tuner, nodes, batch['counts']


def test_one_step_is_the_released_formula(step):
    """Loss and gradients: pool5 of every patch, flattened, at length one, the graph's triplets."""
    tuner, nodes, counts = step
    loss = tuner(nodes, counts, mode='loss')['loss']
    loss.backward()
    found = {name: p.grad.clone() for name, p in tuner.backbone.named_parameters()}

    tuner.zero_grad()
    triplets = graph_triplets(nodes.labels, generator=torch.Generator().manual_seed(tuner.seed))
    rows = []
    for image in nodes.images:  # one patch at a time
        (pool5,) = tuner.backbone(image[None])
        assert pool5.shape[2:] == (4, 4)
        row = pool5.flatten()
        rows.append(row / row.norm())
    total = 0
    for a, p, n in zip(*(index.tolist() for index in triplets)):
        near, far = (rows[a] - rows[p]).square().sum(), (rows[a] - rows[n]).square().sum()
        total = total + torch.clamp(2.1 + near - far, min=0)
    expected = total / (2 * len(triplets.anchor))
    expected.backward()
    assert abs(loss.item() - expected.item()) < 1e-9
    assert set(found) == {name for name, _ in tuner.backbone.named_parameters()}
    for name, parameter in tuner.backbone.named_parameters():
        assert torch.allclose(found[name], parameter.grad, atol=1e-9), name
    assert max(grad.abs().max() for grad in found.values()) > 1e-6


def test_a_random_network_starts_near_its_bound(step):
    """Behind a ReLU no cosine is negative: each term is 1.05 + cos(a, n) - cos(a, p)."""
    tuner, nodes, counts = step
    net = AlexNetBN(width=0.1).double().train()  # norms by the batch, as tuning begins
    tuner.backbone = net
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        first = tuner(nodes, counts, mode='loss')
        rows = tuner(nodes, counts, mode='tensor')
        drawn = [tuner.criterion(rows, nodes.labels, generator)['loss'] for _ in range(200)]
    assert first['active_share'] == 1
    expected = reference_losses.expected_triplet(rows, nodes.labels)
    assert float(expected) == pytest.approx(1.05, abs=0.03)
    assert float(torch.stack(drawn).mean()) == pytest.approx(float(expected), rel=0.01)


def scene():
    """A label map of 512: half background, blocks of 20 classes, a strip of ignore."""
    generator = torch.Generator().manual_seed(5)
    blocks = torch.randint(0, 40, (16, 16), generator=generator)
    blocks[blocks > 20] = 0
    seg_map = blocks.repeat_interleave(32, 0).repeat_interleave(32, 1)
    seg_map[:12] = 255
    return seg_map


def covered_share(boxes):
    """How much of an image's foreground squares lies under more than one of them."""
    boxes = boxes - np.tile(boxes[:, :2].min(0), 2)
    counts = np.zeros(boxes[:, 2:].max(0), np.int8)
    for y0, x0, y1, x1 in boxes:
        counts[y0:y1, x0:x1] += 1
    return (counts > 1).sum() / (counts > 0).sum()


@pytest.mark.parametrize(('number', 'foreground'), [(10, 9), (9, 8)])
def test_what_is_drawn_follows_the_plain_loop(number, foreground):
    """Sides, labels and overlap of both, image by image; the quotas of either kind, always."""
    seg_map = scene()
    array, rng = seg_map.numpy(), np.random.default_rng(0)
    generator = torch.Generator().manual_seed(50)
    sides, labels, overlap = ([], []), ([], []), ([], [])
    for _ in range(DRAWS):
        ours = sample_patches(seg_map, number, (64, 256), background_index=0, generator=generator)
        theirs = reference_sampling.sample_patches(array, number, (64, 256), rng, 0)
        for which, (boxes, of_boxes) in enumerate(
            ((ours.boxes.numpy(), ours.labels.tolist()), theirs)
        ):
            is_foreground = np.array(of_boxes) != 0
            assert len(boxes) == number and is_foreground.sum() == foreground
            assert 255 not in of_boxes
            side = boxes[:, 2] - boxes[:, 0]
            assert (side % 2 == 0).all() and side.min() >= 64 and side.max() <= 256
            sides[which].append(side.mean())
            labels[which].extend(np.array(of_boxes)[is_foreground])
            overlap[which].append(covered_share(boxes[is_foreground]))
    assert ks_2samp(*sides).pvalue > LEAST_P
    assert ks_2samp(*overlap).pvalue > LEAST_P
    classes = sorted({*labels[0], *labels[1]})
    table = [[side.count(c) for c in classes] for side in labels]
    assert len(classes) == 20 and chi2_contingency(table).pvalue > LEAST_P


def test_degrees_of_a_batch_s_nodes_follow_the_plain_loop():
    """576 nodes of uneven classes, as on four GPUs together."""
    labels = torch.arange(576).square() % 21
    generator, rng = torch.Generator().manual_seed(1), np.random.default_rng(4)
    table = np.zeros((2, 8), int)
    for _ in range(60):
        positives = graph_triplets(labels, generator=generator).positive
        theirs = [row[1] for row in reference_graph.triplets(labels.tolist(), rng)]
        for which, chosen in enumerate((positives.tolist(), theirs)):
            times = np.bincount(np.bincount(chosen, minlength=576).clip(max=7), minlength=8)
            table[which] += times
    assert chi2_contingency(table[:, table.sum(0) > 5]).pvalue > LEAST_P
