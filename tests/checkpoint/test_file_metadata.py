"""Rotary positions: refused by a backbone without them wherever a file or its config tells."""

import json

import pytest
import torch
from loading import refuse
from reference_vits import mmseg_backbone
from safetensors.torch import save_file
from torch import nn

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint
from mm_tuning_plugin.checkpoint.io.file_metadata import declared_rotary, has_rotary

ROPE = {'architecture': 'vit_small_patch16_rope_ape_224', 'num_classes': 1000}
PLAIN = {'architecture': 'vit_small_patch16_224', 'num_classes': 1000}


@pytest.fixture
def folder(vit_source, tmp_path):
    """A file of a ViT that nothing of its own tells from one with axial rotary positions."""
    torch.save(vit_source.state_dict(), tmp_path / 'pytorch_model.bin')
    return tmp_path


def load(path):
    return load_backbone_checkpoint(mmseg_backbone('VisionTransformer'), path)


def refused(path):
    refuse(mmseg_backbone('VisionTransformer'), path, 'rotary', remedy='TIMMBackbone')


@pytest.mark.parametrize(
    ('config', 'told'),
    [
        (ROPE, True),
        ({'architecture': 'vit_pe_core_base_patch16_224.fb'}, True),
        ({'architecture': 'eva02_base_patch14_224.mim_in22k'}, True),
        ({'architecture': 'vit_base_patch16_dinov3.lvd1689m'}, True),
        ({'architecture': 'vit_x', 'model_args': {'use_rot_pos_emb': True}}, True),
        ({'model_type': 'dinov3_vit', 'rope_theta': 100.0}, True),
        ({'model_type': 'x', 'vision_config': {'rope_theta': 100.0}}, True),
        (PLAIN, False),
        ({'architecture': 'vit_base_patch14_dinov2.lvd142m'}, False),
        ({'architecture': 'naflexvit_base_patch16_gap', 'model_args': {'rope_type': ''}}, False),
        ({'architecture': 'europe_vit'}, False),
        # the rotary positions of a language model beside a plain vision transformer
        ({'rope_theta': 1e4, 'vision_config': {'model_type': 'clip'}}, False),
        ({'model_type': 'vit'}, False),
    ],
)
def test_what_a_config_tells(config, told):
    assert bool(declared_rotary({'config.json': config})) is told


def test_the_config_beside_a_file(folder):
    path = folder / 'pytorch_model.bin'
    (folder / 'config.json').write_text(json.dumps(PLAIN))
    assert load(path).share == 1
    (folder / 'config.json').write_text(json.dumps(ROPE))
    refused(path)
    report = load_backbone_checkpoint(mmseg_backbone('VisionTransformer'), path, min_matched=0)
    assert report.num_loaded > 0


@pytest.mark.parametrize('text', ['', '{', '[1]', '"rope"'])
def test_a_config_that_is_none(text, folder):
    (folder / 'config.json').write_text(text)
    assert load(folder / 'pytorch_model.bin').share == 1


def test_a_config_of_another_file(folder, vit_source):
    """Of several files in a folder it is that of the one with the hub's name."""
    (folder / 'config.json').write_text(json.dumps(ROPE))
    torch.save(vit_source.state_dict(), folder / 'mine.pth')
    assert load(folder / 'mine.pth').share == 1
    (folder / 'pytorch_model.bin').unlink()
    refused(folder / 'mine.pth')


def test_what_a_file_tells_itself(vit_source, tmp_path):
    weights = vit_source.state_dict()
    torch.save({'arch': ROPE['architecture'], 'state_dict': weights}, tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth')
    save_file(weights, tmp_path / 'a.safetensors', {'config': json.dumps(ROPE)})
    refused(tmp_path / 'a.safetensors')
    save_file(weights, tmp_path / 'a.safetensors', {'config': json.dumps(PLAIN), 'format': 'pt'})
    assert load(tmp_path / 'a.safetensors').share == 1


@pytest.mark.parametrize(
    'name', ['rope.freqs', 'freqs', 'rope.periods', 'blocks.0.attn.rope.freqs_cos', 'rope_embed']
)
@pytest.mark.parametrize('kind', ['VisionTransformer', 'MAE'])
def test_frequencies_in_the_file(name, kind, vit_source, tmp_path):
    weights = {**vit_source.state_dict(), name: torch.ones(2, 2)}
    torch.save(weights, tmp_path / 'a.pth')
    refuse(mmseg_backbone(kind), tmp_path / 'a.pth', 'rotary', remedy='TIMMBackbone')


@pytest.mark.parametrize('part', ['attn_pool.latent', 'blocks.0.gamma_1'])
def test_the_names_of_a_perception_encoder(part, vit_source, tmp_path):
    """Into a ViT that has its norm before the blocks: only the rotary positions are lacking."""
    dim = vit_source.cls_token.shape[-1]
    weights = vit_source.state_dict()
    weights['norm_pre.weight'] = weights['norm_pre.bias'] = torch.ones(dim)
    backbone = mmseg_backbone('VisionTransformer', pre_norm=True)
    torch.save(weights, tmp_path / 'a.pth')
    assert load_backbone_checkpoint(backbone, tmp_path / 'a.pth').share == 1  # CLIP's, in timm
    torch.save({**weights, part: torch.ones(dim)}, tmp_path / 'a.pth')
    refuse(backbone, tmp_path / 'a.pth', 'rotary', remedy='TIMMBackbone')


def test_which_backbones_have_them():
    class RotaryEmbeddingCat(nn.Module):
        pass

    class DINOv3ViTRopePositionEmbedding(nn.Module):
        pass

    for part in (RotaryEmbeddingCat, DINOv3ViTRopePositionEmbedding):
        assert has_rotary(nn.Sequential(nn.ModuleDict({'x': part()})))
    assert has_rotary(nn.ModuleDict({'rope': nn.Identity()}))
    for name in ('properties', 'grope', 'europe'):
        assert not has_rotary(nn.ModuleDict({name: nn.Identity()}))
    assert not has_rotary(mmseg_backbone('VisionTransformer'))
