"""A new kind of node is one file: its name works in tree and out of tree."""

import pytest
from mistakes import mistake
from new_files import short, two_steps_with

from mm_tuning_plugin.engine import MixAndMatchRunner, derive_tuning_config
from mm_tuning_plugin.engine.config.options import OPTIONS, resolve_options
from mm_tuning_plugin.inspection.survey_summary import more_nodes
from mm_tuning_plugin.nodes import NodeKind, base, register_node_kind
from mm_tuning_plugin.registry import TRANSFORMS

CODE = '''
import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mm_tuning_plugin.nodes import NodeKind, register_node_kind
from mm_tuning_plugin.registry import TRANSFORMS


@TRANSFORMS.register_module()
class SampleDiagonal(BaseTransform):
    """The labelled pixels of the diagonal."""

    def __init__(self, number, num_classes, ignore_values):
        self.number = number

    def transform(self, results):
        places = np.arange(min(results['gt_seg_map'].shape))
        labels = results['gt_seg_map'][places, places]
        kept = np.flatnonzero(labels != 255)[: self.number]
        results['node_images'] = results['img'][None]
        results['node_points'] = torch.from_numpy(np.stack([0 * kept, kept, kept], axis=1))
        results['node_labels'] = torch.from_numpy(labels[kept].astype(np.int64))
        return results


class Diagonal(NodeKind):
    name = 'diagonal'
    nodes_per_image = 20
    whole_images = True
    kept_transforms = ('RandomCrop',)

    def transform(self, options, facts):
        number = options['nodes_per_image']
        return dict(type='mm_tuning_plugin.SampleDiagonal', number=number)

    def embedding(self, options):
        return dict(type='mm_tuning_plugin.PointEmbedding')


register_node_kind(Diagonal())
'''


@pytest.fixture
def diagonal():
    """The kind, registered out of tree."""
    exec(CODE, {})
    yield
    del base._kinds['diagonal'], TRANSFORMS.module_dict['SampleDiagonal']


def steps_of(derived):
    return derived.train_dataloader.dataset.dataset.pipeline


@pytest.mark.walk
def test_in_tree(toy_cfg, tmp_path):
    derived = two_steps_with(
        'nodes/diagonal.py', CODE, toy_cfg, tmp_path / 'copy', nodes='diagonal', pictures=['mosaic']
    )
    assert steps_of(derived)[-2]['number'] == 20
    (hook,) = [h for h in derived.custom_hooks if 'nodes' in h]
    assert hook['nodes'] == 'diagonal'


def test_out_of_tree(toy_cfg, diagonal):
    cfg = short(toy_cfg, nodes='diagonal', nodes_per_image=5)
    derived = derive_tuning_config(cfg)
    types = [step['type'] for step in steps_of(derived)]
    assert 'RandomCrop' in types and 'RandomFlip' not in types
    assert steps_of(derived)[-2]['number'] == 5
    assert derived.model.embedding.type == 'mm_tuning_plugin.PointEmbedding'
    assert MixAndMatchRunner.from_cfg(cfg).tune().is_file()
    assert more_nodes(cfg.mix_and_match) == 'raise mix_and_match.nodes_per_image'


def test_a_transform_of_the_user_s_can_be_like_it(diagonal):
    options = resolve_options(dict(nodes=dict(type='mmseg.Mine', like='diagonal')))
    assert options.nodes_per_image == 20
    kept = {key: value for key, value in options.nodes.items() if key == 'type'}
    assert base.sample_config(vars(options), base.DataFacts(None, [0]), {}) == kept


def test_an_unknown_kind_is_refused():
    with mistake('mix_and_match.nodes', 'diagonal', ['patches', 'points']):
        resolve_options(dict(nodes='diagonal'))


def test_two_kinds_of_one_name_are_refused():
    class Other(NodeKind):
        name = 'points'

    with mistake('mix_and_match.nodes', ['points', 'Points', 'Other'], 'name'):
        register_node_kind(Other())
    assert type(base.node_kind('points')).__name__ == 'Points'


@pytest.mark.parametrize('name', base.node_kinds())
def test_a_kind_declares_options_that_exist(name):
    known = {option.name for option in OPTIONS}
    assert set(base.node_kind(name).options) <= known
