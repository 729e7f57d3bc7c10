"""Hashes, atomic writing, strict reading."""

import os

import pytest
import torch
from mistakes import mistake
from safetensors.torch import load_file, save_file
from torch import nn

from mm_tuning_plugin.checkpoint import (
    hash_file,
    hash_state_dict,
    load_backbone_strict,
    read_backbone,
    save_backbone,
)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_hash_depends_on_names_dtypes_shapes_bytes():
    base = {'a': torch.arange(4.0), 'b': torch.zeros(())}
    variants = [
        base,
        {'a': torch.arange(4.0), 'c': torch.zeros(())},
        {'a': torch.arange(4.0).double(), 'b': torch.zeros(())},
        {'a': torch.arange(4.0).reshape(2, 2), 'b': torch.zeros(())},
        {'a': torch.tensor([0.0, 1.0, 2.0, 3.0000002]), 'b': torch.zeros(())},
        {'a': torch.arange(4.0).view(torch.int32), 'b': torch.zeros(())},  # the same bytes
        {'a': torch.arange(4.0)},
        {},
    ]
    hashes = [hash_state_dict(variant) for variant in variants]
    assert len(set(hashes)) == len(hashes)
    assert all(len(value) == 64 for value in hashes)


def test_hash_does_not_depend_on_order_strides_or_gradients():
    grid = torch.arange(6.0).reshape(2, 3)
    straight = hash_state_dict({'a': grid, 'b': torch.ones(1)})
    turned = grid.t().contiguous().t()
    assert not turned.is_contiguous()
    other = {'b': nn.Parameter(torch.ones(1)), 'a': turned}
    assert hash_state_dict(other) == straight


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.bool, torch.int64, torch.float16])
def test_hash_of_every_dtype(dtype):
    ones, zeros = torch.ones(3, dtype=dtype), torch.zeros(3, dtype=dtype)
    assert hash_state_dict({'a': ones}) != hash_state_dict({'a': zeros})


def test_hash_file(tmp_path):
    (tmp_path / 'a').write_bytes(b'abc')
    assert hash_file(tmp_path / 'a').startswith('ba7816bf8f01cfea')
    with mistake(str(tmp_path / 'b'), 'no such file'):
        hash_file(tmp_path / 'b')


def test_round_trip(tmp_path):
    source, meta = (
        network(),
        {'iter': 3, 'lr': 0.1, 'names': ('a', ['b']), 'none': None, 'd': {1: True}},
    )
    path = tmp_path / 'new' / 'folder' / 'tuned.pth'
    save_backbone(path, source.state_dict(), meta)
    assert os.listdir(path.parent) == ['tuned.pth']
    target = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert load_backbone_strict(target, path) == meta
    assert hash_state_dict(target.state_dict()) == hash_state_dict(source.state_dict())
    # any mmseg loads it: plain names, readable without the allow-list
    content = torch.load(path, weights_only=True)
    assert sorted(content) == ['meta', 'state_dict']
    assert list(content['state_dict']) == list(source.state_dict())


def test_round_trip_as_safetensors(tmp_path):
    """Plain tensors under plain names for everyone; what is told of them for this package."""
    source, meta = network(), {'iter': 3, 'names': ['a', 'ä'], 'none': None, 'd': {'k': 0.1}}
    meta['hash_after'] = hash_state_dict(source.state_dict())
    path = tmp_path / 'tuned.safetensors'
    save_backbone(path, source.state_dict(), meta)
    target = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert load_backbone_strict(target, path) == meta
    assert hash_state_dict(target.state_dict()) == meta['hash_after']
    assert sorted(load_file(path)) == sorted(source.state_dict())
    weights, told = read_backbone(path)
    assert told == meta and hash_state_dict(weights) == meta['hash_after']
    save_backbone(path, source.state_dict(), {**meta, 'hash_after': '0' * 64})
    with mistake(str(path), meta['hash_after'][:12], '0' * 12):
        load_backbone_strict(target, path)


