"""MSCAN: the features of a network in SegNeXt's names arrive (Guo et al., 2022, section 3.1)."""

import torch
import torch.nn.functional as F
from mmseg.models.backbones import MSCAN
from reference_networks import randomise
from torch import nn

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint

WIDTHS = (8, 16, 24, 32)


class Gate(nn.Module):
    """Multi-scale convolutional attention: strips of 7, 11 and 21 after a 5x5, mixed by a 1x1."""

    def __init__(self, dim):
        super().__init__()
        self.conv0 = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        for i, k in enumerate((7, 11, 21)):
            row = nn.Conv2d(dim, dim, (1, k), padding=(0, k // 2), groups=dim)
            column = nn.Conv2d(dim, dim, (k, 1), padding=(k // 2, 0), groups=dim)
            setattr(self, f'conv{i}_1', row)
            setattr(self, f'conv{i}_2', column)
        self.conv3 = nn.Conv2d(dim, dim, 1)

    def forward(self, x):
        a = self.conv0(x)
        strips = [getattr(self, f'conv{i}_2')(getattr(self, f'conv{i}_1')(a)) for i in range(3)]
        return self.conv3(a + sum(strips)) * x


class Attention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.proj_1, self.proj_2 = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)
        self.spatial_gating_unit = Gate(dim)

    def forward(self, x):
        return self.proj_2(self.spatial_gating_unit(F.gelu(self.proj_1(x)))) + x


class Depthwise(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x):
        return self.dwconv(x)


class Mlp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(dim, 4 * dim, 1), nn.Conv2d(4 * dim, dim, 1)
        self.dwconv = Depthwise(4 * dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.dwconv(self.fc1(x))))


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(dim), nn.BatchNorm2d(dim)
        self.attn, self.mlp = Attention(dim), Mlp(dim)
        self.layer_scale_1 = nn.Parameter(torch.rand(dim))
        self.layer_scale_2 = nn.Parameter(torch.rand(dim))

    def forward(self, x):
        x = x + self.layer_scale_1[:, None, None] * self.attn(self.norm1(x))
        return x + self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x))


class Downsample(nn.Module):
    def __init__(self, inner, dim, first):
        super().__init__()
        self.first = first
        if first:
            self.proj = nn.Sequential(
                nn.Conv2d(inner, dim // 2, 3, 2, 1),
                nn.BatchNorm2d(dim // 2),
                nn.GELU(),
                nn.Conv2d(dim // 2, dim, 3, 2, 1),
                nn.BatchNorm2d(dim),
            )
        else:
            self.proj, self.norm = nn.Conv2d(inner, dim, 3, 2, 1), nn.BatchNorm2d(dim)

    def forward(self, x):
        return self.proj(x) if self.first else self.norm(self.proj(x))


class SegNeXtEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        inner = 3
        for i, dim in enumerate(WIDTHS, start=1):
            setattr(self, f'patch_embed{i}', Downsample(inner, dim, i == 1))
            setattr(self, f'block{i}', nn.ModuleList([Block(dim)]))
            setattr(self, f'norm{i}', nn.LayerNorm(dim))
            inner = dim
        self.head = nn.Linear(inner, 5)

    def features(self, x):
        outs = []
        for i in range(1, 5):
            x = getattr(self, f'patch_embed{i}')(x)
            for block in getattr(self, f'block{i}'):
                x = block(x)
            x = getattr(self, f'norm{i}')(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            outs.append(x)
        return outs


def test_the_function_arrives(tmp_path):
    with torch.no_grad():
        source = randomise(SegNeXtEncoder(), seed=9)
    torch.save({'state_dict': source.state_dict()}, tmp_path / 'a.pth')
    backbone = MSCAN(
        embed_dims=list(WIDTHS),
        mlp_ratios=[4] * 4,
        depths=[1] * 4,
        norm_cfg=dict(type='BN'),
        act_cfg=dict(type='GELU'),
    )
    report = load_backbone_checkpoint(backbone, tmp_path / 'a.pth')
    assert report.layout.renaming == 'official MSCAN'
    assert report.missing == () and report.unexpected == () and report.share == 1
    assert sorted(report.dropped) == ['state_dict.head.bias', 'state_dict.head.weight']
    assert list(report.stages)[:3] == ['patch_embed1', 'block1', 'norm1']
    backbone.eval()
    for size in ((64, 64), (96, 160)):
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            for a, b in zip(backbone(images), source.features(images)):
                assert b.std() > 0.1
                torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
