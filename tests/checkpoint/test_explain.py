"""The nearest explanation of a misfit, for files of families that are easily taken for another."""

import re

import pytest
import torch
import transformers
from mistakes import mistake
from mmseg.models.backbones import (
    HRNet,
    MixVisionTransformer,
    ResNet,
    ResNetV1c,
    SwinTransformer,
    VisionTransformer,
)
from reference_networks import TimmViT

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint

TEXT = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
BACKBONES = {
    'ResNet': lambda: ResNet(depth=18),
    'ResNetV1c': lambda: ResNetV1c(depth=18),
    'ViT': lambda: VisionTransformer(
        img_size=32, patch_size=8, embed_dims=16, num_layers=2, num_heads=2
    ),
    'Swin': lambda: SwinTransformer(
        pretrain_img_size=32, embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1)
    ),
    'MiT': lambda: MixVisionTransformer(
        embed_dims=8, num_layers=[1, 1, 1, 1], num_heads=[1, 1, 1, 1]
    ),
    'HRNet': lambda: HRNet(
        extra=dict(
            stage1=dict(
                num_modules=1,
                num_branches=1,
                block='BOTTLENECK',
                num_blocks=(1,),
                num_channels=(8,),
            ),
            **{
                f'stage{i}': dict(
                    num_modules=1,
                    num_branches=i,
                    block='BASIC',
                    num_blocks=(1,) * i,
                    num_channels=(4, 8, 16, 32)[:i],
                )
                for i in (2, 3, 4)
            },
        )
    ),
}


def bert():
    config = transformers.BertConfig(**TEXT, vocab_size=50, max_position_embeddings=16)
    return transformers.BertModel(config).state_dict()


def gpt2():
    config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, n_positions=8)
    return transformers.GPT2LMHeadModel(config).state_dict()


def llama():
    config = transformers.LlamaConfig(**TEXT, vocab_size=50)
    return transformers.LlamaForCausalLM(config).state_dict()


def swin_v2():
    config = transformers.Swinv2Config(
        image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4
    )
    return transformers.Swinv2Model(config).state_dict()


FILES = {
    'bert': (bert, 'language model'),
    'gpt2': (gpt2, 'language model'),
    'llama': (llama, 'language model'),
    'swin v2': (swin_v2, 'SwinV2'),
    'clip': (lambda: {'visual.conv1.weight': torch.randn(8, 3, 4, 4)}, 'CLIP model'),
    'vit': (lambda: TimmViT().state_dict(), 'ViT'),
    'resnet': (lambda: ResNet(depth=18).state_dict(), 'ResNet'),
    'pvt': (
        lambda: {
            'pos_embed1': torch.randn(1, 4, 8),
            'block1.0.attn.q.weight': torch.randn(8, 8),
        },
        'PVT',
    ),
}


PAIRS = [
    (file, wanted)
    for file, (_, family) in FILES.items()
    for wanted in BACKBONES
    if not wanted.startswith(family)
]


@pytest.mark.parametrize(('file', 'wanted'), PAIRS)
def test_another_family(file, wanted, tmp_path):
    make, family = FILES[file]
    torch.save({'model': make()}, tmp_path / 'a.pth')
    of = 'ResNet' if wanted == 'ResNetV1c' else wanted
    found = re.compile(rf'\b{family}, .*\b{of}$')  # the file's family before the backbone's
    with mistake(str(tmp_path / 'a.pth'), found):
        load_backbone_checkpoint(BACKBONES[wanted](), tmp_path / 'a.pth')
