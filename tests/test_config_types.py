"""A type means the same however a config gives it; a config of classes is written and read."""

import copy

import pytest
import torch
from mistakes import mistake
from mmcv.transforms import LoadAnnotations as OfMmcv
from mmengine.config import Config
from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.hooks import CheckpointHook
from mmengine.model.weight_init import PretrainedInit
from mmengine.registry import HOOKS, MODELS, DefaultScope
from mmseg.datasets import LoadAnnotations
from mmseg.models.backbones import ResNet
from mmseg.registry import TRANSFORMS
from new_style import write_new_style

from mm_tuning_plugin.benchmark.settings import comparable
from mm_tuning_plugin.cli.train import is_proxy_task, load_config
from mm_tuning_plugin.config_types import (
    base_type,
    class_of,
    full_type,
    plain_name,
    with_named_types,
)
from mm_tuning_plugin.datasets import Cached
from mm_tuning_plugin.datasets.cached import cache_loading, without_cache
from mm_tuning_plugin.engine import MixAndMatchRunner, derive_tuning_config
from mm_tuning_plugin.engine.config import user_config
from mm_tuning_plugin.engine.config.initial_weights import _has_layer_norms, remove_pretrained
from mm_tuning_plugin.engine.config.normalisation import read_normalisation
from mm_tuning_plugin.engine.config.options import resolve_options
from mm_tuning_plugin.engine.resume.checkpoint_files import CarefulCheckpointHook, with_careful_hook
from mm_tuning_plugin.engine.resume.loops import ResumableIterLoop, with_resumable_loop
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.losses.metric_learning import PMLLoss
from mm_tuning_plugin.proxies.rotation import RotationModel

RESNETS = {
    'name': 'ResNet',
    'scope': 'mmseg.ResNet',
    'path': 'mmseg.models.backbones.resnet.ResNet',
    'path of its package': 'mmseg.models.ResNet',
    'class': ResNet,
    'import': LazyObject('mmseg.models', 'ResNet'),
    'attribute': LazyAttr('ResNet', LazyObject('mmseg.models.backbones')),
}


@pytest.mark.parametrize('kind', RESNETS.values(), ids=RESNETS)
def test_a_type_has_one_name(kind):
    config = dict(type=kind)
    assert base_type(config) == 'ResNet'
    assert full_type(config, 'mmseg') == 'mmseg.ResNet'
    assert class_of(config, MODELS, 'mmseg') is ResNet


def test_names_are_those_of_the_registry():
    assert base_type(dict(type=PretrainedInit)) == 'Pretrained'
    assert base_type(dict(type='torch.nn.BatchNorm2d')) == 'BN'
    assert full_type(dict(type=torch.optim.SGD)) == 'mmengine.SGD'
    assert full_type(dict(type='Own'), 'mmpretrain') == 'mmpretrain.Own'


def test_what_is_no_class_and_what_is_not_there():
    assert base_type({}) == '' and class_of({}, MODELS) is None
    assert base_type(dict(type='nowhere.models.heads.Head')) == 'Head'
    assert full_type(dict(type='nowhere.models.heads.Head')) == 'nowhere.Head'
    assert class_of(dict(type='nowhere.models.heads.Head'), MODELS, 'mmseg') is None
    assert class_of(dict(type='NoSuchType'), MODELS, 'mmseg') is None


class Unregistered:
    """Of nobody's registry."""


def test_plain_names_keep_apart_what_is_not_the_same():
    assert plain_name(LoadAnnotations) == 'LoadAnnotations'
    assert plain_name(OfMmcv) == 'mmengine.LoadAnnotations', 'mmseg has another of this name'
    assert TRANSFORMS.get(plain_name(OfMmcv)) is OfMmcv
    assert plain_name(ResNet, 'mmpretrain') == 'mmseg.ResNet'
    assert plain_name(RotationModel) == 'mm_tuning_plugin.RotationModel'
    assert plain_name(Unregistered) == f'{__name__}.Unregistered'
    for name in ('ResNet', 'mmseg.ResNet', 'nowhere.models.Head'):
        assert plain_name(name) == name, 'what a config says stays'


def test_an_ordinary_config_is_left_alone(toy_cfg):
    assert with_named_types(toy_cfg) is toy_cfg


def test_classes_are_written_by_paths_that_read_back(toy_cfg, tmp_path):
    toy_cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='x.pth')
    given = Config.fromfile(write_new_style(toy_cfg, tmp_path / 'new_style.py'))
    named = with_named_types(given)
    assert named.model.backbone.type == 'mmseg.models.backbones.resnet.ResNet'
    # mmengine leaves what such a one loaded alone, by this name
    assert named.model.backbone.init_cfg.type == 'Pretrained'
    assert named.default_scope is None and named.filename == given.filename
    assert with_named_types(named).to_dict() == named.to_dict()
    named.dump(tmp_path / 'written.py')
    assert Config.fromfile(tmp_path / 'written.py').to_dict() == named.to_dict()
    assert given.model.backbone.type is ResNet, 'the config that was given is as it was'


