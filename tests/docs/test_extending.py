"""Runs the code of docs/extending.md as its reader would: files next to a config, then training."""

import re
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mm_tuning_plugin.checkpoint.naming import all_namings
from mm_tuning_plugin.engine import MixAndMatchRunner
from mm_tuning_plugin.nodes.base import node_kinds
from mm_tuning_plugin.recipes import base as recipes_base
from mm_tuning_plugin.registry import MODELS as OURS
from mm_tuning_plugin.registry import TRANSFORMS

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'extending.md'
BLOCK = re.compile(r'^```python(?: title="(?P<title>[\w.]+)")?\n(?P<code>.*?)^```$', re.M | re.S)


def section(heading):
    """Files of a section by their titles; what has no title is under None."""
    text = re.split(rf'^## {heading}\n', PAGE.read_text(), flags=re.M)[1].split('\n## ')[0]
    return {match['title']: match['code'] for match in BLOCK.finditer(text)}


@pytest.fixture
def project(toy_cfg, tmp_path, monkeypatch):
    """Writes a section's files beside the reader's own config; returns the config of both."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    toy_cfg.dump('your_config.py')

    def write(files):
        for name, code in files.items():
            Path(name).write_text(code)
            sys.modules.pop(Path(name).stem, None)
        cfg = Config.fromfile('my_config.py')
        cfg.mix_and_match.update(max_iters=2, images_per_batch=2, retrieval_images=0)
        return cfg

    return write


def tuned(cfg):
    runner = MixAndMatchRunner.from_cfg(cfg)
    assert runner.tune().is_file()
    return Config.fromfile(Path(cfg.work_dir) / 'tuning' / 'tuning_config.py')


def test_the_loss_trains_a_backbone(project):
    OURS.module_dict.pop('CentreLoss', None)  # of another test
    cfg = project({k: v for k, v in section('A loss').items() if k})
    assert tuned(cfg).model.criterion == dict(type='mm_tuning_plugin.CentreLoss', weight=0.5)


def test_the_kind_of_node_trains_a_backbone(project, request):
    request.addfinalizer(lambda: node_kinds.__globals__['_kinds'].pop('grid'))
    TRANSFORMS.module_dict.pop('SampleGrid', None)  # of another test
    sampler = section('A node sampler')['my_sampler.py']
    cfg = project({'my_sampler.py': sampler, **section('A kind of node')})
    steps = tuned(cfg).train_dataloader.dataset.dataset.pipeline
    assert steps[-2]['type'] == 'mm_tuning_plugin.SampleGrid'


@pytest.mark.parametrize(
    ('labels', 'distance'),
    [
        ([4], 0),
        ([2, 0, 7], 0),  # no class twice
        ([3, 3, 3], 8 / 9),  # one class: unit vectors along x, x and -x
        ([1, 1, 0], 0),
    ],
)
def test_the_loss_is_finite_on_every_batch(labels, distance):
    namespace = {}
    OURS.module_dict.pop('CentreLoss', None)  # of another test
    exec(section('A loss')['my_loss.py'], namespace)
    rows = torch.zeros(len(labels), 2)
    rows[:, 0] = torch.tensor([2.0, 5.0, -1.0][: len(labels)])
    rows.requires_grad_()
    done = namespace['CentreLoss'](weight=0.5)(rows, torch.tensor(labels, dtype=torch.int64))
    done['loss'].backward()
    assert done['distance'] == pytest.approx(distance) and done['loss'] == 0.5 * done['distance']
    assert torch.isfinite(rows.grad).all()


def test_the_loss_of_the_library_trains_a_backbone(toy_cfg):
    given = Config.fromstring(section('A loss')[None], '.py')
    options = dict(max_iters=2, images_per_batch=2, retrieval_images=0)
    toy_cfg.mix_and_match = dict(given.mix_and_match, **options)
    assert tuned(toy_cfg).model.criterion.miner == 'MultiSimilarityMiner'


def test_the_sampler_draws_the_nodes(project):
    TRANSFORMS.module_dict.pop('SampleGrid', None)  # of another test
    cfg = project(section('A node sampler'))
    steps = tuned(cfg).train_dataloader.dataset.dataset.pipeline
    (own,) = [step for step in steps if step['type'] == 'mm_tuning_plugin.SampleGrid']
    assert own['step'] == 8 and own['num_classes'] == 8 and 255 in own['ignore_values']


def test_the_layout_is_read(project, request):
    files = section('A checkpoint layout')
    request.addfinalizer(lambda: all_namings.__globals__['_registered'].clear())
    cfg = project(files)
    with DefaultScope.overwrite_default_scope('mmseg'):
        backbone = MODELS.build(cfg.model.backbone)
    weights = {name: torch.randn(value.shape).to(value.dtype).abs()
               for name, value in backbone.state_dict().items()}  # fmt: skip
    torch.save({foreign(name): value for name, value in weights.items()}, 'my_weights.pth')
    cfg.mix_and_match.update(lr=1e-30)
    tuned(cfg)
    written = torch.load(Path(cfg.work_dir) / 'tuning' / 'tuned_backbone.pth', weights_only=False)
    assert torch.allclose(written['state_dict']['layer3.1.conv2.weight'],
                          weights['layer3.1.conv2.weight'], atol=1e-4)  # fmt: skip


def foreign(name):
    """A name of mmseg's ResNet as the project of the page would have written it."""
    name = re.sub(r'^(conv|bn)1\.', r'trunk/stem_\1/', name)
    name = re.sub(r'^layer(\d)\.', lambda m: f'trunk/block{int(m[1]) - 1}/', name)
    name = re.sub(r'\b(conv|bn)([123])\.', lambda m: f'{m[1]}_{"abc"[int(m[2]) - 1]}/', name)
    return name.replace('downsample.', 'shortcut/').replace('.', '/')


def test_the_recipe_trains_a_backbone(project, monkeypatch):
    monkeypatch.setattr(recipes_base, '_recipes', recipes_base.recipes())
    cfg = project({k: v for k, v in section('A recipe').items() if k})
    cfg.mix_and_match.pop('checkpoint')
    steps = tuned(cfg).train_dataloader.dataset.dataset.pipeline
    assert next(step for step in steps if 'patch_size' in step).patch_size == 64
