"""Twins in the original's names and computation: PCPVT and SVT, with last norm and head."""

import torch
import torch.nn.functional as F
from reference_networks import Attention, Mlp
from torch import nn


class GlobalAttention(nn.Module):
    """Queries of every position; keys and values of a map that a strided convolution shrinks."""

    def __init__(self, dim, heads, ratio):
        super().__init__()
        self.heads, self.ratio = heads, ratio
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        if ratio > 1:
            self.sr = nn.Conv2d(dim, dim, ratio, ratio)
            self.norm = nn.LayerNorm(dim)

    def forward(self, x, size):
        b, n, d = x.shape
        q = self.q(x).reshape(b, n, self.heads, -1).transpose(1, 2)
        if self.ratio > 1:
            x = self.sr(x.transpose(1, 2).reshape(b, d, *size)).flatten(2).transpose(1, 2)
            x = self.norm(x)
        k, v = self.kv(x).reshape(b, -1, 2, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, d))


class LocalAttention(Attention):
    """Within windows, which divide the map."""

    def __init__(self, dim, heads, window):
        super().__init__(dim, heads)
        self.window = window

    def forward(self, x, size):
        b, n, d = x.shape
        w = self.window
        rows, columns = size[0] // w, size[1] // w
        x = x.reshape(b, rows, w, columns, w, d).transpose(2, 3).reshape(-1, w * w, d)
        x = super().forward(x)
        return x.reshape(b, rows, columns, w, w, d).transpose(2, 3).reshape(b, n, d)


class Block(nn.Module):
    def __init__(self, dim, attention):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim)

    def forward(self, x, size):
        x = x + self.attn(self.norm1(x), size)
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, inner, dim, patch):
        super().__init__()
        self.proj = nn.Conv2d(inner, dim, patch, patch)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x):
        x = self.proj(x)
        return self.norm(x.flatten(2).transpose(1, 2)), x.shape[-2:]


class PositionEncoding(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, groups=dim))

    def forward(self, x):
        return x + self.proj(x)


class Twins(nn.Module):
    """PCPVT; with `window`, SVT: every other block, from the first, is local."""

    def __init__(self, dims, depths, heads, ratios, window=None):
        super().__init__()
        self.patch_embeds = nn.ModuleList()
        self.pos_block = nn.ModuleList(PositionEncoding(dim) for dim in dims)
        self.blocks = nn.ModuleList()
        for level, dim in enumerate(dims):
            inner = dims[level - 1] if level else 3
            self.patch_embeds.append(PatchEmbed(inner, dim, 2 if level else 4))
            blocks = nn.ModuleList()
            for index in range(depths[level]):
                attention = GlobalAttention(dim, heads[level], ratios[level])
                if window and index % 2 == 0:
                    attention = LocalAttention(dim, heads[level], window)
                blocks.append(Block(dim, attention))
            self.blocks.append(blocks)
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
        self.head = nn.Linear(dims[-1], 5)

    @torch.no_grad()
    def levels(self, x, normed=False):
        """(B, D, h, w) of every level; `normed`: with the norms that mmseg's SVT puts between."""
        outs = []
        for level, blocks in enumerate(self.blocks):
            x, size = self.patch_embeds[level](x)
            for index, block in enumerate(blocks):
                x = block(x, size)
                if index == 0:
                    grid = self.pos_block[level](x.transpose(1, 2).unflatten(2, size))
                    x = grid.flatten(2).transpose(1, 2)
            if normed:
                last = level == len(self.blocks) - 1
                x = self.norm(x) if last else F.layer_norm(x, x.shape[-1:])
            x = x.transpose(1, 2).unflatten(2, size)
            outs.append(x)
        return outs
