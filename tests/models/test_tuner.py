import pytest
import torch
from mmengine.registry import DefaultScope
from tiny import MIT, SWIN

from mm_tuning_plugin.functional import graph_triplets, triplet_margin_loss
from mm_tuning_plugin.models import tuner as tuner_module
from mm_tuning_plugin.registry import MODELS
from mm_tuning_plugin.structures import NodeBatch

RESNET = {
    'type': 'ResNet', 'depth': 18, 'base_channels': 8, 'norm_cfg': {'type': 'BN'},
}  # fmt: skip
VIT = {
    'type': 'VisionTransformer', 'img_size': 32, 'patch_size': 8, 'embed_dims': 16,
    'num_layers': 3, 'num_heads': 2, 'out_indices': (0, 1, 2),
}  # fmt: skip
VIT_PAIRS = {**VIT, 'output_cls_token': True, 'final_norm': True, 'out_indices': -1}
BACKBONES = {
    'resnet': (RESNET, [8, 16, 32, 64]),
    'swin': (SWIN, [8, 16, 32, 64]),
    'mit': (MIT, [8, 8, 16, 16]),
    'vit': (VIT, [16, 16, 16]),
    'vit-pairs': (VIT_PAIRS, [16]),
}
POINTS = {'type': 'mm_tuning_plugin.PointEmbedding', 'projection_channels': 6,
          'hidden_channels': 8}  # fmt: skip
POOLED = {'type': 'mm_tuning_plugin.PooledEmbedding', 'grid_size': 2}
TRIPLETS = {'type': 'mm_tuning_plugin.GraphTripletLoss'}
CONTRASTIVE = {'type': 'mm_tuning_plugin.SupervisedContrastiveLoss'}


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def make(backbone=RESNET, embedding=POINTS, criterion=TRIPLETS, seed=0, **options):
    torch.manual_seed(seed)
    return MODELS.build(
        {
            'type': 'mm_tuning_plugin.MixAndMatchTuner',
            'backbone': backbone,
            'embedding': embedding,
            'criterion': criterion,
            'data_preprocessor': {'type': 'mm_tuning_plugin.NodeDataPreprocessor'},
            **options,
        }
    )


def nodes(images=4, per_image=3, size=32, channels=3):
    generator = torch.Generator().manual_seed(1)
    count = images * per_image
    places = torch.randint(size, (count, 2), generator=generator)
    index = torch.arange(images).repeat_interleave(per_image)[:, None]
    return NodeBatch(
        torch.randn(images, channels, size, size, generator=generator),
        torch.cat([index, places], dim=1),
        torch.randint(3, (count,), generator=generator),
    )


def moved(batch, device):
    return NodeBatch(*(tensor.to(device) for tensor in batch))


NO_NODES = NodeBatch(
    torch.empty(0, 3, 32, 32),
    torch.empty(0, 3, dtype=torch.int64),
    torch.empty(0, dtype=torch.int64),
)


def losses_of(model, batch, steps=1):
    with torch.no_grad():
        return [model(batch, [], mode='loss')['loss'].item() for _ in range(steps)]


@pytest.mark.parametrize('embedding', [POINTS, POOLED])
@pytest.mark.parametrize('in_index', [None, [0], [-1], [1, 2]])
@pytest.mark.parametrize('name', BACKBONES)
def test_every_parameter_gets_a_gradient(name, in_index, embedding, device):
    # a level that nobody reads must not leave its parameters without one: DDP would stop
    backbone, channels = BACKBONES[name]
    model = make(backbone, embedding, CONTRASTIVE, in_index=in_index, probe_size=(32, 32))
    model, some = model.to(device).train(), moved(nodes(), device)
    read = channels if in_index is None else [channels[min(i, len(channels) - 1)] for i in in_index]
    width = sum(read) * (4 if embedding is POOLED else 1)
    assert model.embedding.describe(
        model._select(model._outputs(some.images)), some.points, (32, 32)
    ).shape == (12, width)
    none = moved(NO_NODES, device)
    for batch in (some, none):
        model.zero_grad()
        losses = model(batch, [len(batch.labels)], mode='loss')
        total, logged = model.parse_losses(losses)
        assert torch.isfinite(total) and total.item() == losses['loss'].item()
        assert logged['nodes'] == len(batch.labels)
        total.backward()
        without = [key for key, value in model.named_parameters() if value.grad is None]
        assert not without
        learns = any(value.grad.abs().sum() > 0 for value in model.backbone.parameters())
        assert learns == (batch is not none)


@pytest.mark.parametrize(
    ('name', 'in_index', 'touched'),
    [('resnet', [3], False), ('resnet', [0], True), ('swin', [3], True), ('swin', None, False)],
)
def test_outputs_are_touched_only_where_parameters_hide_behind_them(name, in_index, touched):
    model = make(BACKBONES[name][0], in_index=in_index)
    assert model.touches_unread == touched
    assert all(parameter.grad is None for parameter in model.parameters())
    zero = model.embed(nodes())[1]
    assert zero == 0 and zero.requires_grad == touched


