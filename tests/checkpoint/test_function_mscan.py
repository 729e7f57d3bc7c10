"""SegNeXt's own files: mmseg's MSCAN computes the same."""

import pytest
import torch
import torch.nn.functional as F
from mistakes import mistake
from mmseg.models.backbones import MSCAN
from reference_hugging_face import check_levels, loaded, trained
from torch import nn

DIMS, DEPTHS, RATIOS = [8, 16, 24, 32], [1, 2, 1, 2], [8, 8, 4, 4]


class DepthwiseConv(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, 1, 1, groups=dim)


class Mlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.dwconv = DepthwiseConv(hidden)
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x):
        return self.fc2(F.gelu(self.dwconv.dwconv(self.fc1(x))))


class Gate(nn.Module):
    """Sum of strip convolutions of three lengths, mixed over channels, as a factor."""

    def __init__(self, dim):
        super().__init__()
        self.conv0 = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        for index, size in enumerate((7, 11, 21)):
            row = nn.Conv2d(dim, dim, (1, size), padding=(0, size // 2), groups=dim)
            column = nn.Conv2d(dim, dim, (size, 1), padding=(size // 2, 0), groups=dim)
            self.add_module(f'conv{index}_1', row)
            self.add_module(f'conv{index}_2', column)
        self.conv3 = nn.Conv2d(dim, dim, 1)

    def forward(self, x):
        base = self.conv0(x)
        strips = [getattr(self, f'conv{i}_2')(getattr(self, f'conv{i}_1')(base)) for i in range(3)]
        return x * self.conv3(base + sum(strips))


class Attention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.proj_1 = nn.Conv2d(dim, dim, 1)
        self.spatial_gating_unit = Gate(dim)
        self.proj_2 = nn.Conv2d(dim, dim, 1)

    def forward(self, x):
        return x + self.proj_2(self.spatial_gating_unit(F.gelu(self.proj_1(x))))


class Block(nn.Module):
    def __init__(self, dim, ratio):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(dim)
        self.attn = Attention(dim)
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = Mlp(dim, dim * ratio)
        self.layer_scale_1 = nn.Parameter(torch.rand(dim))
        self.layer_scale_2 = nn.Parameter(torch.rand(dim))

    def forward(self, x):
        x = x + self.layer_scale_1[:, None, None] * self.attn(self.norm1(x))
        return x + self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, inner, dim):
        super().__init__()
        self.proj = nn.Conv2d(inner, dim, 3, 2, 1)
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x):
        return self.norm(self.proj(x))


class Stem(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(3, dim // 2, 3, 2, 1),
            nn.BatchNorm2d(dim // 2),
            nn.GELU(),
            nn.Conv2d(dim // 2, dim, 3, 2, 1),
            nn.BatchNorm2d(dim),
        )

    def forward(self, x):
        return self.proj(x)


class OfficialMSCAN(nn.Module):
    """In the names of SegNeXt's classifier, head included."""

    def __init__(self):
        super().__init__()
        for level, dim in enumerate(DIMS):
            embed = PatchEmbed(DIMS[level - 1], dim) if level else Stem(dim)
            blocks = (Block(dim, RATIOS[level]) for _ in range(DEPTHS[level]))
            self.add_module(f'patch_embed{level + 1}', embed)
            self.add_module(f'block{level + 1}', nn.ModuleList(blocks))
            self.add_module(f'norm{level + 1}', nn.LayerNorm(dim))
        self.head = nn.Linear(DIMS[-1], 5)

    @torch.no_grad()
    def levels(self, x):
        outs = []
        for level in range(1, 5):
            x = getattr(self, f'patch_embed{level}')(x)
            for block in getattr(self, f'block{level}'):
                x = block(x)
            x = getattr(self, f'norm{level}')(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            outs.append(x)
        return outs


def backbone(**options):
    options = {
        'embed_dims': DIMS,
        'depths': DEPTHS,
        'mlp_ratios': RATIOS,
        'norm_cfg': {'type': 'BN'},
        **options,
    }
    return MSCAN(**options)


@pytest.fixture(scope='module')
def source():
    return trained(OfficialMSCAN())


@pytest.mark.parametrize('prefix', ['', 'module.', 'backbone.'])
def test_the_function_arrives(prefix, source, tmp_path):
    weights = {f'{prefix}{name}': value for name, value in source.state_dict().items()}
    network = backbone()
    report = loaded(network, {'state_dict': weights}, tmp_path)
    assert report.layout.renaming == 'official MSCAN'
    assert report.missing == () and report.unexpected == () and report.share == 1
    parts = [f'{part}{i}' for i in range(1, 5) for part in ('patch_embed', 'block', 'norm')]
    assert list(report.stages) == parts
    check_levels(network, source.levels, sizes=((64, 64), (96, 160)))


def test_openmmlab_file(source, tmp_path):
    """mmseg's own files have its names."""
    weights = {k.replace('dwconv.dwconv', 'dwconv'): v for k, v in source.state_dict().items()}
    network = backbone()
    report = loaded(network, {'state_dict': weights}, tmp_path)
    assert report.layout.renaming == 'same names' and report.share == 1
    check_levels(network, source.levels)


def test_a_grey_stem(source, tmp_path):
    weights = dict(source.state_dict())
    weights['patch_embed1.proj.0.weight'] = weights['patch_embed1.proj.0.weight'][:, :1]
    report = loaded(backbone(), weights, tmp_path)
    assert report.resized == {'patch_embed1.proj.0.weight': '(4, 1, 3, 3) -> (4, 3, 3, 3)'}


@pytest.mark.parametrize(
    'options', [{'depths': [1, 1, 1, 2]}, {'depths': [1, 2, 2, 2]}, {'mlp_ratios': [4] * 4}]
)
def test_another_network_is_refused(options, source, tmp_path):
    with mistake(str(tmp_path / 'a.pth'), 'MSCAN'):
        loaded(backbone(**options), source.state_dict(), tmp_path)


@pytest.mark.parametrize('lost', ['norm4.', 'patch_embed2.'])
def test_a_lost_part_is_refused(lost, source, tmp_path):
    kept = {k: v for k, v in source.state_dict().items() if not k.startswith(lost)}
    with mistake(str(tmp_path / 'a.pth'), (f"'{lost[:-1]}'", ' 0 of '), '90%'):
        loaded(backbone(), kept, tmp_path)
