"""ResNets: every layout on disk, the function that arrives, and what must be refused."""

import argparse
import collections
import json

import pytest
import torch
from mmseg.models.backbones import ResNet, ResNetV1c, ResNetV1d, VisionTransformer
from reference_networks import TorchvisionResNet, randomise
from safetensors.torch import save_file

from mm_tuning_plugin.checkpoint import hash_state_dict, load_backbone_checkpoint
from mm_tuning_plugin.errors import UserError


def shifted(weights):
    """Another network of the same shapes."""
    return {k: v + 1 if v.is_floating_point() else v for k, v in weights.items()}


def under(prefix, weights):
    return collections.OrderedDict((prefix + name, value) for name, value in weights.items())


def moco_v2(w):
    return {
        'epoch': 200,
        'arch': 'resnet18',
        'state_dict': {
            **under('module.encoder_k.', shifted(w)),
            **under('module.encoder_q.', w),
            'module.queue': torch.randn(128, 32),
            'module.queue_ptr': torch.zeros(1, dtype=torch.long),
        },
        'optimizer': {'state': {0: {'momentum_buffer': torch.randn(3)}}, 'param_groups': []},
    }


def dino(w):
    return {
        'student': under('module.backbone.', shifted(w)),
        'teacher': {**under('backbone.', w), 'head.mlp.0.weight': torch.randn(4, 512)},
        'args': argparse.Namespace(arch='resnet18', lr=0.1, betas=[0.9, 0.99]),
        'epoch': 3,
    }


def swav(w):
    return {
        **under('module.', w),
        'module.projection_head.0.weight': torch.randn(8, 512),
        'module.prototypes.weight': torch.randn(30, 8),
    }


def vissl(w):
    trunk = under('_feature_blocks.', w)
    model = {'model': {'trunk': trunk, 'heads': {'0.clf.weight': torch.randn(4, 512)}}}
    return {'phase_idx': 1, 'classy_state_dict': {'base_model': model}}


def lightning(w):
    return {
        'pytorch-lightning_version': '2.0.0',
        'state_dict': {
            **under('backbone.', w),
            **under('momentum_backbone.', shifted(w)),
            'projector.0.weight': torch.randn(8, 512),
        },
        'hyper_parameters': collections.defaultdict(list, a=[1]),
    }


def lightly(w):
    """Lightly wraps the children of a ResNet into a Sequential."""
    numbers = {'conv1': '0', 'bn1': '1', 'layer1': '4', 'layer2': '5', 'layer3': '6', 'layer4': '7'}
    named = {}
    for name, value in w.items():
        first, rest = name.split('.', 1)
        if first in numbers:
            named[f'{numbers[first]}.{rest}'] = value
    return {'state_dict': {**under('backbone.', named), 'projection_head.weight': torch.ones(2, 2)}}


LAYOUTS = {
    'torchvision.pth': (lambda w: w, '', '', 'same names'),
    'moco_v2.pth.tar': (moco_v2, 'state_dict', 'module.encoder_q.', 'same names'),
    'simsiam.pth.tar': (
        lambda w: {'state_dict': under('module.encoder.', w)},
        'state_dict',
        'module.encoder.',
        'same names',
    ),
    'swav.pth': (swav, '', 'module.', 'same names'),
    'barlow.pth': (
        lambda w: {'model': under('module.backbone.', w)},
        'model',
        'module.backbone.',
        'same names',
    ),
    'dino.pth': (dino, 'teacher', 'backbone.', 'same names'),
    'openmmlab.pth': (
        lambda w: {
            'meta': {'epoch': 1},
            'state_dict': {**under('backbone.', w), 'head.fc.weight': torch.ones(2, 2)},
        },
        'state_dict',
        'backbone.',
        'same names',
    ),
    'vissl.torch': (
        vissl,
        'classy_state_dict.base_model.model.trunk',
        '_feature_blocks.',
        'same names',
    ),
    'lightning.ckpt': (lightning, 'state_dict', 'backbone.', 'same names'),
    'lightly.ckpt': (lightly, 'state_dict', 'backbone.', 'Sequential ResNet'),
    'model_state.bin': (lambda w: {'model_state_dict': w}, 'model_state_dict', '', 'same names'),
    'segmentor.pt': (
        lambda w: {
            'state_dict': {
                **under('backbone.', w),
                'decode_head.conv_seg.weight': torch.randn(19, 8, 1, 1),
            }
        },
        'state_dict',
        'backbone.',
        'same names',
    ),
}


