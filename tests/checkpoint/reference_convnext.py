"""ConvNeXt as mmpretrain names and computes it: what mmseg's configs use as backbone.

mmpretrain itself needs torchvision, so this stands in for it: the same modules under the same
names, a norm on every output, linear layers or 1x1 convolutions.
"""

import torch
import torch.nn.functional as F
from torch import nn


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of (B, C, H, W)."""

    def forward(self, x):
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, 1e-6)
        return x.permute(0, 3, 1, 2)


class GRN(nn.Module):
    """Global response normalization of (B, C, H, W)."""

    def __init__(self, dim):
        super().__init__()
        self.gamma = nn.Parameter(torch.randn(dim))
        self.beta = nn.Parameter(torch.randn(dim))

    def forward(self, x):
        norm = x.norm(p=2, dim=(2, 3), keepdim=True)
        norm = norm / (norm.mean(dim=1, keepdim=True) + 1e-6)
        return self.gamma[:, None, None] * (x * norm) + self.beta[:, None, None] + x


class ConvNeXtBlock(nn.Module):
    def __init__(self, dim, linear, scaled, grn):
        super().__init__()
        self.depthwise_conv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = LayerNorm2d(dim, eps=1e-6)
        self.pointwise_conv1 = nn.Linear(dim, 4 * dim) if linear else nn.Conv2d(dim, 4 * dim, 1)
        self.pointwise_conv2 = nn.Linear(4 * dim, dim) if linear else nn.Conv2d(4 * dim, dim, 1)
        self.grn = GRN(4 * dim) if grn else None
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6)) if scaled else None

    def forward(self, x):
        y = self.norm(self.depthwise_conv(x))
        y = F.gelu(self._pointwise(self.pointwise_conv1, y))
        y = y if self.grn is None else self.grn(y)
        y = self._pointwise(self.pointwise_conv2, y)
        return x + (y if self.gamma is None else y * self.gamma[:, None, None])

    @staticmethod
    def _pointwise(layer, x):
        if isinstance(layer, nn.Conv2d):
            return layer(x)
        return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """mmpretrain's ConvNeXt: V1 with `scaled`, V2 with `grn`."""

    def __init__(
        self,
        dims=(8, 16, 24, 32),
        depths=(1, 2, 1, 2),
        linear=True,
        scaled=True,
        grn=False,
        out_indices=(0, 1, 2, 3),
    ):
        super().__init__()
        self.out_indices = out_indices
        stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, 4), LayerNorm2d(dims[0], eps=1e-6))
        self.downsample_layers = nn.ModuleList([stem])
        for inner, outer in zip(dims, dims[1:]):
            layers = LayerNorm2d(inner, eps=1e-6), nn.Conv2d(inner, outer, 2, 2)
            self.downsample_layers.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(dim, linear, scaled, grn) for _ in range(depth)))
            for dim, depth in zip(dims, depths)
        )
        for index in out_indices:
            self.add_module(f'norm{index}', LayerNorm2d(dims[index], eps=1e-6))

    def forward(self, x):
        outs = []
        for index, stage in enumerate(self.stages):
            x = stage(self.downsample_layers[index](x))
            if index in self.out_indices:
                outs.append(getattr(self, f'norm{index}')(x))
        return tuple(outs)
