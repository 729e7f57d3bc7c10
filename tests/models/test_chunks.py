"""Chunks: every node reaches its image, and loss, gradients and statistics are those expected.

The reference is the plain loop over chunks that keeps everything for the backward pass; where no
layer looks across images, the whole batch as well.
"""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from gloo import end_group, start_ranks
from mistakes import mistake
from mmengine.registry import DefaultScope
from torch.nn.parallel import DistributedDataParallel

from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.models import chunks
from mm_tuning_plugin.models.batch_norm import tracking_norms
from mm_tuning_plugin.models.chunks import embed_in_chunks, split_nodes
from mm_tuning_plugin.registry import MODELS
from mm_tuning_plugin.structures import NodeBatch

RESNET = {
    'type': 'ResNet', 'depth': 18, 'base_channels': 4, 'stem_channels': 4,
    'norm_cfg': {'type': 'BN'},
}  # fmt: skip
SWIN = {
    'type': 'SwinTransformer', 'embed_dims': 8, 'depths': (1, 1, 1, 1), 'num_heads': (1, 1, 2, 2),
    'window_size': 4, 'pretrain_img_size': 64, 'drop_path_rate': 0.0,
}  # fmt: skip
VIT = {
    'type': 'VisionTransformer', 'img_size': 32, 'patch_size': 8, 'embed_dims': 16,
    'num_layers': 3, 'num_heads': 2, 'out_indices': (0, 1, 2),
}  # fmt: skip
ACROSS_NOTHING = {'resnet, norm_eval': {**RESNET, 'norm_eval': True}, 'swin': SWIN, 'vit': VIT}
POINTS = {'type': 'PointEmbedding', 'projection_channels': 6, 'hidden_channels': 8}
POOLED = {'type': 'PooledEmbedding', 'grid_size': 2}
IMAGES, SIDE = 6, 32


def make(backbone, chunk_size=None, embedding=POINTS, **options):
    torch.manual_seed(0)
    embedding = dict(embedding, type=f'mm_tuning_plugin.{embedding["type"]}')
    with DefaultScope.overwrite_default_scope('mmseg'):
        tuner = MODELS.build(
            dict(
                type='mm_tuning_plugin.MixAndMatchTuner',
                backbone=backbone,
                embedding=embedding,
                criterion={'type': 'mm_tuning_plugin.SupervisedContrastiveLoss'},
                probe_size=(SIDE, SIDE),
                chunk_size=chunk_size,
                **options,
            )
        )
    return tuner.double().train()


def nodes(images=IMAGES, per_image=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    count = images * per_image
    index = torch.arange(images).repeat_interleave(per_image)[:, None]
    return NodeBatch(
        torch.randn(images, 3, SIDE, SIDE, generator=generator).double(),
        torch.cat([index, torch.randint(SIDE, (count, 2), generator=generator)], dim=1),
        torch.arange(count) % 3,
    )


def backward(tuner, batch):
    """The loss, and every parameter's gradient."""
    loss = tuner(batch, [], mode='loss')['loss']
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in tuner.named_parameters()}


def loop_over_chunks(monkeypatch):
    """Replace the recomputation by keeping everything."""
    monkeypatch.setattr(chunks, 'checkpoint', lambda function, *args, **options: function(*args))


def assert_same(ours, theirs, tolerance=1e-10):
    assert abs(ours[0] - theirs[0]) < tolerance
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in ours[1].items():
        assert (gradient - theirs[1][name]).abs().max() < tolerance, name
    assert max(gradient.abs().max() for gradient in ours[1].values()) > 1e-3


@pytest.mark.parametrize('seed', range(20))
def test_every_point_goes_with_its_image(seed):
    generator = torch.Generator().manual_seed(seed)
    count, parts = 7, int(torch.randint(1, 8, (1,), generator=generator))
    images = torch.arange(count)[:, None, None, None].expand(count, 1, 2, 2)
    # of all images, in no order; some chunk may have none
    points = torch.randint(count, (seed % 9, 3), generator=generator)
    pairs, order = split_nodes(images, points, parts)
    pairs = list(pairs)
    sizes = [len(part) for part, _ in pairs]
    assert len(pairs) == parts and sum(sizes) == count and max(sizes) - min(sizes) <= 1
    seen = [(int(part[i, 0, 0, 0]), y, x) for part, local in pairs for i, y, x in local.tolist()]
    assert seen == [tuple(point) for point in points[order].tolist()]


