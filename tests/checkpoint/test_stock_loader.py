"""What ``tools/convert_checkpoint.py`` writes is loaded in full by stock mmseg: every backbone."""

import pytest
import torch
from mmseg_backbones import BACKBONES, as_trained, different, initialise, segmentor
from safetensors import safe_open
from safetensors.torch import load_file

from mm_tuning_plugin.cli.convert import entry

TORCH_READS_THEM = tuple(int(part) for part in torch.__version__.split('.')[:2]) >= (2, 13)


@pytest.fixture
def convert(tmp_path):
    """Writes weights under a foreign prefix, converts them; returns the file that was written."""

    def run(config, weights, ending='.pth', *argv):
        source, target = tmp_path / 'foreign.ckpt', tmp_path / f'plain{ending}'
        foreign = {f'backbone.{name}': value for name, value in weights.items()}
        torch.save({'state_dict': foreign, 'optimizer': {'state': {0: torch.ones(3)}}}, source)
        cfg = tmp_path / 'config.py'
        cfg.write_text(f'model = {dict(type="EncoderDecoder", backbone=config)!r}')
        assert entry([str(source), str(target), '--config', str(cfg), *argv]) == 0
        return target

    return run


@pytest.mark.parametrize('name', BACKBONES)
def test_every_backbone(name, convert, capfd):
    weights = as_trained(BACKBONES[name])
    target = convert(BACKBONES[name], weights)
    told = capfd.readouterr().out
    assert 'all of them arrive' in told and 'Initialized by' not in told
    start = dict(type='Pretrained', checkpoint=str(target))
    model = segmentor(dict(BACKBONES[name], init_cfg=start))
    assert not different(initialise(model).backbone.state_dict(), weights)
    assert set(torch.load(target, weights_only=True)) >= {'meta'}  # torch >= 2.6's default


@pytest.mark.parametrize('name', ['ResNet', 'SwinTransformer', 'VisionTransformer', 'PIDNet'])
def test_safetensors(name, convert, capfd):
    weights = as_trained(BACKBONES[name])
    target = convert(BACKBONES[name], weights, '.safetensors')
    tensors = load_file(target)
    assert all(torch.equal(value, weights[key]) for key, value in tensors.items())
    assert all('relative_position_index' in key for key in weights.keys() - tensors.keys())
    with safe_open(target, 'pt') as file:
        assert file.metadata()['source'] == 'foreign.ckpt'
    told = capfd.readouterr().out
    if TORCH_READS_THEM:
        assert 'all of them arrive' in told
        start = dict(type='Pretrained', checkpoint=str(target))
        model = segmentor(dict(BACKBONES[name], init_cfg=start))
    else:
        assert 'mmseg itself does not load it here' in told
        start = dict(type='mm_tuning_plugin.SelfSupervised', checkpoint=str(target))
        model = segmentor(BACKBONES[name], init_cfg=start)
    assert not different(initialise(model).backbone.state_dict(), weights)
