"""Plain vision transformers in the layouts of other projects, and helpers to compare features.

`reference_networks.TimmViT` is the plain one; here are its relatives and the official BEiT, written
from those projects' names. Nothing here uses mmseg's backbones but `mmseg_backbone`.
"""

import mmseg.models.backbones
import torch
import torch.nn.functional as F
from reference_networks import Mlp, PatchEmbed, TimmViT, randomise
from torch import nn

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint

PATCH, DIM, HEADS, DEPTH = 8, 16, 2, 3


def mmseg_backbone(kind, size=32, **options):
    """A small VisionTransformer, MAE or BEiT of mmseg."""
    options = {
        'img_size': size,
        'patch_size': PATCH,
        'embed_dims': DIM,
        'num_layers': DEPTH,
        'num_heads': HEADS,
        'norm_cfg': {'type': 'LN', 'eps': 1e-6},
        'final_norm': True,
        **options,
    }
    return getattr(mmseg.models.backbones, kind)(**options)


def trained(module, seed=7):
    with torch.no_grad():
        return randomise(module, seed)


def loaded(backbone, weights, tmp_path, **options):
    torch.save(weights, tmp_path / 'a.pth')
    report = load_backbone_checkpoint(backbone, tmp_path / 'a.pth', **options)
    backbone.eval()
    return report


def check_function(backbone, features, size=32):
    """The backbone's features are those that the function `features` (images -> maps) gives."""
    height, width = size if isinstance(size, tuple) else (size, size)
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = features(images)
        assert expected.std() > 0.1
        torch.testing.assert_close(backbone(images)[-1], expected, atol=1e-4, rtol=1e-4)


def resized_positions(positions, grid, extra=1):
    """(1, T + L, D) -> (1, T + rows * columns, D), bicubic, as MAE's and transformers' own."""
    side = int((positions.shape[1] - extra) ** 0.5)
    maps = positions[:, extra:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, size=grid, mode='bicubic', align_corners=False)
    return torch.cat((positions[:, :extra], maps.flatten(2).transpose(1, 2)), dim=1)


def resized_table(table, window, mode='bicubic'):
    """(S*S + 3, H) -> (S'*R' + 3, H) for a window of (rows, columns)."""
    side = int((len(table) - 3) ** 0.5)
    maps = table[:-3].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    size = (2 * window[0] - 1, 2 * window[1] - 1)
    maps = F.interpolate(maps, size=size, mode=mode, align_corners=False)
    return torch.cat((maps[0].flatten(1).T, table[-3:]))


class PlainViT(TimmViT):
    """TimmViT with timm's options, at any size of the image.

    Args:
        class_token: 'positioned', 'free' of a position (DeiT III), or 'none' (I-JEPA).
        pre_norm: CLIP's norm before the first block; its patch embedding has no bias.
        qkv_bias: Whether query, key and value have biases.
    """

    def __init__(self, class_token='positioned', pre_norm=False, qkv_bias=True, **options):
        super().__init__(**options)
        self.class_token = class_token
        if class_token == 'none':
            del self.cls_token
        if class_token != 'positioned':
            self.pos_embed = nn.Parameter(self.pos_embed.data[:, 1:].clone())
        self.norm_pre = nn.LayerNorm(DIM, eps=1e-6) if pre_norm else nn.Identity()
        if pre_norm:
            self.patch_embed.proj = nn.Conv2d(3, DIM, PATCH, PATCH, bias=False)
        if not qkv_bias:
            for block in self.blocks:
                block.attn.qkv = nn.Linear(DIM, 3 * DIM, bias=False)

    def features(self, x, final_norm=True):
        x = self.patch_embed.proj(x)
        grid = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2)
        extra = int(self.class_token == 'positioned')
        positions = resized_positions(self.pos_embed, grid, extra)
        if self.class_token == 'none':
            x = x + positions
        elif self.class_token == 'free':
            x = torch.cat((self.cls_token.expand(len(x), -1, -1), x + positions), dim=1)
        else:
            x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + positions
        x = self.blocks(self.norm_pre(x))
        x = self.norm(x) if final_norm else x
        return x[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)