def test_frozen_parameters_are_not_touched_for():
    assert not make({**RESNET, 'frozen_stages': 1}, in_index=[3]).touches_unread


def test_no_nodes_on_images_that_leave_one_cell():
    # at stride 32 one blank image of 32 pixels would be a single value a channel
    model = make(embedding=POOLED).train()
    assert losses_of(model, NO_NODES) == [0]


def test_no_nodes_leave_the_running_statistics_alone():
    model = make(embedding=POOLED).train()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    model(NO_NODES, [], mode='loss')['loss'].backward()
    for name, value in model.backbone.state_dict().items():
        assert name.endswith('num_batches_tracked') or torch.equal(value, before[name]), name


@pytest.mark.parametrize('channels', [1, 3, 5])
def test_channels_of_the_images_are_those_of_the_stem(channels):
    model = make({**RESNET, 'in_channels': channels})
    assert model(nodes(channels=channels), [12], mode='tensor').shape == (12, 6)


@pytest.mark.parametrize('in_index', [[3], [4], [7], [-9]])
def test_a_level_that_the_backbone_lacks_is_its_last(in_index):
    model, last = make(in_index=in_index), make(in_index=[3])
    batch = nodes()
    assert torch.equal(model.eval()(batch, [12]), last.eval()(batch, [12]))


def test_measuring_leaves_the_backbone_as_it_was():
    torch.manual_seed(0)
    plain = MODELS.build(RESNET)
    model = make()
    assert model.backbone.training and all(m.training for m in model.backbone.modules())
    for key, value in plain.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[key], value), key


def test_unread_levels_do_not_change_the_loss():
    one = make({**RESNET, 'out_indices': (0, 1, 2, 3)}, in_index=[3])
    other = make({**RESNET, 'out_indices': (3,)}, in_index=[0])
    other.load_state_dict(one.state_dict())
    assert losses_of(one, nodes()) == losses_of(other, nodes())


def test_the_graph_depends_on_seed_and_step_alone():
    model = make(seed=0).eval()
    again, other = make(seed=0).eval(), make(seed=0).eval()
    other.seed = 1
    torch.manual_seed(12)
    first = losses_of(model, nodes(), 4)
    torch.manual_seed(13)
    torch.rand(3)
    assert losses_of(again, nodes(), 4) == first and len(set(first)) == 4
    assert losses_of(other, nodes(), 4) != first


def test_the_loss_is_that_of_the_graph_of_this_step(device):
    model, batch = make().eval().to(device), moved(nodes(), device)
    losses_of(model, batch, 2)
    embeddings = model(batch, [12])
    model.seed = 5
    generator = torch.Generator().manual_seed(5 + 1_000_003 * 2)
    expected = triplet_margin_loss(embeddings, graph_triplets(batch.labels, generator=generator))
    assert losses_of(model, batch)[0] == pytest.approx(expected.item(), abs=1e-6)


def test_the_step_is_saved_and_only_the_loss_counts():
    model = make().eval()
    whole = losses_of(model, nodes(), 5)
    half = make().eval()
    losses_of(half, nodes(), 3)
    half(nodes(), [3] * 4, mode='predict')
    half(nodes(), [12], mode='tensor')
    resumed = make(seed=9).eval()
    resumed.load_state_dict(half.state_dict())
    assert resumed.step == 3
    assert losses_of(resumed, nodes(), 2) == whole[3:]


def test_step_zero_is_no_part_of_the_backbone():
    assert 'step' in make().state_dict() and 'step' not in make().backbone.state_dict()


@pytest.mark.parametrize('counts', [[3, 3, 3, 3], [12], [0, 12, 0], [5, 0, 7]])
def test_prediction_is_one_dict_an_image(counts):
    model, batch = make().eval(), nodes()
    parts = model(batch, counts, mode='predict')
    assert [len(part['labels']) for part in parts] == counts
    rows = torch.cat([part['embeddings'] for part in parts])
    outputs = list(model.backbone(batch.images))
    assert torch.equal(rows, model.embedding.describe(outputs, batch.points, (32, 32)))
    assert torch.equal(torch.cat([part['labels'] for part in parts]), batch.labels)


def test_prediction_without_a_node():
    parts = make().eval()(NO_NODES, [0, 0], mode='predict')
    assert [part['embeddings'].shape for part in parts] == [(0, 120), (0, 120)]


def test_steps_as_the_loops_call_them(device):
    model = make().to(device)
    samples = [
        {
            'inputs': torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8),
            'points': torch.tensor([[0, 1, 2], [0, 20, 9]]),
            'labels': torch.tensor([i, 2]),
            'meta': {'role': 'query'},
        }
        for i in range(2)
    ]
    data = {key: [sample[key] for sample in samples] for key in samples[0]}
    assert [len(part['labels']) for part in model.val_step(data)] == [2, 2]
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    assert losses['nodes'] == 4
    assert losses['lone_classes'] == 2 and 0 <= losses['embedding_variance'] <= 1
    assert not losses['embedding_variance'].requires_grad
    none = model(moved(NO_NODES, device), [0], mode='loss')
    assert none['lone_classes'] == 0 and 'embedding_variance' not in none