@pytest.mark.parametrize('file', LAYOUTS)
def test_every_layout_arrives_whole(file, tmp_path, resnet_source):
    make, container, prefix, renaming = LAYOUTS[file]
    torch.save(make(resnet_source.state_dict()), tmp_path / file)
    backbone = ResNet(depth=18)
    before = hash_state_dict(backbone.state_dict())

    report = load_backbone_checkpoint(backbone, tmp_path / file)

    for name, value in backbone.state_dict().items():
        assert torch.equal(value, resnet_source.state_dict()[name]), name
    assert report.layout[:3] == (container, prefix, renaming)
    assert report.missing == () and report.unexpected == () and report.resized == {}
    assert report.share == 1
    assert report.num_loaded == len(backbone.state_dict())
    assert list(report.stages) == ['stem', 'layer1', 'layer2', 'layer3', 'layer4']
    assert all(loaded == total for loaded, total in report.stages.values())
    assert report.hash_before == before != report.hash_after
    assert report.hash_after == hash_state_dict(backbone.state_dict())


def test_the_function_arrives(tmp_path, resnet_source):
    torch.save({'state_dict': resnet_source.state_dict()}, tmp_path / 'a.pth')
    backbone = ResNet(depth=18)
    backbone.eval()  # returns None
    load_backbone_checkpoint(backbone, tmp_path / 'a.pth')
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for found, expected in zip(backbone(images), resnet_source.features(images)):
            assert found.std() > 0.01
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_safetensors(tmp_path, resnet_source):
    weights = {k: v.contiguous() for k, v in under('encoder.', resnet_source.state_dict()).items()}
    save_file(weights, tmp_path / 'model.safetensors')
    backbone = ResNet(depth=18)
    report = load_backbone_checkpoint(backbone, tmp_path / 'model.safetensors')
    assert report.layout[:2] == ('', 'encoder.')
    assert torch.equal(backbone.conv1.weight, resnet_source.conv1.weight)


def test_report_says_what_was_left_and_survives_json(tmp_path, resnet_source):
    torch.save(moco_v2(resnet_source.state_dict()), tmp_path / 'a.pth')
    report = load_backbone_checkpoint(ResNet(depth=18), tmp_path / 'a.pth')
    assert 'state_dict.module.encoder_q.fc.weight' in report.dropped
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


@pytest.mark.parametrize('channels', [(3, 1), (1, 3)])
def test_grey_and_colour_stems(channels, tmp_path):
    """Colour kernels on equal channels and grey kernels on grey images: the same features."""
    found, wanted = channels
    source = randomise_source(found)
    torch.save(source.state_dict(), tmp_path / 'a.pth')
    backbone = ResNet(depth=18, in_channels=wanted)
    backbone.eval()
    report = load_backbone_checkpoint(backbone, tmp_path / 'a.pth')
    assert report.resized == {
        'conv1.weight': f'(64, {found}, 7, 7) -> (64, {wanted}, 7, 7)',
    }
    grey = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        expected = source.features(grey.expand(-1, found, -1, -1))
        for a, b in zip(backbone(grey.expand(-1, wanted, -1, -1)), expected):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def randomise_source(channels):
    with torch.no_grad():
        return randomise(TorchvisionResNet(channels=channels), seed=3)


def refuse(backbone, file, *words, **options):
    """Refused in one line with these words in it, and the backbone is as it was."""
    before = hash_state_dict(backbone.state_dict())
    with pytest.raises(UserError) as error:
        load_backbone_checkpoint(backbone, file, **options)
    message = str(error.value)
    assert '\n' not in message
    assert message.startswith(f'{file}: ')
    assert 'expected' in message
    for word in words:
        assert word in message, message
    assert hash_state_dict(backbone.state_dict()) == before


def test_plain_file_into_deep_stem_is_refused(tmp_path, resnet_source):
    torch.save(resnet_source.state_dict(), tmp_path / 'a.pth')
    refuse(ResNetV1c(depth=18), tmp_path / 'a.pth', "'stem' finds 0 of", "plain stem 'conv1'")


