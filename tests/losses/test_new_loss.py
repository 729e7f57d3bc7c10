"""A new loss is one file: its short name works in tree and out of tree."""

import pytest
import torch
from mistakes import mistake
from new_files import short, two_steps_with

from mm_tuning_plugin.engine import MixAndMatchRunner, derive_tuning_config
from mm_tuning_plugin.losses import NodeLoss
from mm_tuning_plugin.losses.base import loss_config, named_losses, needs_classifier
from mm_tuning_plugin.losses.graph_triplet import GraphTripletLoss
from mm_tuning_plugin.registry import MODELS

CODE = '''
import torch
from mm_tuning_plugin.losses.base import NodeLoss
from mm_tuning_plugin.registry import MODELS


@MODELS.register_module()
class ToyLoss(NodeLoss):
    """Distance of each node from another node of its class, with learnt weights of classes."""

    short_names = {'toy': {}, 'cool_toy': {'temperature': 9.0}}
    options = ('num_classes', 'channels')

    def __init__(self, num_classes, channels, temperature=1.0):
        super().__init__()
        self.temperature = temperature
        self.weights = torch.nn.Parameter(torch.ones(num_classes))
        assert channels == 32

    def prepare(self, labels, generator):
        assert labels.device.type == 'cpu'
        return {'partners': [torch.randint(len(labels), labels.shape, generator=generator)]}

    def compute(self, embeddings, labels, prepared):
        partner = prepared['partners'][0]
        same = labels == labels[partner]
        distance = (embeddings - embeddings[partner]).square().sum(1) * same
        return (distance * self.weights[labels]).mean() / self.temperature, {'same': same.sum()}
'''


@pytest.fixture
def toy():
    """The loss, registered out of tree."""
    namespace = {}
    exec(CODE, namespace)
    yield namespace['ToyLoss']
    del MODELS.module_dict['ToyLoss']


@pytest.mark.walk
def test_in_tree(toy_cfg, tmp_path):
    derived = two_steps_with(
        'losses/toy.py', CODE, toy_cfg, tmp_path / 'copy', loss='toy', projection_channels=32
    )
    wanted = dict(type='mm_tuning_plugin.ToyLoss', num_classes=8, channels=None)
    assert derived.model.criterion == wanted


def test_out_of_tree(toy_cfg, toy):
    cfg = short(toy_cfg, loss='cool_toy', projection_channels=32)
    assert derive_tuning_config(cfg).model.criterion.temperature == 9
    tuned = MixAndMatchRunner.from_cfg(cfg).tune()
    state = torch.load(tuned.parent / 'iter_2.pth', weights_only=False)['state_dict']
    assert not torch.equal(state['criterion.weights'], torch.ones(8))


def test_no_node_is_a_zero_connected_to_all_parameters(toy):
    loss, rows = toy(8, 32), torch.zeros(0, 32, requires_grad=True)
    done = loss(rows, torch.zeros(0, dtype=torch.int64))
    done['loss'].backward()
    assert done['loss'] == 0 and done['triplets'] == 0
    assert (loss.weights.grad == 0).all() and rows.grad is not None


def test_what_is_prepared_is_not_prepared_again(toy):
    loss, rows, labels = toy(8, 32), torch.randn(6, 32), torch.tensor([0, 0, 0, 1, 1, 1])
    prepared = loss.prepare(labels, torch.Generator().manual_seed(1))
    once = loss(rows, labels, torch.Generator().manual_seed(2), prepared)
    assert torch.equal(once['loss'], loss(rows, labels, torch.Generator().manual_seed(1))['loss'])


def test_an_unknown_name_is_refused(toy_cfg):
    with mistake('mix_and_match.loss', 'toy', 'graph_triplet'):
        derive_tuning_config(short(toy_cfg, loss='toy'))


def test_two_losses_of_one_name_are_refused(toy_cfg, toy):
    class Other(NodeLoss):
        short_names = {'toy': {}}

    MODELS.register_module(module=Other)
    try:
        with mistake('mix_and_match.loss', ['toy', 'Other', 'ToyLoss'], 'name'):
            named_losses()
    finally:
        del MODELS.module_dict['Other']


def test_a_subclass_does_not_take_the_name_of_its_parent():
    class Warmer(GraphTripletLoss):
        pass

    MODELS.register_module(module=Warmer)
    try:
        assert named_losses()['graph_triplet'].loss is GraphTripletLoss
    finally:
        del MODELS.module_dict['Warmer']


def test_a_config_is_given_the_sizes_that_the_class_takes():
    known = dict(num_classes=5, channels=None, temperature=0.3, margin=7)
    loss = dict(type='mm_tuning_plugin.PrototypeContrastiveLoss', num_classes=6)
    assert loss_config(loss, known) == {**loss, 'channels': None}
    plain = dict(type='mm_tuning_plugin.GraphTripletLoss')
    assert loss_config(plain, known) == plain
    unknown = dict(type='NobodyHasThis')
    assert loss_config(unknown, known) == unknown


@pytest.mark.parametrize(
    'loss', ['cross_entropy', dict(type='mm_tuning_plugin.NodeCrossEntropyLoss')]
)
def test_a_loss_on_class_scores_gets_a_classifier(loss, toy_cfg):
    assert needs_classifier(loss)
    embedding = derive_tuning_config(short(toy_cfg, loss=loss)).model.embedding
    assert embedding.projection_channels == 8 and not embedding.normalise