def test_half_precision_ends_at_the_backbone():
    model, batch = make(criterion=CONTRASTIVE), nodes()
    with torch.autocast('cpu', torch.bfloat16):
        embeddings, _ = model.embed(batch)
        loss = model(batch, [12], mode='loss')['loss']
        parts = model(batch, [12], mode='predict')
    assert embeddings.dtype == loss.dtype == parts[0]['embeddings'].dtype == torch.float32
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(12), atol=1e-5)


def test_the_start_is_loaded_by_init_weights(tmp_path):
    torch.manual_seed(42)
    start = MODELS.build(RESNET)
    torch.save(start.state_dict(), tmp_path / 'start.pth')
    model = make(checkpoint=str(tmp_path / 'start.pth'))
    assert model.load_report is None
    model.init_weights()
    assert model.load_report is not None
    for key, value in start.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[key], value), key


def test_options_of_loading_are_handed_on(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        tuner_module, 'load_backbone_checkpoint', lambda *args, **options: seen.update(options)
    )
    options = {'min_matched': 0.5, 'allow_pickle': True, 'prefix': 'net_a'}
    make(checkpoint='a.pth', **options).init_weights()
    assert seen == options


def test_without_a_start_the_backbone_has_its_own_init(monkeypatch):
    monkeypatch.setattr(tuner_module, 'load_backbone_checkpoint', None)
    model = make()
    model.init_weights()
    assert model.load_report is None


def test_training_steps_bring_the_loss_down(device):
    model = make(criterion=CONTRASTIVE).to(device)
    batch = moved(nodes(images=6, per_image=4), device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    seen = []
    for _ in range(15):
        loss = model(batch, [], mode='loss')['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.8 * seen[0]


@pytest.mark.parametrize('criterion', [TRIPLETS, CONTRASTIVE])
def test_groups_of_images_are_matched_apart(criterion):
    batch = nodes(images=4, per_image=4)
    batch = batch._replace(labels=torch.arange(16) % 3)
    whole, apart = make(criterion=criterion), make(criterion=criterion, graph_groups=2)
    apart.load_state_dict(whole.state_dict())
    for model in (whole, apart):
        model.backbone.eval()
    rows = whole.embed(batch)[0].detach()
    generator = torch.Generator().manual_seed(0)
    expected = [
        whole.criterion(rows[half], batch.labels[half], generator)
        for half in (slice(0, 8), slice(8, 16))
    ]
    losses = apart(batch, [4, 4, 4, 4], mode='loss')
    assert torch.allclose(losses['loss'], sum(part['loss'] for part in expected) / 2)
    assert losses['triplets'] == sum(part['triplets'] for part in expected)
    assert losses['nodes'] == 16
    assert not torch.allclose(losses['loss'], whole(batch, [4] * 4, mode='loss')['loss'])


def test_groups_follow_images_however_many_nodes_they_have():
    tuner = make(graph_groups=3)
    assert tuner._groups([2, 0, 1, 3, 1, 1]).tolist() == [0, 0, 1, 1, 1, 1, 2, 2]


@MODELS.register_module()
class Ordered(torch.nn.Module):
    """A ResNet whose maps come in another order of dimensions, or in a dict."""

    def __init__(self, dim=1, keys=None):
        super().__init__()
        self.network = MODELS.build({**RESNET, 'type': 'mmseg.ResNet'})
        self.dim, self.keys = dim, keys

    def forward(self, x):
        levels = tuple(level.movedim(1, self.dim) for level in self.network(x))
        return levels if self.keys is None else dict(zip(self.keys, levels))


@pytest.mark.parametrize(('in_index', 'embedding'), [(None, POOLED), ([1, -1], POINTS)])
def test_maps_in_another_order_are_tuned_alike(in_index, embedding):
    found = []
    for options in (dict(), dict(dim=3), dict(dim=2), dict(keys='abcd'), dict(dim=3, keys='abcd')):
        model = make(
            {'type': 'mm_tuning_plugin.Ordered', **options}, embedding, in_index=in_index
        ).train()
        loss = model(nodes(), [12], mode='loss')['loss']
        loss.backward()
        gradient = model.backbone.network.conv1.weight.grad
        described = model.eval()(nodes(), [12], mode='predict')[0]['embeddings']
        found.append((loss.detach(), gradient, described))
    for other in found[1:]:
        for one, expected in zip(other, found[0]):
            assert torch.allclose(one, expected, atol=1e-6)
    assert found[0][1].abs().max() > 0


def test_levels_of_a_dict_are_read_by_name():
    model = make({'type': 'mm_tuning_plugin.Ordered', 'keys': [2, 3, 4, 5]}, in_index=[3, 5])
    assert model.read == [1, 3]
    assert make({'type': 'mm_tuning_plugin.Ordered', 'keys': [2, 3, 4, 5]}, in_index=[0]).read == [
        0
    ]
