"""``tools/convert_checkpoint.py``: what it writes, prints and refuses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import mmseg.models  # noqa: F401
import pytest
import torch
from caffe_writer import alexnet_layers, caffemodel
from mistakes import check_mistake
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from mmseg_backbones import BACKBONES, as_trained, build, different, initialise
from torch import nn

from mm_tuning_plugin.checkpoint.known import KNOWN
from mm_tuning_plugin.cli.common import checkpoint_summary
from mm_tuning_plugin.cli.convert import build_parser, entry

ROOT = Path(__file__).parents[2]
RESNET = BACKBONES['ResNet']


@pytest.fixture(scope='module', autouse=True)
def _known_built_once():
    """A process inspects one file, this module many: what they are compared with stays the same."""
    with pytest.MonkeyPatch.context() as patch:
        plain, built = checkpoint_summary.build_on_meta, {}

        def build_once(config):
            if repr(config) not in built:
                built[repr(config)] = plain(config)
            return built[repr(config)]

        patch.setattr(checkpoint_summary, 'build_on_meta', build_once)
        yield


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a config and a MoCo file that fits it."""
    monkeypatch.chdir(tmp_path)
    write_config(RESNET)
    encoder = {f'module.encoder_q.{name}': v for name, v in as_trained(RESNET).items()}
    torch.save({'state_dict': encoder, 'optimizer': {'lr': 1}}, 'moco.pth.tar')
    return tmp_path


def write_config(backbone, **more):
    model = dict(type='EncoderDecoder', backbone=backbone, **more)
    Path('config.py').write_text(f'model = {model!r}')


def works(capfd, *argv):
    assert entry([str(argument) for argument in argv]) == 0, capfd.readouterr().err
    return capfd.readouterr().out


def fails(capfd, *argv):
    status = entry([str(argument) for argument in argv])
    err = capfd.readouterr().err
    assert status == 2 and 'Traceback' not in err
    last = err.strip().splitlines()[-1]
    assert last.startswith('error: ')
    return last.removeprefix('error: ')


def test_what_is_written_and_told(here, capfd):
    told = works(capfd, 'moco.pth.tar', 'new/plain.pth', '--config', 'config.py')
    assert "from 'state_dict', prefix 'module.encoder_q.'" in told
    assert "backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='new/plain.pth'))" in told
    content = torch.load('new/plain.pth', weights_only=True)
    assert list(content) == ['state_dict', 'meta']
    assert not different(content['state_dict'], as_trained(RESNET))
    meta = content['meta']
    assert meta['source'] == 'moco.pth.tar' and len(meta['source_sha256']) == 64
    assert type(meta['versions']['torch']) is str and str(here) not in repr(meta)
    assert os.listdir('new') == ['plain.pth']


def test_other_weights_of_the_config_are_not_read(here, capfd):
    write_config(dict(RESNET, pretrained='nowhere.pth'), pretrained='nowhere.pth')
    told = works(capfd, 'moco.pth.tar', 'plain.pth', '--config', 'config.py')
    assert 'backbone=dict(pretrained=None, init_cfg=' in told


def test_pidnet_wants_its_names_at_the_top(here, capfd):
    config = BACKBONES['PIDNet']
    write_config(config)
    torch.save({'model': as_trained(config)}, 'pid.pth')
    assert 'at its top' in works(capfd, 'pid.pth', 'plain.pth', '--config', 'config.py')
    assert 'meta' in torch.load('plain.pth', weights_only=True)


def test_what_the_file_lacks_is_left_to_the_backbone(here, capfd):
    weights = as_trained(RESNET)
    kept = {name: value for name, value in weights.items() if not name.startswith('layer4.1')}
    torch.save(kept, 'part.pth')
    argv = ['part.pth', 'plain.pth', '--config', 'config.py']
    check_mistake(fails(capfd, *argv), 'part.pth', "'layer4'")
    assert not Path('plain.pth').exists()
    works(capfd, *argv, '--min-matched', 0)
    assert not different(torch.load('plain.pth')['state_dict'], kept)


