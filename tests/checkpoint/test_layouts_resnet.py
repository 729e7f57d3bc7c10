"""ResNets: from every project's file on disk the same function arrives, and the report is right."""

import json

import pytest
import torch
from loading import built, compare, shallow
from mmseg.models.backbones import ResNet
from reference_cnns import Bottleneck, DeepStemResNet
from reference_networks import TorchvisionResNet
from resnet_layouts import LAYOUTS, moco_v2
from safetensors.torch import save_file

from mm_tuning_plugin.checkpoint import hash_state_dict, load_backbone_checkpoint

NARROW = dict(stem_channels=8, base_channels=8)
SOURCES = {
    'basic': (lambda: TorchvisionResNet(width=8), lambda: ResNet(depth=18, **NARROW)),
    'deeper': (
        lambda: TorchvisionResNet((3, 4, 6, 3), width=8),
        lambda: ResNet(depth=34, **NARROW),
    ),
    'bottleneck': (
        lambda: DeepStemResNet(Bottleneck, deep=0, width=8),
        lambda: shallow(ResNet, **NARROW),
    ),
}


# Files that hold two networks, or names or containers of their own kind: with every source. Where
# in a file the weights lie hangs on no depth, so that the others are written with one source.
OF_THEIR_KIND = ('moco_v2.pth.tar', 'densecl.pth', 'dino.pth', 'lightly.ckpt', 'vissl.torch',
                 'encoder.safetensors')  # fmt: skip


@pytest.fixture(scope='module')
def sources():
    """The network of each kind; tests read it only."""
    return {kind: built(make) for kind, (make, _) in SOURCES.items()}


def arrived(file, kind, sources, tmp_path):
    """Writes a source as a project does, loads the file and checks the report."""
    layout, source = LAYOUTS[file], sources[kind]
    weights = {k: v for k, v in source.state_dict().items() if not k.startswith('fc.')}
    save = save_file if file.endswith('.safetensors') else torch.save
    save(layout.write(weights), tmp_path / file)
    backbone = SOURCES[kind][1]()
    before = hash_state_dict(backbone.state_dict())

    report = load_backbone_checkpoint(backbone, tmp_path / file)

    assert report.layout[:3] == (layout.container, layout.prefix, layout.naming)
    assert report.missing == () and report.unexpected == () and report.resized == {}
    assert report.share == 1
    found = backbone.state_dict()
    assert report.num_loaded == len(found) == len(weights)
    assert list(report.stages) == ['stem', 'layer1', 'layer2', 'layer3', 'layer4']
    assert all(loaded == total for loaded, total in report.stages.values())
    assert report.hash_before == before != report.hash_after
    assert report.hash_after == hash_state_dict(found)
    assert all(torch.equal(found[name], value) for name, value in weights.items())
    return backbone


@pytest.mark.parametrize(
    ('file', 'kind'),
    [
        (file, kind)
        for file in LAYOUTS
        for kind in SOURCES
        if kind == 'basic' or file in OF_THEIR_KIND
    ],
)
def test_every_layout_arrives_whole(file, kind, sources, tmp_path):
    arrived(file, kind, sources, tmp_path)


@pytest.mark.parametrize('kind', SOURCES)
def test_equal_weights_are_the_same_function(kind, sources, tmp_path):
    """mmseg's names are torchvision's: what `arrived` compares is all that there is to compare."""
    compare(arrived('moco_v2.pth.tar', kind, sources, tmp_path), sources[kind].features)


def test_report_says_what_was_left_and_survives_json(tmp_path, resnet_source):
    weights = {k: v for k, v in resnet_source.state_dict().items() if 'fc' not in k}
    torch.save(moco_v2(weights), tmp_path / 'a.pth')
    report = load_backbone_checkpoint(ResNet(depth=18), tmp_path / 'a.pth')
    assert 'state_dict.module.encoder_q.fc.0.weight' in report.dropped
    assert 'state_dict.module.queue' in report.dropped
    assert report.layout.equals == ('state_dict.module.encoder_k.',)
    record = json.loads(report.to_json())
    assert record['layout']['prefix'] == 'module.encoder_q.'
    assert record['stages']['stem'] == [9536, 9536]
    text = str(report)
    assert 'layer3' in text and 'dropped: ' in text and '100.0%' in text


def test_loads_into_half_precision_and_frozen_stages(tmp_path, resnet_source):
    torch.save(resnet_source.state_dict(), tmp_path / 'a.pth')
    backbone = ResNet(depth=18, frozen_stages=1).half()
    load_backbone_checkpoint(backbone, tmp_path / 'a.pth')
    assert backbone.conv1.weight.dtype == torch.float16
    assert torch.equal(backbone.conv1.weight, resnet_source.conv1.weight.half())


def test_mmengine_checkpoint(tmp_path, resnet_source):
    """One that a real Runner wrote, with HistoryBuffer and getattr pickled in it."""
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    class Model(BaseModel):
        def __init__(self):
            super().__init__()
            self.backbone = ResNet(depth=18)
            self.backbone.load_state_dict(resnet_source.state_dict(), strict=False)

        def forward(self, inputs, mode='tensor'):
            return {'loss': 0 * self.backbone.conv1.weight.sum() + inputs.mean() * 0}

        def init_weights(self):
            pass

    runner = Runner(
        Model(),
        work_dir=str(tmp_path),
        experiment_name='checkpoint_layout',
        train_dataloader={
            'dataset': [torch.ones(1)] * 2,
            'batch_size': 1,
            'sampler': {'type': 'DefaultSampler'},
        },
        train_cfg={'by_epoch': False, 'max_iters': 2},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.0}},
        default_hooks={'checkpoint': {'type': 'CheckpointHook', 'by_epoch': False, 'interval': 2}},
        default_scope='mmengine',
    )
    runner.train()
    file = tmp_path / 'iter_2.pth'
    assert b'HistoryBuffer' in file.read_bytes() and b'getattr' in file.read_bytes()
    backbone = ResNet(depth=18)
    report = load_backbone_checkpoint(backbone, file)
    assert report.layout[:2] == ('state_dict', 'backbone.')
    assert torch.equal(backbone.layer4[1].conv2.weight, resnet_source.layer4[1].conv2.weight)


def test_fewer_stages_than_the_file_are_no_mistake(tmp_path, resnet_source):
    torch.save(resnet_source.state_dict(), tmp_path / 'a.pth')
    backbone = ResNet(
        depth=18, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,)
    )
    report = load_backbone_checkpoint(backbone, tmp_path / 'a.pth')
    assert list(report.stages) == ['stem', 'layer1', 'layer2', 'layer3']
    assert 'layer4.0.conv1.weight' in report.dropped