def test_deep_stem_file_into_plain_resnet_is_refused(tmp_path):
    torch.save(ResNetV1c(depth=18).state_dict(), tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', "'stem' finds 0 of", 'has the deep stem')


@pytest.mark.parametrize('depths', [(18, 50), (50, 18), (34, 50), (18, 34), (34, 18)])
def test_other_depth_is_refused(depths, tmp_path):
    """34 -> 18 too: each tensor of the shallow one finds its place, but it is another network."""
    found, wanted = depths
    torch.save({'model': ResNet(depth=found).state_dict()}, tmp_path / 'a.pth')
    backbone = ResNet(depth=wanted)
    refuse(backbone, tmp_path / 'a.pth', f'ResNet-{found}', f'ResNet-{wanted}')


def test_one_surplus_block_is_refused_though_nearly_all_is_used(tmp_path, resnet_source):
    weights = dict(resnet_source.state_dict())
    weights['layer1.2.bn1.weight'] = torch.ones(64)
    torch.save(weights, tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', "goes on with 'layer1.2'")


def test_parameters_inside_a_stage_without_a_place_are_refused(tmp_path, resnet_source):
    weights = dict(resnet_source.state_dict())
    weights['layer1.0.se.weight'] = torch.ones(200, 200)
    torch.save(weights, tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', "stage 'layer1' 40,000 of 187,968")


def test_other_shortcut_is_refused(tmp_path):
    torch.save(ResNetV1d(depth=18).state_dict(), tmp_path / 'a.pth')
    refuse(ResNetV1c(depth=18), tmp_path / 'a.pth', 'ResNetV1d')


def test_other_width_is_refused(tmp_path):
    torch.save(
        ResNet(depth=18, base_channels=32, stem_channels=32).state_dict(), tmp_path / 'a.pth'
    )
    refuse(ResNet(depth=18), tmp_path / 'a.pth', 'is 32 channels wide, the backbone 64')


def test_segmentor_of_another_backbone_is_refused(tmp_path):
    weights = under('backbone.', ResNet(depth=50).state_dict())
    weights['decode_head.conv_seg.weight'] = torch.ones(2, 2, 1, 1)
    torch.save({'state_dict': weights}, tmp_path / 'a.pth')
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dims=16, num_layers=1, num_heads=2)
    refuse(vit, tmp_path / 'a.pth', 'holds a ResNet, the backbone is a ViT', 'whole segmentor')


def test_a_misfit_of_no_known_kind_shows_one_tensor(tmp_path, resnet_source):
    """The small stem that is used for CIFAR."""
    weights = {**resnet_source.state_dict(), 'conv1.weight': torch.ones(64, 3, 3, 3)}
    torch.save(weights, tmp_path / 'a.pth')
    words = "e.g. 'conv1.weight' is (64, 3, 3, 3) in the file, (64, 3, 7, 7) in the backbone"
    refuse(ResNet(depth=18), tmp_path / 'a.pth', "stage 'stem'", words)


def test_missing_running_statistics_are_noted(tmp_path, resnet_source):
    weights = {k: v for k, v in resnet_source.state_dict().items() if 'running_mean' not in k}
    torch.save(weights, tmp_path / 'a.pth')
    report = load_backbone_checkpoint(ResNet(depth=18), tmp_path / 'a.pth')
    (note,) = report.notes
    assert note.startswith('20 of 40 running statistics are not in the file')
    assert 'note: 20 of 40' in str(report)


def test_names_that_mean_nothing_load_nothing(tmp_path, resnet_source):
    """What `init_cfg=dict(type='Pretrained')` accepts in silence."""
    weights = {name.replace('.', '_'): v for name, v in resnet_source.state_dict().items()}
    torch.save({'state_dict': weights}, tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', 'none of its 122 tensors fits ResNet')


def test_a_missing_stage_is_refused_and_min_matched_is_per_stage(tmp_path, resnet_source):
    """The stem is 0.1% of a ResNet: a share over the whole network would not notice it."""
    weights = {k: v for k, v in resnet_source.state_dict().items() if not k.startswith('conv1')}
    torch.save(weights, tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', "stage 'stem' finds 128 of 9,536 parameters (1%)")
    report = load_backbone_checkpoint(ResNet(depth=18), tmp_path / 'a.pth', min_matched=0.01)
    assert report.stages['stem'] == (128, 9536)
    assert report.missing == ('conv1.weight',)


def test_min_matched_is_a_share(tmp_path, resnet_source):
    torch.save(resnet_source.state_dict(), tmp_path / 'a.pth')
    with pytest.raises(UserError, match=r'min_matched must be a share in \[0, 1\], got 90'):
        load_backbone_checkpoint(ResNet(depth=18), tmp_path / 'a.pth', min_matched=90)


def test_not_finite_is_refused(tmp_path, resnet_source):
    weights = dict(resnet_source.state_dict())
    weights['layer4.1.bn2.bias'] = torch.full((512,), float('nan'))
    torch.save(weights, tmp_path / 'a.pth')
    refuse(ResNet(depth=18), tmp_path / 'a.pth', 'layer4.1.bn2.bias holds NaN')


def test_fewer_stages_than_the_file_are_no_mistake(tmp_path, resnet_source):
    torch.save(resnet_source.state_dict(), tmp_path / 'a.pth')
    backbone = ResNet(
        depth=18, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,)
    )
    report = load_backbone_checkpoint(backbone, tmp_path / 'a.pth')
    assert list(report.stages) == ['stem', 'layer1', 'layer2', 'layer3']
    assert 'layer4.0.conv1.weight' in report.dropped


def test_a_renamed_copy_of_a_deep_stem(tmp_path):
    """timm's resnet18d -> mmseg's ResNetV1d, by round trip."""
    with torch.no_grad():
        source = randomise(ResNetV1d(depth=18), seed=5)
    weights = {}
    for name, value in source.state_dict().items():
        name = name.replace('stem.7.', 'bn1.')
        weights[name.replace('stem.', 'conv1.')] = value
    torch.save(weights, tmp_path / 'a.pth')
    backbone = ResNetV1d(depth=18)
    report = load_backbone_checkpoint(backbone, tmp_path / 'a.pth')
    assert report.layout.renaming == 'timm deep-stem ResNet'
    assert hash_state_dict(backbone.state_dict()) == hash_state_dict(source.state_dict())