def test_resized_positions_and_no_index_tables(here, capfd):
    vit, swin = BACKBONES['VisionTransformer'], BACKBONES['SwinTransformer']
    torch.save(as_trained(vit), 'vit.pth')
    write_config(vit)
    options = ['--cfg-options', 'model.backbone.img_size=64']
    works(capfd, 'vit.pth', 'plain.pth', '--config', 'config.py', *options)
    assert torch.load('plain.pth')['state_dict']['pos_embed'].shape == (1, 65, 16)
    torch.save(as_trained(swin), 'swin.pth')
    write_config(swin)
    works(capfd, 'swin.pth', 'plain.pth', '--config', 'config.py', '--overwrite')
    weights = torch.load('plain.pth')['state_dict']
    assert not any('relative_position_index' in name for name in weights)
    # so that mmseg can load the file into another window, which such a table would not fit
    start = dict(type='Pretrained', checkpoint='plain.pth')
    initialise(build(swin, window_size=8, init_cfg=start))


class Unknown:
    """Something that no list allows."""


def test_two_networks_and_code(here, capfd):
    torch.save({'a': as_trained(RESNET, 4), 'b': as_trained(RESNET), 'c': Unknown()}, 'two.pth')
    argv = ['two.pth', 'plain.pth', '--config', 'config.py']
    check_mistake(fails(capfd, *argv), 'two.pth', 'Unknown', '--allow-pickle')
    argv.append('--allow-pickle')
    check_mistake(fails(capfd, *argv), 'two.pth', ("'a.'", "'b.'"), 'prefix')
    works(capfd, *argv, '--prefix', 'b')
    assert not different(torch.load('plain.pth')['state_dict'], as_trained(RESNET))


RIGHT = ('moco.pth.tar', 'a.pth', '--config', 'config.py')
ONTO_ITSELF = ('--overwrite', '--config', 'config.py', 'there.pth')


@pytest.mark.parametrize(
    ('argv', 'where', 'problem', 'remedy'),
    [
        (['moco.pth.tar'], 'DST', 'none', '--inspect'),
        (['moco.pth.tar', 'a.pth'], '--config', 'none', ''),
        (['moco.pth.tar', 'a.pth', '--config', 'no.py'], 'no.py', 'no such file', ''),
        (['moco.pth.tar', 'a.pth', '--config', 'empty.py'], 'empty.py', 'model.backbone', ''),
        (['moco.pth.tar', 'a.pth', '--config', 'headless.py'], 'headless.py', 'model.backbone', ''),
        (['moco.pth.tar', 'a.pth', '--config', 'unknown.py'], None, 'NoSuchNet', ''),
        (['moco.pth.tar', 'a.tar', '--config', 'config.py'], 'a.tar', "'.tar'", '.safetensors'),
        (['moco.pth.tar', 'a', '--config', 'config.py'], 'a', "''", '.safetensors'),
        (['moco.pth.tar', 'there.pth', '--config', 'config.py'], 'there.pth', '', '--overwrite'),
        (['moco.pth.tar', 'folder.pth', '--config', 'config.py'], 'folder.pth', 'directory', ''),
        (['there.pth', './there.pth', '--config', 'config.py'], './there.pth', ('SRC', 'DST'), ''),
        ([*ONTO_ITSELF, 'link.pth'], 'link.pth', ('SRC', 'DST'), ''),
        ([*ONTO_ITSELF, 'hard.pth'], 'hard.pth', ('SRC', 'DST'), ''),
        (['no.pth', 'a.pth', '--config', 'config.py'], 'no.pth', 'no such file', ''),
        (['folder.pth', 'a.pth', '--config', 'config.py'], 'folder.pth', 'directory', ''),
        (['page.pth', 'a.pth', '--config', 'config.py'], 'page.pth', 'web page', ''),
        (['there.pth', 'a.pth', '--config', 'config.py'], 'there.pth', 'text', ''),
        (['none.pth', 'a.pth', '--config', 'config.py'], 'none.pth', 'empty', ''),
        (['half.pth', 'a.pth', '--config', 'config.py'], 'half.pth', 'truncated', ''),
        (
            ['moco.pth.tar', 'there.pth/a.pth', '--config', 'config.py'],
            'there.pth/a.pth', 'File exists', '',
        ),
        ([*RIGHT, '--min-matched', '2'], re.compile('min.matched'), '2', '1'),
        ([*RIGHT, '--prefix', 'x'], re.compile('moco.pth.tar|prefix'), 'x', ''),
        (['moco.pth.tar', 'a.pth', '--inspect'], '--inspect', 'a.pth', ''),
        (['no.pth', '--inspect'], 'no.pth', 'no such file', ''),
        (['page.pth', '--inspect'], 'page.pth', 'web page', ''),
        (['half.pth', '--inspect'], 'half.pth', 'truncated', ''),
        (['moco.pth.tar', '--inspect', '--prefix', 'x'], 'moco.pth.tar', "'x.'", ''),
    ],
)  # fmt: skip
def test_mistakes(argv, where, problem, remedy, here, capfd):
    Path('empty.py').write_text('')
    Path('headless.py').write_text("model = dict(type='EncoderDecoder')")
    Path('unknown.py').write_text("model = dict(backbone=dict(type='NoSuchNet'))")
    Path('there.pth').write_text('hello')
    Path('folder.pth').mkdir()
    Path('link.pth').symlink_to('there.pth')
    os.link('there.pth', 'hard.pth')
    Path('page.pth').write_text('<!DOCTYPE html><html></html>')
    Path('none.pth').touch()
    Path('half.pth').write_bytes(Path('moco.pth.tar').read_bytes()[:5000])
    before = sorted(os.listdir())
    check_mistake(fails(capfd, *argv), where, problem, remedy)
    assert sorted(os.listdir()) == before and Path('there.pth').read_text() == 'hello'