def derived(cfg):
    """The config of stage one, by plain names."""
    from mm_tuning_plugin.config_types import with_plain_types

    return with_plain_types(derive_tuning_config(cfg).to_dict())


def test_both_doors_name_the_types(toy_cfg, tmp_path):
    path = write_new_style(toy_cfg, tmp_path / 'new_style.py')
    given = Config.fromfile(path)
    for cfg in (load_config(str(path)), MixAndMatchRunner.from_cfg(given).cfg):
        assert cfg.train_cfg.type == 'mmengine.runner.loops.IterBasedTrainLoop'


@pytest.mark.parametrize('nodes', ['points', 'patches'])
def test_stage_one_is_the_same_for_classes_and_names(toy_cfg, tmp_path, nodes):
    toy_cfg.mix_and_match.update(nodes=nodes, bn_crops=2, augment='strong')
    toy_cfg.model.data_preprocessor.type = 'mmseg.SegDataPreProcessor'
    given = Config.fromfile(write_new_style(toy_cfg, tmp_path / 'new_style.py'))
    given.work_dir = toy_cfg.work_dir
    assert derived(given) == derived(toy_cfg)
    tuning = derive_tuning_config(given)
    tuning.dump(tmp_path / 'written.py')
    assert Config.fromfile(tmp_path / 'written.py').to_dict() == tuning.to_dict()


def test_options_may_be_classes(toy_cfg, tmp_path):
    text = write_new_style(toy_cfg, tmp_path / 'new_style.py').read_text()
    text = 'from mm_tuning_plugin.losses.metric_learning import PMLLoss\n' + (
        'from mmengine.hooks import EMAHook\nfrom mmcv.transforms import RandomFlip\n'
        'from mm_tuning_plugin.datasets import SamplePoints\n'
    ) + text + (
        'custom_hooks = [dict(type=EMAHook)]\n'
        "mix_and_match.update(keep_hooks=[EMAHook], transforms=[RandomFlip], loss=dict("
        "type=PMLLoss, loss='TripletMarginLoss'), augment=[dict(type=RandomFlip, prob=0.1)], "
        'nodes=dict(type=SamplePoints, points_per_class=3))\n'
    )  # fmt: skip
    (tmp_path / 'new_style.py').write_text(text)
    tuning = derive_tuning_config(Config.fromfile(tmp_path / 'new_style.py'))
    assert [base_type(hook) for hook in tuning.custom_hooks][-1] == 'EMAHook'
    steps = [base_type(step) for step in tuning.train_dataloader.dataset.dataset.pipeline]
    assert steps[2:] == [
        'CheckLabels',
        'RandomFlip',
        'RandomFlip',
        'SamplePoints',
        'PackNodeInputs',
    ]
    assert tuning.model.criterion.num_classes == 8, 'what a loss of the library is told'
    tuning.dump(tmp_path / 'written.py')
    assert Config.fromfile(tmp_path / 'written.py').to_dict() == tuning.to_dict()


def test_a_class_that_is_not_there_is_told_by_its_place(toy_cfg, tmp_path):
    path = write_new_style(toy_cfg, tmp_path / 'new_style.py')
    text = path.read_text()
    path.write_text(text.replace('from mmseg.models.decode_heads.fcn_head ', 'from nowhere '))
    with mistake('model.decode_head.type', ' nowhere ', 'pip install nowhere'):
        derive_tuning_config(Config.fromfile(path))
    path.write_text(text.replace(' FCNHead as ', ' NoHead as '))
    with mistake('model.decode_head.type', 'mmseg.models.decode_heads.fcn_head.NoHead'):
        derive_tuning_config(Config.fromfile(path))


def test_what_no_stage_reads_need_not_be_there(toy_cfg, tmp_path):
    path = write_new_style(toy_cfg, tmp_path / 'new_style.py')
    path.write_text('from nowhere import TTA, Unused\n' + path.read_text() + 'tta = dict(type=TTA)')
    named = with_named_types(Config.fromfile(path))
    assert named.to_dict()['tta'] == dict(type='nowhere.TTA') and 'Unused' not in named


def test_a_class_as_an_argument_stays_one_and_can_be_written(toy_cfg, tmp_path):
    toy_cfg.optim_wrapper.constructor = LazyObject(
        'mmengine.optim', 'DefaultOptimWrapperConstructor'
    )
    toy_cfg.model.backbone.layer = torch.nn.LayerNorm
    tuning = derive_tuning_config(toy_cfg)
    assert tuning.model.backbone.layer is torch.nn.LayerNorm
    tuning.dump(tmp_path / 'written.py')
    read = Config.fromfile(tmp_path / 'written.py')
    assert read.model.backbone.layer == 'torch.nn.modules.normalization.LayerNorm'
    assert read.optim_wrapper.constructor.endswith('.DefaultOptimWrapperConstructor')