@pytest.mark.parametrize('embedding', [POINTS, POOLED], ids=['points', 'pooled'])
@pytest.mark.parametrize('chunk_size', [1, 2, 4])
@pytest.mark.parametrize('name', ACROSS_NOTHING)
def test_loss_and_gradients_are_those_of_the_whole_batch(name, chunk_size, embedding):
    whole, chunked = (make(ACROSS_NOTHING[name], n, embedding) for n in (None, chunk_size))
    batch = nodes()
    shuffled = torch.randperm(len(batch.labels), generator=torch.Generator().manual_seed(2))
    batch = batch._replace(points=batch.points[shuffled], labels=batch.labels[shuffled])
    assert_same(backward(chunked, batch), backward(whole, batch))


def test_batch_norm_sees_chunks_and_its_statistics_move_once_a_chunk(monkeypatch):
    ours, reference = make(RESNET, 2), make(RESNET, 2)
    batch = nodes()
    gradients = backward(ours, batch)
    state = {name: value.clone() for name, value in ours.state_dict().items()}
    loop_over_chunks(monkeypatch)
    assert_same(gradients, backward(reference, batch))
    for name, value in reference.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert ours.backbone.bn1.num_batches_tracked == 3  # chunks, not six computations of them
    assert not torch.equal(ours.backbone.bn1.running_mean, torch.zeros(4))
    assert all(norm.momentum == 0.1 for norm in tracking_norms(ours))


def test_a_second_backward_pass_leaves_the_statistics_alone_too():
    tuner = make(RESNET, 2)
    loss = tuner(nodes(), [], mode='loss')['loss']
    state = {name: value.clone() for name, value in tuner.backbone.state_dict().items()}
    loss.backward(retain_graph=True)
    first = tuner.backbone.conv1.weight.grad.clone()
    loss.backward()
    assert torch.allclose(tuner.backbone.conv1.weight.grad, 2 * first, atol=1e-12)
    assert all(torch.equal(v, state[name]) for name, v in tuner.backbone.state_dict().items())


@pytest.mark.parametrize(
    'backbone',
    [{**SWIN, 'drop_path_rate': 0.5, 'drop_rate': 0.2}, {**VIT, 'drop_rate': 0.3}],
    ids=['stochastic depth', 'dropout'],
)
def test_the_recomputation_draws_the_same_masks(backbone, monkeypatch):
    results = []
    for _ in range(2):
        tuner = make(backbone, 2)
        torch.manual_seed(5)
        results.append((backward(tuner, nodes()), torch.rand(1)))
        loop_over_chunks(monkeypatch)
    assert_same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1], 'the random state moves as without recomputing'
    torch.manual_seed(6)
    assert abs(backward(make(backbone, 2), nodes())[0] - results[0][0][0]) > 1e-6


@pytest.mark.parametrize('backbone', [RESNET, SWIN], ids=['resnet', 'swin'])
def test_under_autocast(backbone, monkeypatch):
    results = []
    for _ in range(2):
        tuner, batch = make(backbone, 2).float(), nodes()
        batch = batch._replace(images=batch.images.float())
        with torch.autocast('cpu', torch.bfloat16):
            loss = tuner(batch, [], mode='loss')['loss']
        loss.backward()
        assert loss.dtype == torch.float32
        results.append((loss.detach(), {n: p.grad for n, p in tuner.named_parameters()}))
        loop_over_chunks(monkeypatch)
    assert_same(*results, tolerance=1e-6)


@pytest.mark.filterwarnings('ignore:.*use_reentrant')
@pytest.mark.parametrize('backbone', [{**RESNET, 'norm_eval': True}, SWIN], ids=['resnet', 'swin'])
def test_around_the_backbones_own_checkpointing(backbone):
    batch = nodes()
    nested = backward(make({**backbone, 'with_cp': True}, 2), batch)
    assert_same(nested, backward(make(backbone), batch))


def test_a_chunk_is_computed_twice_and_one_alone_once():
    for chunk_size, images, passes in [(2, 6, 6), (6, 6, 1), (8, 6, 1), (2, 0, 1)]:
        tuner, sizes = make(RESNET, chunk_size), []
        tuner.backbone.conv1.register_forward_pre_hook(
            lambda module, inputs, sizes=sizes: sizes.append(len(inputs[0]))
        )
        backward_of = tuner(nodes(images), [], mode='loss')['loss']
        backward_of.backward()
        assert len(sizes) == passes
        assert max(sizes) <= max(chunk_size, 2)  # no image: two blank ones
        assert all(p.grad is not None for p in tuner.parameters())