@MODELS.register_module(force=True)
class LoadsNothing(BaseModule):
    """A backbone of some project, whose init_weights forgets what its init_cfg says."""

    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(3, 4, 3)

    def init_weights(self):
        nn.init.normal_(self.conv.weight)


def test_a_backbone_that_stock_mmseg_cannot_load_is_refused(here, capfd):
    write_config(dict(type='LoadsNothing'))
    torch.save(LoadsNothing().state_dict(), 'own.pth')
    line = fails(capfd, 'own.pth', 'plain.pth', '--config', 'config.py')
    check_mistake(line, 'plain.pth', ('2 of 2', 'LoadsNothing'), 'SelfSupervised')
    assert not Path('plain.pth').exists()
    told = works(capfd, 'own.pth', 'plain.safetensors', '--config', 'config.py')
    assert '2 of 2' in told and 'SelfSupervised' in told


def test_an_old_file_stays_if_the_new_one_is_refused(here, capfd):
    works(capfd, 'moco.pth.tar', 'plain.pth', '--config', 'config.py')
    before = Path('plain.pth').read_bytes()
    write_config(dict(type='LoadsNothing'))
    torch.save(LoadsNothing().state_dict(), 'own.pth')
    fails(capfd, 'own.pth', 'plain.pth', '--config', 'config.py', '--overwrite')
    assert Path('plain.pth').read_bytes() == before


def test_as_a_process(here, request):
    """The mistake by an interpreter of its own, which ends before it imports the stack."""
    tool = str(ROOT / 'tools' / 'convert_checkpoint.py')
    env = dict(os.environ, PYTHONPATH=str(ROOT))

    def run(*argv):
        argv = [sys.executable, tool, *argv]
        return subprocess.run(argv, capture_output=True, text=True, env=env)

    done = run('moco.pth.tar', 'a.txt', '--config', 'config.py')
    assert done.returncode == 2 and done.stderr.startswith('error: ')
    check_mistake(done.stderr.removeprefix('error: '), 'a.txt', "'.txt'", '.pth')
    request.getfixturevalue('forked_processes')
    assert run('moco.pth.tar', 'a.pth', '--config', 'config.py').returncode == 0
    assert Path('a.pth').is_file()


def test_help_says_what_safetensors_is_for():
    assert 'only if torch.load does' in ' '.join(build_parser().format_help().split())