@pytest.mark.parametrize('told', [None, {'meta': 'not json'}, {'meta': '[1]'}])
def test_safetensors_of_others_are_refused(told, tmp_path):
    save_file({'w': torch.ones(1)}, tmp_path / 'a.safetensors', metadata=told)
    with mistake(str(tmp_path / 'a.safetensors'), remedy=("'state_dict'", "'meta'")):
        load_backbone_strict(network(), tmp_path / 'a.safetensors')


def test_config_dictionaries_in_meta_become_plain(tmp_path):
    from mmengine.config import ConfigDict

    save_backbone(
        tmp_path / 'a.pth', network().state_dict(), {'cfg': ConfigDict(a=ConfigDict(b=1))}
    )
    assert torch.load(tmp_path / 'a.pth', weights_only=True)['meta'] == {'cfg': {'a': {'b': 1}}}


def test_a_view_does_not_take_its_storage_along(tmp_path):
    save_backbone(tmp_path / 'a.pth', {'w': torch.zeros(1000, 1000)[0]}, {})
    assert (tmp_path / 'a.pth').stat().st_size < 10_000


@pytest.mark.parametrize(
    ('meta', 'where'),
    [
        ({'a': torch.ones(1)}, r"^meta\['a'\] .*Tensor$"),
        ({'a': [{'b': object()}]}, r"^meta\['a'\]\[0\]\['b'\] .*object$"),
        ({'a': {object(): 1}}, r"^meta\['a'\] key .*object$"),
    ],
)
def test_only_plain_meta(meta, where, tmp_path):
    with pytest.raises(ValueError, match=where):
        save_backbone(tmp_path / 'a.pth', network().state_dict(), meta)
    assert list(tmp_path.iterdir()) == []


def test_only_tensors(tmp_path):
    with pytest.raises(ValueError, match=r"^state_dict\['w'\] .*int$"):
        save_backbone(tmp_path / 'a.pth', {'w': 1}, {})


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.pth'
    save_backbone(path, network().state_dict(), {'iter': 1})
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError('no space left on device')

    monkeypatch.setattr(torch, 'save', full)
    with mistake(str(path), 'no space left on device'):
        save_backbone(path, network().state_dict(), {'iter': 2})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ['a.pth']


def broken(change, tmp_path):
    weights = dict(network().state_dict())
    change(weights)
    save_backbone(tmp_path / 'a.pth', weights, {})
    return tmp_path / 'a.pth'


@pytest.mark.parametrize(
    ('change', 'problem', 'remedy'),
    [
        (
            lambda w: w.pop('1.running_mean'),
            ('lacks 1 ', 'Sequential', '1.running_mean'),
            ' 7 ',
        ),
        (lambda w: w.update(x=torch.ones(1)), ('excess 1 ', 'Sequential', ' x'), ' 7 '),
        (
            lambda w: w.update({'0.bias': torch.ones(1)}),
            ('0.bias', '(1,)'),
            ('(4,)', 'Sequential'),
        ),
    ],
)
def test_strict_means_strict(change, problem, remedy, tmp_path):
    target = network()
    target[0].weight.data.zero_()
    before = hash_state_dict(target.state_dict())
    with mistake(str(tmp_path / 'a.pth'), problem, remedy):
        load_backbone_strict(target, broken(change, tmp_path))
    assert hash_state_dict(target.state_dict()) == before


@pytest.mark.parametrize(
    'content', [{'w': torch.ones(1)}, {'state_dict': {'w': 1}, 'meta': {}}, [1], {'state_dict': {}}]
)
def test_files_of_others_are_refused(content, tmp_path):
    torch.save(content, tmp_path / 'a.pth')
    with mistake(str(tmp_path / 'a.pth'), remedy=("'state_dict'", "'meta'")):
        load_backbone_strict(network(), tmp_path / 'a.pth')


def test_no_file(tmp_path):
    with mistake(str(tmp_path / 'a.pth'), 'no such file'):
        load_backbone_strict(network(), tmp_path / 'a.pth')
