"""The real tuner under DDP: 2 and 4 processes give the loss and the gradients of one.

One start of 4 processes for all cases: the first two of them are the world of 2.
"""

import random
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.distributed as dist
from gloo import end_group, start_ranks
from mmengine.registry import DefaultScope
from torch.nn.parallel import DistributedDataParallel

from mm_tuning_plugin.registry import MODELS
from mm_tuning_plugin.structures import NodeBatch

# BatchNorm on running statistics: those of a batch differ between ranks by construction.
RESNET = dict(
    type='ResNet', depth=18, stem_channels=8, base_channels=8, norm_cfg=dict(type='BN'),
    norm_eval=True,
)  # fmt: skip
SCOPE = 'mm_tuning_plugin'
POOLED = dict(type=f'{SCOPE}.PooledEmbedding', grid_size=2)
POINTS = dict(type=f'{SCOPE}.PointEmbedding', projection_channels=8, hidden_channels=16)
PARTS = {
    'patches, triplets': (POOLED, dict(type=f'{SCOPE}.GraphTripletLoss')),
    'points, triplets': (POINTS, dict(type=f'{SCOPE}.GraphTripletLoss')),
    'points, contrastive': (POINTS, dict(type=f'{SCOPE}.SupervisedContrastiveLoss')),
    'points, triplets, a graph a rank': (POINTS, dict(type=f'{SCOPE}.GraphTripletLoss')),
}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
STEPS = 2


class Case(NamedTuple):
    images: tuple[int, ...]  # of each rank
    nodes: tuple[int, ...]  # of each image
    labels: str = 'mixed'


ONE = (1,) * 10  # patches: every image is one node
PATCHES = {
    'uneven, 2': Case((7, 3), ONE),
    'rank 0 has nothing, 2': Case((0, 10), ONE),
    'no triplets, 2': Case((6, 4), ONE, 'one class'),
    'each rank one class, 2': Case((6, 4), ONE, 'by rank'),
    'uneven, rank 2 has nothing, 4': Case((4, 1, 0, 5), ONE),
    'one rank has all, 4': Case((0, 0, 0, 10), ONE),
    'no triplets, 4': Case((3, 3, 0, 4), ONE, 'one class'),
    'each rank one class, 4': Case((3, 2, 3, 2), ONE, 'by rank'),
}
DENSE = {
    'uneven, 2': Case((3, 1), (3, 1, 4, 6)),
    'rank 1 has images without nodes, 2': Case((2, 2), (5, 4, 0, 0)),
    'no triplets, 2': Case((1, 2), (5, 2, 3), 'one class'),
    'uneven, rank 1 has images without nodes, 4': Case((2, 2, 1, 1), (3, 1, 0, 0, 4, 7)),
    'no triplets, 4': Case((1, 1, 1, 1), (5, 0, 3, 1), 'one class'),
    'each rank one class, 4': Case((1, 1, 1, 1), (3, 2, 4, 2), 'by rank'),
}
EVEN = {
    'even, 2': Case((2, 2), (3, 4, 4, 6)),
    'even, 4': Case((1, 1, 1, 1), (4, 5, 4, 6)),
}


def cases_of(parts):
    if 'a graph a rank' in parts:
        return EVEN
    return PATCHES if 'patches' in parts else DENSE


CASES = [(parts, name, dtype) for parts in PARTS for name in cases_of(parts) for dtype in TOLERANCE]


def case_of(parts, name):
    return cases_of(parts)[name]


def make(parts, dtype, seed, ranks=1):
    embedding, criterion = PARTS[parts]
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(
            dict(
                type=f'{SCOPE}.MixAndMatchTuner',
                backbone=RESNET,
                embedding=embedding,
                criterion=criterion,
                in_index=[2, 3],
                seed=3,
                graph_groups=ranks if 'a graph a rank' in parts else 1,
                data_preprocessor=dict(type=f'{SCOPE}.NodeDataPreprocessor'),
            )
        )
    return model.to(dtype).train()


def batch_of(case, dtype, step):
    """The nodes of one process, (M, 3, 48, 48) images; other ones in every step."""
    generator = torch.Generator().manual_seed(step)
    total = sum(case.nodes)
    index = torch.arange(len(case.nodes)).repeat_interleave(torch.tensor(case.nodes))
    rank = torch.arange(len(case.images)).repeat_interleave(torch.tensor(case.images))[index]
    labels = {
        'mixed': torch.arange(total) % 3,
        'one class': torch.ones(total, dtype=torch.int64),
        'by rank': rank,
    }[case.labels]
    if case.labels == 'mixed':
        labels = labels[torch.randperm(total, generator=generator)]
    places = torch.randint(48, (total, 2), generator=generator)
    images = torch.randn(len(case.nodes), 3, 48, 48, generator=generator, dtype=torch.float64)
    return NodeBatch(images.to(dtype), torch.cat([index[:, None], places], dim=1), labels)