def save_like(name, path, prefix=''):
    """A known architecture at full size, in a file of kilobytes: one number for each tensor."""
    weights = {}
    for key, value in checkpoint_summary.build_on_meta(KNOWN[name].config).state_dict().items():
        small = torch.rand(1) if value.is_floating_point() or value.is_meta else value
        weights[prefix + key] = small.expand(value.shape)
    torch.save({'model': weights, 'epoch': 1}, path)


@pytest.mark.parametrize(
    'name',
    ['ResNet-18', 'ResNet-50-D', 'ViT-S/14', 'MAE ViT-B/16', 'Swin-T', 'MiT-B0', 'HRNet-W18'],
)
def test_inspect_finds_the_architecture(name, here, capfd):
    save_like(name, 'x.pth', 'encoder.')
    told = works(capfd, 'x.pth', '--inspect').splitlines()
    fits = told.index(f'  best fits among {len(KNOWN)} known architectures:')
    assert told[fits + 1].startswith(f"    {name}: 100.0% of it filled, 100.0% of 'model.encoder.'")
    kind = KNOWN[name].config['type']
    assert told[-1].startswith(f"  backbone=dict(type='{kind}'")
    assert eval(told[-1].strip().replace('backbone=', '')) == KNOWN[name].config


def test_inspect_speaks_of_the_network_that_would_be_loaded(here, capfd):
    save_like('ResNet-18', 'x.pth')
    weights = torch.load('x.pth')['model']
    both = {f'encoder_{e}.{k}': v for e in 'kq' for k, v in weights.items()}
    torch.save(both, 'x.pth')
    told = works(capfd, 'x.pth', '--inspect')
    assert "100.0% of 'encoder_q.' used" in told
    assert "'encoder_k.'" in told and "'encoder_k.layer4.'" not in told


def test_inspect_lists_what_is_there(here, capfd):
    weights = as_trained(RESNET)
    weights['layer1.0.conv1.weight'][0, 0, 0, 0] = float('nan')
    weights['layer1.0.conv2.weight'].zero_()
    weights['layer2.0.conv1.weight'] = weights['layer2.0.conv1.weight'].half()
    key = {f'net_k.{name}': value for name, value in weights.items()}
    torch.save({'student': {**weights}, 'copies': key}, 'x.pth')
    told = works(capfd, 'x.pth', '--inspect')
    for line in (
        'x.pth: torch.save, zip, ',
        "containers: 'student', 'copies'",
        '2 float16',
        "'copies.net_k.'",
        "'student.'",
        'with NaN or infinity: 2 (student.layer1.0.conv1.weight, copies.net_k.layer1.0.conv1.w',
        'all zero, biases aside: 2 (student.layer1.0.conv2.weight',
        'fits none of the',
    ):
        assert line in told, line


def test_the_known_architectures_are_of_the_size_that_is_told():
    """By which they are chosen, before any is built."""
    for name, known in KNOWN.items():
        backbone = checkpoint_summary.build_on_meta(known.config)
        if known.config['type'].startswith('mmpretrain.') and backbone is None:
            continue  # not installed here
        parameters = list(backbone.parameters())
        assert {parameter.device.type for parameter in parameters} == {'meta'}
        millions = sum(parameter.numel() for parameter in parameters) / 1e6
        assert abs(millions - known.millions) < 0.06, name


def test_a_file_of_caffe_becomes_one_that_stock_mmseg_loads(here, capfd):
    Path('a.caffemodel').write_bytes(caffemodel(alexnet_layers(0.05, 3)))
    write_config(dict(type='mm_tuning_plugin.AlexNetBN', width=0.05))
    assert 'caffemodel, ' in works(capfd, '--inspect', 'a.caffemodel')
    assert 'Caffe' in works(capfd, 'a.caffemodel', 'plain.pth', '--config', 'config.py')
    assert 'bn5.running_var' in torch.load('plain.pth', weights_only=True)['state_dict']
    write_config(dict(type='mm_tuning_plugin.VGG16BN', width=0.05))
    line = fails(capfd, 'a.caffemodel', 'b.pth', '--config', 'config.py')
    check_mistake(line, 'a.caffemodel', 'VGG16BN')