def test_too_small_a_chunk_is_named():
    with mistake('mix_and_match.chunk_size', ['2 found', '1 image of 32 x 32', 'BatchNorm']):
        backward(make(RESNET, 2), nodes(5))


def test_other_errors_of_a_backbone_stay_what_they_are(monkeypatch):
    tuner = make(RESNET, 2)
    monkeypatch.setattr(tuner.backbone, 'forward', lambda images: [].index(0))
    with pytest.raises(ValueError, match='0 is not in list') as caught:
        backward(tuner, nodes())
    assert not isinstance(caught.value, UserError)


def test_nothing_is_kept_without_gradients():
    tuner = make(RESNET, 2).eval()
    with torch.no_grad():
        embeddings = tuner(nodes(), [], mode='tensor')
    tuner.chunk_size = None
    assert not embeddings.requires_grad
    assert torch.allclose(embeddings, tuner(nodes(), [], mode='tensor'), atol=1e-12)


def test_less_is_kept_for_the_backward_pass():
    def kept(chunk_size, images):
        tuner, batch, sizes = make(SWIN, chunk_size), nodes(images), {}

        def pack(tensor):
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            embeddings, extra = tuner.embed(batch)
        del embeddings, extra
        return sum(sizes.values())

    assert kept(2, 8) < 0.2 * kept(None, 8)


@pytest.mark.parametrize('embedding', [POINTS, POOLED], ids=['points', 'pooled'])
def test_double_precision_is_kept_to_the_end(embedding):
    tuner, batch = make(VIT, 2, embedding, in_index=[0, 2]), nodes()
    outputs = tuner.backbone(batch.images)
    levels = [outputs[0], outputs[2]]
    if embedding is POINTS:
        # as resizing the map to the image and indexing its pixels
        image, y, x = batch.points.T
        maps = [F.interpolate(level, (SIDE, SIDE), mode='bilinear') for level in levels]
        rows = torch.cat([level[image, :, y, x] for level in maps], dim=1)
    else:
        grids = [F.adaptive_avg_pool2d(level, 2).flatten(1) for level in levels]
        rows = torch.cat(grids, dim=1)[batch.points[:, 0]]
    expected = F.normalize(tuner.embedding.projection(rows))
    embeddings, extra = tuner.embed(batch)
    assert embeddings.dtype == extra.dtype == torch.float64
    assert (embeddings - expected).abs().max() < 1e-12
    assert tuner(batch, [], mode='loss')['loss'].dtype == torch.float64


DDP_CASES = {
    'resnet, norm_eval': ({**RESNET, 'norm_eval': True, 'out_indices': (0, 1, 2, 3)}, [1]),
    'swin': (SWIN, [1]),
    'vit': (VIT, [0]),
}
SPLITS = {'uneven': 5, 'no image on rank 1': IMAGES}


def own_part(rank, first):
    batch = nodes()
    low, high = (0, first) if rank == 0 else (first, IMAGES)
    mine = (batch.points[:, 0] >= low) & (batch.points[:, 0] < high)
    points = batch.points[mine] - torch.tensor([low, 0, 0])
    return NodeBatch(batch.images[low:high], points, batch.labels[mine])


def work(rank, world_size, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/init', rank=rank, world_size=world_size
    )
    done = {}
    for name, (backbone, in_index) in DDP_CASES.items():
        for split, first in SPLITS.items():
            model = DistributedDataParallel(make(backbone, 2, in_index=in_index))
            for _ in range(2):  # DDP says at the second step what was wrong with the first
                model.zero_grad()
                done[name, split] = backward(model, own_part(rank, first))
    torch.save(done, f'{folder}/rank{rank}.pt')
    end_group()


def test_over_two_ranks(tmp_path):
    start_ranks(work, 2, str(tmp_path))
    for name, (backbone, in_index) in DDP_CASES.items():
        expected = backward(make(backbone, in_index=in_index), nodes())
        for rank in range(2):
            done = torch.load(tmp_path / f'rank{rank}.pt')
            for split in SPLITS:
                loss, gradients = done[name, split]
                plain = {key.removeprefix('module.'): g for key, g in gradients.items()}
                assert_same((loss, plain), expected)


def test_a_network_without_norms():
    layer = torch.nn.Linear(3, 2).double()

    def embed(images, points):
        return layer(images.mean((2, 3)))[points[:, 0]], images.sum() * 0

    batch = nodes()
    embeddings, extra = embed_in_chunks(embed, batch.images, batch.points, 2, layer)
    assert torch.equal(embeddings, embed(batch.images, batch.points)[0]) and extra == 0
