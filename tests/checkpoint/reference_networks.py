"""Networks in the layouts that other projects publish, written from those projects' names.

Nothing here uses mmseg: the features of a loaded backbone are compared with these.
"""

import torch
import torch.nn.functional as F
from torch import nn


class BasicBlock(nn.Module):
    def __init__(self, inner, outer, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.downsample = None
        if stride != 1 or inner != outer:
            self.downsample = nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class TorchvisionResNet(nn.Module):
    """resnet18 (2, 2, 2, 2) or resnet34 (3, 4, 6, 3) in torchvision's names, head `fc` included."""

    def __init__(self, depths=(2, 2, 2, 2), channels=3, width=64):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inner = width
        for index, depth in enumerate(depths):
            outer = width * 2**index
            blocks = []
            for block in range(depth):
                stride = 2 if index and not block else 1
                blocks.append(BasicBlock(inner, outer, stride))
                inner = outer
            setattr(self, f'layer{index + 1}', nn.Sequential(*blocks))
        self.fc = nn.Linear(inner, 7)

    def features(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        outs = []
        for index in range(1, 5):
            x = getattr(self, f'layer{index}')(x)
            outs.append(x)
        return outs


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        b, n, d = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        weights = (q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, d))


class Mlp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(dim) + 0.5)

    def forward(self, x):
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, dim, heads, eps, scaled):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim)
        self.ls1 = LayerScale(dim) if scaled else nn.Identity()
        self.ls2 = LayerScale(dim) if scaled else nn.Identity()

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    def __init__(self, patch, dim):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)


class TimmViT(nn.Module):
    """A ViT in timm's names: pre-norm blocks, class token, final norm, head."""

    def __init__(self, size=32, patch=8, dim=16, depth=3, heads=2, eps=1e-6, scaled=False):
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, dim))
        self.patch_embed = PatchEmbed(patch, dim)
        self.blocks = nn.Sequential(*(Block(dim, heads, eps, scaled) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.head = nn.Linear(dim, 5)

    def features(self, x, final_norm=True):
        """(B, D, h, w): the patch tokens after the last block."""
        x = self.patch_embed.proj(x)
        h, w = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self.pos_embed
        x = self.blocks(x)
        x = self.norm(x) if final_norm else x
        return x[:, 1:].transpose(1, 2).unflatten(2, (h, w))


def randomise(module, seed=0):
    """Every parameter and running statistic away from its initial value, so that each matters."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith('running_var') or (value.ndim == 1 and name.endswith('weight')):
            value.copy_(1 + 0.3 * noise.abs())
        else:
            value.copy_(noise * (0.1 if value.ndim < 2 else value[0].numel() ** -0.5))
    module.eval()  # mmseg's backbones return None here
    return module