def part_of(batch, images, rank):
    """A rank's images with the nodes on them."""
    first, last = sum(images[:rank]), sum(images[: rank + 1])
    own = (batch.points[:, 0] >= first) & (batch.points[:, 0] < last)
    shift = torch.tensor([first, 0, 0])
    return NodeBatch(batch.images[first:last], batch.points[own] - shift, batch.labels[own])


def run(model, batches):
    """Loss and diagnostics of each step; the gradients of the last one."""
    seen = []
    for batch in batches:
        model.zero_grad()
        counts = batch.points[:, 0].bincount(minlength=len(batch.images)).tolist()
        losses = model(batch, counts, mode='loss')
        losses['loss'].backward()
        seen.append({name: value.detach() for name, value in losses.items()})
    inner = getattr(model, 'module', model)
    return seen, {name: value.grad for name, value in inner.named_parameters()}


def scatter_random_states(rank):
    random.seed(31 + rank)
    np.random.seed(71 + rank)
    torch.manual_seed(17 + rank)


def work_in_world(rank, world_size, folder):
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/init{world_size}', rank=rank, world_size=world_size
    )
    done = {}
    for parts, name, dtype in CASES:
        case = case_of(parts, name)
        if len(case.images) != world_size:
            continue
        # DDP hands the weights of rank 0 to all: seed 0.
        model = DistributedDataParallel(
            make(parts, dtype, rank, world_size), broadcast_buffers=False
        )
        scatter_random_states(rank)
        batches = [part_of(batch_of(case, dtype, step), case.images, rank) for step in range(STEPS)]
        done[parts, name, dtype] = run(model, batches)
    torch.save(done, f'{folder}/world{world_size}_rank{rank}.pt')
    end_group()


def work(rank, folder):
    torch.set_num_threads(1)
    if rank < 2:
        work_in_world(rank, 2, folder)
    work_in_world(rank, 4, folder)


@pytest.fixture(scope='module')
def worlds(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    start_ranks(work, str(folder), ranks=4)
    return {
        size: [torch.load(folder / f'world{size}_rank{rank}.pt') for rank in range(size)]
        for size in (2, 4)
    }


@pytest.mark.parametrize(('parts', 'name', 'dtype'), CASES)
def test_processes_equal_one(worlds, parts, name, dtype):
    case, tolerance = case_of(parts, name), TOLERANCE[dtype]
    model = make(parts, dtype, 0, len(case.images))
    expected, gradients = run(model, [batch_of(case, dtype, step) for step in range(STEPS)])
    matched = case.labels != 'one class'
    teaches = matched or 'contrastive' in parts  # which also pulls where it cannot push
    largest = max(value.abs().max() for value in gradients.values())
    assert largest > 1e-3 if teaches else largest == 0
    for rank in worlds[len(case.images)]:
        seen, own = rank[parts, name, dtype]
        for one, other in zip(expected, seen):
            assert other['loss'].dtype == dtype and (other['loss'] > 0) == teaches
            assert abs(one['loss'] - other['loss']) < tolerance
            assert one['nodes'] == other['nodes'] == sum(case.nodes)
            assert one['triplets'] == other['triplets'] and (one['triplets'] > 0) == matched
        assert own.keys() == gradients.keys()
        for key, value in gradients.items():
            assert (own[key] - value).abs().max() < tolerance, key


@pytest.mark.parametrize(('parts', 'name'), sorted({case[:2] for case in CASES}))
def test_a_rank_without_nodes_shows_in_the_log(worlds, parts, name):
    case = case_of(parts, name)
    starts = np.cumsum([0, *case.images])
    own = [sum(case.nodes[a:b]) for a, b in zip(starts, starts[1:])]
    for rank in worlds[len(case.images)]:
        for losses in rank[parts, name, torch.float32][0]:
            assert losses['ranks_without_nodes'] == own.count(0)


def test_every_kind_of_rank_is_among_the_cases():
    named = [case_of(*case[:2]) for case in CASES]
    assert any(0 in case.images for case in named), 'no image at all'
    starts = [np.cumsum([0, *case.images]) for case in named]
    assert any(
        images and not sum(case.nodes[start : start + images])
        for case, begin in zip(named, starts)
        for images, start in zip(case.images, begin)
    ), 'images without nodes'


def test_one_process_says_nothing_of_ranks():
    case = DENSE['uneven, 2']
    seen, _ = run(make('points, triplets', torch.float32, 0), [batch_of(case, torch.float32, 0)])
    assert 'ranks_without_nodes' not in seen[0]