class BeitAttention(nn.Module):
    """Attention of the official BEiT: no bias for keys, a bias by relative position."""

    def __init__(self, window, own_table):
        super().__init__()
        self.q_bias = nn.Parameter(torch.zeros(DIM))
        self.v_bias = nn.Parameter(torch.zeros(DIM))
        if own_table:
            self.relative_position_bias_table = new_table(window)
        self.qkv = nn.Linear(DIM, 3 * DIM, bias=False)
        self.proj = nn.Linear(DIM, DIM)

    def forward(self, x, bias):
        b, n, _ = x.shape
        query, key, value = F.linear(x, self.qkv.weight).chunk(3, dim=-1)
        query, value = query + self.q_bias, value + self.v_bias
        query, key, value = (
            part.reshape(b, n, HEADS, DIM // HEADS).transpose(1, 2) for part in (query, key, value)
        )
        logits = query @ key.transpose(-2, -1) * (DIM // HEADS) ** -0.5 + bias
        return self.proj((logits.softmax(-1) @ value).transpose(1, 2).reshape(b, n, DIM))


class BeitBlock(nn.Module):
    def __init__(self, window, own_table):
        super().__init__()
        self.norm1 = nn.LayerNorm(DIM, eps=1e-6)
        self.attn = BeitAttention(window, own_table)
        self.norm2 = nn.LayerNorm(DIM, eps=1e-6)
        self.mlp = Mlp(DIM)
        self.gamma_1 = nn.Parameter(torch.ones(DIM))
        self.gamma_2 = nn.Parameter(torch.ones(DIM))

    def forward(self, x, bias):
        x = x + self.gamma_1 * self.attn(self.norm1(x), bias)
        return x + self.gamma_2 * self.mlp(self.norm2(x))


class OfficialBeit(nn.Module):
    """The official BEiT: relative positions in a table a block (fine-tuned) or one (pre-trained).

    Args:
        window: (rows, columns) of patches.
        shared: One table for all blocks.
        absolute: Absolute positions too.
        relative: Relative positions at all.
    """

    def __init__(self, window=(4, 4), shared=False, absolute=False, relative=True):
        super().__init__()
        self.window = window
        self.cls_token = nn.Parameter(torch.zeros(1, 1, DIM))
        if absolute:
            self.pos_embed = nn.Parameter(torch.zeros(1, window[0] * window[1] + 1, DIM))
        self.patch_embed = PatchEmbed(PATCH, DIM)
        if relative and shared:
            self.rel_pos_bias = nn.Module()
            self.rel_pos_bias.relative_position_bias_table = new_table(window)
        own = relative and not shared
        self.blocks = nn.ModuleList(BeitBlock(window, own) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(DIM, eps=1e-6)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, DIM))
        self.lm_head = nn.Linear(DIM, 9)

    def features(self, x, final_norm=True):
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1)
        if hasattr(self, 'pos_embed'):
            x = x + self.pos_embed
        for block in self.blocks:
            place = self.rel_pos_bias if hasattr(self, 'rel_pos_bias') else block.attn
            table = getattr(place, 'relative_position_bias_table', None)
            x = block(x, 0 if table is None else relative_bias(table, self.window))
        x = self.norm(x) if final_norm else x
        return x[:, 1:].transpose(1, 2).unflatten(2, self.window)

    def at(self, window):
        """The same network for another window, its tables interpolated bicubically."""
        other = OfficialBeit(window, hasattr(self, 'rel_pos_bias'))
        weights = {
            name: resized_table(value, window) if name.endswith('bias_table') else value
            for name, value in self.state_dict().items()
        }
        other.load_state_dict(weights)
        return other.eval()


def new_table(window):
    return nn.Parameter(torch.zeros((2 * window[0] - 1) * (2 * window[1] - 1) + 3, HEADS))


def relative_bias(table, window):
    """(H, 1 + L, 1 + L) bias of every query (rows) towards every key, entry by entry."""
    rows, columns = window
    places = [(y, x) for y in range(rows) for x in range(columns)]
    index = torch.empty(len(places) + 1, len(places) + 1, dtype=torch.long)
    for i, (y, x) in enumerate(places):
        for j, (v, u) in enumerate(places):
            index[i + 1, j + 1] = (y - v + rows - 1) * (2 * columns - 1) + (x - u + columns - 1)
    index[0, :] = len(table) - 3  # the class token's view of the others
    index[:, 0] = len(table) - 2  # and theirs of it
    index[0, 0] = len(table) - 1
    return table[index].permute(2, 0, 1)
