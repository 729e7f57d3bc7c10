"""Twins' own files: mmseg's PCPVT and SVT compute the same; a PVT is refused."""

import pytest
import torch
from mistakes import mistake
from mmseg.models.backbones import PCPVT, SVT
from reference_hugging_face import check_levels, loaded, published, trained
from reference_twins import Twins
from transformers import PvtConfig, PvtModel

SIZES = ((64, 64), (128, 192))
PCPVT_SHAPE = {'dims': [8, 16, 24, 32], 'depths': [1, 2, 1, 2], 'heads': [1, 2, 3, 4]}
SVT_SHAPE = {'dims': [8, 16, 24, 32], 'depths': [1, 2, 3, 2], 'heads': [1, 2, 3, 4]}
RATIOS = [8, 4, 2, 1]


def pcpvt(**options):
    options = {
        'embed_dims': PCPVT_SHAPE['dims'],
        'depths': PCPVT_SHAPE['depths'],
        'num_heads': PCPVT_SHAPE['heads'],
        'sr_ratios': RATIOS,
        'qkv_bias': True,
        **options,
    }
    return PCPVT(**options)


def svt(**options):
    options = {
        'embed_dims': SVT_SHAPE['dims'],
        'depths': SVT_SHAPE['depths'],
        'num_heads': SVT_SHAPE['heads'],
        'mlp_ratios': [4] * 4,
        'sr_ratios': RATIOS,
        'windiow_sizes': [2] * 4,  # mmseg's spelling
        'qkv_bias': True,
        **options,
    }
    return SVT(**options)


@pytest.fixture(scope='module')
def pcpvt_source():
    return trained(Twins(**PCPVT_SHAPE, ratios=RATIOS))


@pytest.fixture(scope='module')
def svt_source():
    return trained(Twins(**SVT_SHAPE, ratios=RATIOS, window=2))


def test_pcpvt(pcpvt_source, tmp_path):
    network = pcpvt()
    report = loaded(network, pcpvt_source.state_dict(), tmp_path)
    assert report.layout.renaming == 'official Twins'
    assert report.missing == () and report.unexpected == () and report.filled == ()
    assert {name.split('.')[0] for name in report.dropped} == {'head', 'norm'}
    assert report.share == 1
    parts = [
        f'{part}.{i}' for part in ('patch_embeds', 'position_encodings', 'layers') for i in range(4)
    ]
    assert sorted(report.stages) == sorted(parts)
    check_levels(network, pcpvt_source.levels, SIZES)


def test_pcpvt_with_norms(pcpvt_source, tmp_path):
    """New norms, neutral, which also feed the next stage; the file's norm is the last one's."""
    network = pcpvt(norm_after_stage=True)
    report = loaded(network, {'model': pcpvt_source.state_dict()}, tmp_path)
    assert sorted(report.filled) == [
        f'norm_list.{i}.{k}' for i in range(3) for k in ('bias', 'weight')
    ]
    check_levels(network, lambda images: pcpvt_source.levels(images, normed=True), SIZES)


def test_svt(svt_source, tmp_path):
    """Local blocks keep qkv and proj, global ones get torch's names."""
    network = svt(norm_after_stage=False)
    report = loaded(network, svt_source.state_dict(), tmp_path)
    assert report.missing == () and report.unexpected == () and report.share == 1
    check_levels(network, svt_source.levels, SIZES)


def test_svt_as_mmseg_configures_it(svt_source, tmp_path):
    network = svt()
    report = loaded(network, svt_source.state_dict(), tmp_path)
    assert len(report.filled) == 6 and report.missing == ()
    check_levels(network, lambda images: svt_source.levels(images, normed=True), SIZES)


def official_pvt():
    """A PVT of the same sizes, in whmai/PVT's names."""
    named = {'cls_token': torch.randn(1, 1, 32)}
    for name, value in trained(Twins(**PCPVT_SHAPE, ratios=RATIOS)).state_dict().items():
        parts = name.split('.')
        if parts[0] == 'pos_block':
            dim = PCPVT_SHAPE['dims'][int(parts[1])]
            named[f'pos_embed{int(parts[1]) + 1}'] = torch.randn(1, 256, dim)
        elif parts[0] in ('patch_embeds', 'blocks'):
            named['.'.join([f'{parts[0][:-1]}{int(parts[1]) + 1}', *parts[2:]])] = value
        else:
            named[name] = value
    return named


def hugging_face_pvt(folder):
    config = PvtConfig(
        image_size=64,
        hidden_sizes=PCPVT_SHAPE['dims'],
        depths=PCPVT_SHAPE['depths'],
        num_attention_heads=PCPVT_SHAPE['heads'],
        sequence_reduction_ratios=RATIOS,
        mlp_ratios=[4] * 4,
    )
    return published(trained(PvtModel(config)), folder)


@pytest.mark.parametrize('prefix', ['', 'pvt.'])
@pytest.mark.parametrize('layout', ['official', 'hub'])
@pytest.mark.parametrize('backbone', [pcpvt, svt])
def test_pvt_is_refused(layout, backbone, prefix, tmp_path):
    weights = official_pvt() if layout == 'official' else hugging_face_pvt(tmp_path)
    network = backbone()
    kind = type(network).__name__
    with mistake(str(tmp_path / 'a.pth'), (' PVT', kind)):
        loaded(network, {f'{prefix}{k}': v for k, v in weights.items()}, tmp_path)


def test_svt_and_pcpvt_are_two_networks(pcpvt_source, svt_source, tmp_path):
    with mistake(str(tmp_path / 'a.pth'), 'PCPVT'):
        loaded(pcpvt(depths=SVT_SHAPE['depths']), svt_source.state_dict(), tmp_path)
    with mistake(str(tmp_path / 'a.pth'), 'SVT'):
        loaded(svt(depths=PCPVT_SHAPE['depths']), pcpvt_source.state_dict(), tmp_path)