def test_a_class_that_no_path_leads_to_is_built_all_the_same(toy_cfg):
    class Local(ResNet):
        pass

    toy_cfg.model.backbone.type = Local
    assert derive_tuning_config(toy_cfg).model.backbone.type is Local


def kinds_of(cls, path):
    return [cls, LazyObject(cls.__module__, cls.__name__), path]


@pytest.mark.parametrize('kind', kinds_of(CheckpointHook, 'mmengine.hooks.CheckpointHook'))
def test_mmengines_hook_and_loop_are_replaced(kind):
    from mmengine.runner import IterBasedTrainLoop

    with DefaultScope.overwrite_default_scope('mmseg'):
        assert with_careful_hook(Config(dict(a=dict(type=kind))).a)['type'] is CarefulCheckpointHook
        for name in kinds_of(IterBasedTrainLoop, 'mmengine.runner.IterBasedTrainLoop'):
            loop = with_resumable_loop(Config(dict(a=dict(type=name))).a)
            assert loop['type'] is ResumableIterLoop


def test_a_users_own_hook_of_that_name_stays():
    @HOOKS.register_module(name='own.CheckpointHook')
    class Own(CheckpointHook):
        pass

    try:
        assert with_careful_hook(dict(type=Own))['type'] is Own
    finally:
        HOOKS.module_dict.pop('own.CheckpointHook')


@pytest.mark.parametrize('kind', kinds_of(Cached, 'mm_tuning_plugin.datasets.cached.Cached'))
def test_a_cache_is_known(kind):
    assert without_cache([dict(type=kind, transforms=['a', 'b'])]) == ['a', 'b']


def test_loading_by_classes_is_cached(toy_cfg, tmp_path):
    given = Config.fromfile(write_new_style(toy_cfg, tmp_path / 'new_style.py'))
    cached = cache_loading(given).train_dataloader.dataset.pipeline[0]
    assert len(cached['transforms']) == 2


@pytest.mark.parametrize(
    'kind', kinds_of(RotationModel, 'mm_tuning_plugin.proxies.rotation.RotationModel')
)
def test_a_proxy_task_is_known(kind):
    assert is_proxy_task(Config(dict(default_scope=None, model=dict(type=kind))))
    assert not is_proxy_task(Config(dict(default_scope='mmseg', model=dict(type='RotationModel'))))


@pytest.mark.parametrize('kind', kinds_of(torch.nn.LayerNorm, 'torch.nn.LayerNorm'))
def test_layer_norms_are_known(kind):
    assert _has_layer_norms(dict(type=ResNet, norm_cfg=dict(type=kind)))


@pytest.mark.parametrize('kind', kinds_of(PretrainedInit, 'mmengine.model.PretrainedInit'))
def test_what_loads_weights_is_known(kind):
    assert remove_pretrained(dict(type='X', init_cfg=dict(type=kind, checkpoint='a'))) == {
        'type': 'X'
    }


def test_refusals_know_classes(toy_cfg):
    from mmseg.models import DepthEstimator

    cfg = copy.deepcopy(toy_cfg)
    cfg.model.type = DepthEstimator
    with pytest.raises(UserError, match=r'^model\b.*DepthEstimator'):
        user_config.read_model(cfg)
    cfg.model.data_preprocessor.type = ResNet
    with pytest.raises(UserError, match=r'^[\w.]*data_preprocessor\b.*SegDataPreProcessor'):
        read_normalisation(cfg)


def test_a_metric_of_a_comparison_is_known(toy_cfg, tmp_path):
    given = Config.fromfile(write_new_style(toy_cfg, tmp_path / 'new_style.py'))
    assert comparable(given)['val_evaluator']['type'] == 'mm_tuning_plugin.ImageIoUMetric'


def test_a_loss_of_the_library_may_be_a_class():
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.losses import TripletMarginLoss

    for distance in (CosineSimilarity, 'pytorch_metric_learning.distances.CosineSimilarity'):
        loss = PMLLoss(dict(type=TripletMarginLoss, distance=dict(type=distance)))
        assert isinstance(loss.loss.distance, CosineSimilarity)
    with pytest.raises(UserError, match=r"^PMLLoss\b.*'mmseg\.ResNet'.*pytorch_metric_learning"):
        PMLLoss(dict(type=ResNet))


def test_options_take_classes_where_they_take_configs():
    options = dict(augment=[dict(type=OfMmcv)], nodes=dict(type=OfMmcv, like='patches'))
    assert resolve_options(options).nodes_per_image == 9
    with pytest.raises(UserError, match=r'^mix_and_match\.augment\b'):
        resolve_options(dict(augment=[dict(prob=0.5)]))
