"""Twins: the features of a network in the original's names arrive, at several sizes.

The references are written from the paper (Chu et al., 2021): locally grouped attention, global
attention over a pooled map, positions by a depthwise convolution after a stage's first block.
"""

import pytest
import torch
import torch.nn.functional as F
from mmseg.models.backbones import PCPVT, SVT
from reference_networks import Mlp, randomise
from torch import nn

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint
from mm_tuning_plugin.errors import UserError

WIDTHS, HEADS, RATIOS = (8, 16, 24, 32), (1, 2, 2, 4), (8, 4, 2, 1)
EPS = 1e-6


def split(x, heads):
    b, n, d = x.shape
    return x.reshape(b, n, heads, d // heads).transpose(1, 2)


def attend(q, k, v, heads):
    b, n, d = q.shape
    q, k, v = (split(x, heads) for x in (q, k, v))
    weights = (q @ k.transpose(-2, -1) * (d // heads) ** -0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).reshape(b, n, d)


class GlobalAttention(nn.Module):
    def __init__(self, dim, heads, ratio):
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.proj = (
            nn.Linear(dim, dim),
            nn.Linear(dim, 2 * dim),
            nn.Linear(dim, dim),
        )
        if ratio > 1:
            self.sr, self.norm = nn.Conv2d(dim, dim, ratio, ratio), nn.LayerNorm(dim, eps=1e-5)
        self.ratio = ratio

    def forward(self, x, size):
        keys = x
        if self.ratio > 1:
            maps = x.transpose(1, 2).unflatten(2, size)
            keys = self.norm(self.sr(maps).flatten(2).transpose(1, 2))
        k, v = self.kv(keys).chunk(2, dim=-1)
        return self.proj(attend(self.q(x), k, v, self.heads))


class LocalAttention(nn.Module):
    def __init__(self, dim, heads, window):
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x, size):
        (h, w), k = size, self.window
        b, _, d = x.shape
        assert h % k == 0 and w % k == 0
        windows = x.reshape(b, h // k, k, w // k, k, d).transpose(2, 3).reshape(-1, k * k, d)
        out = self.proj(attend(*self.qkv(windows).chunk(3, dim=-1), self.heads))
        return out.reshape(b, h // k, w // k, k, k, d).transpose(2, 3).reshape(b, h * w, d)


class Block(nn.Module):
    def __init__(self, dim, attention):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=EPS), nn.LayerNorm(dim, eps=EPS)
        self.attn, self.mlp = attention, Mlp(dim)

    def forward(self, x, size):
        x = x + self.attn(self.norm1(x), size)
        return x + self.mlp(self.norm2(x))


class Patches(nn.Module):
    def __init__(self, inner, dim, patch):
        super().__init__()
        self.proj, self.norm = nn.Conv2d(inner, dim, patch, patch), nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x):
        x = self.proj(x)
        return self.norm(x.flatten(2).transpose(1, 2)), tuple(x.shape[-2:])


class Positions(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(dim, dim, 3, 1, 1, groups=dim))

    def forward(self, x, size):
        maps = x.transpose(1, 2).unflatten(2, size)
        return (self.proj(maps) + maps).flatten(2).transpose(1, 2)


class Twins(nn.Module):
    """PCPVT (all attention global) or SVT (local and global in turns)."""

    def __init__(self, local, depth=2, window=2):
        super().__init__()
        self.patch_embeds, self.pos_block = nn.ModuleList(), nn.ModuleList()
        self.blocks = nn.ModuleList()
        inner = 3
        for i, (dim, heads, ratio) in enumerate(zip(WIDTHS, HEADS, RATIOS)):
            self.patch_embeds.append(Patches(inner, dim, 2 if i else 4))
            self.pos_block.append(Positions(dim))
            stage = nn.ModuleList()
            for j in range(depth):
                if local and j % 2 == 0:
                    attention = LocalAttention(dim, heads, window)
                else:
                    attention = GlobalAttention(dim, heads, ratio)
                stage.append(Block(dim, attention))
            self.blocks.append(stage)
            inner = dim
        self.norm, self.head = nn.LayerNorm(inner), nn.Linear(inner, 5)

    def features(self, x, norms=False):
        outs = []
        for i in range(4):
            x, size = self.patch_embeds[i](x)
            for j, block in enumerate(self.blocks[i]):
                x = block(x, size)
                if j == 0:
                    x = self.pos_block[i](x, size)
            x = F.layer_norm(x, x.shape[-1:]) if norms else x
            outs.append(x.transpose(1, 2).unflatten(2, size))
            x = x.transpose(1, 2).unflatten(2, size)
        return outs


def backbone_of(local, **options):
    shared = dict(
        embed_dims=list(WIDTHS),
        num_heads=list(HEADS),
        mlp_ratios=[4] * 4,
        sr_ratios=list(RATIOS),
        depths=[2] * 4,
        qkv_bias=True,
        patch_sizes=[4, 2, 2, 2],
        strides=[4, 2, 2, 2],
    )
    if local:
        return SVT(**shared, windiow_sizes=[2] * 4, **options)
    return PCPVT(**shared, **options)


@pytest.mark.parametrize('norms', [False, True])
@pytest.mark.parametrize('local', [False, True])
@pytest.mark.parametrize('size', [(64, 64), (128, 192)])
def test_the_function_arrives(norms, local, size, tmp_path):
    with torch.no_grad():
        source = randomise(Twins(local), seed=6)
    torch.save({'state_dict': source.state_dict()}, tmp_path / 'a.pth')
    backbone = backbone_of(local, norm_after_stage=norms)
    report = load_backbone_checkpoint(backbone, tmp_path / 'a.pth')
    assert report.layout.renaming == 'official Twins'
    assert report.missing == () and report.unexpected == () and report.arguments == {}
    (note,) = report.notes
    assert '1e-06' in note and 'no argument changes' in note
    assert sorted(report.dropped) == [
        f'state_dict.{n}' for n in ('head.bias', 'head.weight', 'norm.bias', 'norm.weight')
    ]
    # norms between the stages are the segmentor's own: they start as ones that only normalise
    assert len(report.filled) == (8 if norms else 0)
    backbone.eval()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        for a, b in zip(backbone(images), source.features(images, norms=norms)):
            assert b.std() > 0.05
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('local', [False, True])
def test_the_other_of_the_two_is_refused(local, tmp_path):
    torch.save(Twins(local).state_dict(), tmp_path / 'a.pth')
    with pytest.raises(UserError, match='does not fit'):
        load_backbone_checkpoint(backbone_of(not local), tmp_path / 'a.pth')


def test_a_pvt_is_no_pcpvt(tmp_path):
    weights = {
        'pos_embed1': torch.randn(1, 256, 8),
        'patch_embed1.proj.weight': torch.randn(8, 3, 4, 4),
        'block1.0.attn.q.weight': torch.randn(8, 8),
        'block1.0.attn.kv.weight': torch.randn(16, 8),
    }
    torch.save(weights, tmp_path / 'a.pth')
    with pytest.raises(UserError, match='the file holds a PVT, the backbone is a PCPVT'):
        load_backbone_checkpoint(backbone_of(False), tmp_path / 'a.pth')
