"""Files of Caffe's, in the formats that Caffe writes, into the paper's backbones."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from caffe_writer import RNG, alexnet_layers, blob, caffemodel, field, hdf5, varint
from mistakes import mistake
from torch import nn

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint, read_tensors
from mm_tuning_plugin.checkpoint.io.caffe.wire import fields
from mm_tuning_plugin.paper.backbones import VGG16BN, AlexNetBN


def vgg_layers(scale=True, norms=True):
    """A VGG-16 whose norms are pairs of BatchNorm and Scale, or one fused layer."""
    net = VGG16BN(width=0.05)
    layers, bottom = [], 'data'
    for name, module in net.named_children():
        if not isinstance(module, nn.Conv2d):
            continue
        shape = tuple(module.weight.shape)
        layers.append((name, 'Convolution', bottom, name,
                       [RNG.normal(size=shape), RNG.normal(size=shape[0])]))  # fmt: skip
        rows = [RNG.normal(size=shape[0]) for _ in range(3)] + [RNG.uniform(1, 2, shape[0])]
        if norms and scale:
            layers.append((f'bn_{name}', 'BatchNorm', name, name, [*rows[2:], [0.5]]))
            layers.append((f'scale_{name}', 'Scale', name, name, rows[:2]))
        elif norms:
            layers.append((f'batch_{name}', 'BN', name, f'{name}_bn', rows))
        bottom = name
    return layers


def by_name(layers):
    return {name: [np.asarray(array, np.float32) for array in arrays]
            for name, _, _, _, arrays in layers}  # fmt: skip


@pytest.mark.parametrize('form', ['today', 'unpacked', 'doubles', 'hdf5'])
def test_alexnet_in_every_format(form, tmp_path):
    layers = alexnet_layers(0.05, 1)
    path = tmp_path / ('net.caffemodel.h5' if form == 'hdf5' else 'net.caffemodel')
    if form == 'hdf5':
        hdf5(path, layers)
    else:
        options = dict(packed=form != 'unpacked', double=form == 'doubles')
        path.write_bytes(caffemodel(layers, **options))
    net = AlexNetBN(in_channels=1, width=0.05)
    report = load_backbone_checkpoint(net, path)
    arrays, state = by_name(layers), net.state_dict()
    for i in range(1, 6):
        weight, bias = arrays[f'conv{i}']
        mean, variance, factor = arrays[f'batch_conv{i}']
        assert np.array_equal(state[f'conv{i}.weight'], weight)
        assert np.array_equal(state[f'conv{i}.bias'], bias)
        assert np.allclose(state[f'bn{i}.running_mean'], mean / factor)
        assert np.allclose(state[f'bn{i}.running_var'], variance / factor)
    assert report.share == 1 and report.layout.renaming == 'Caffe'
    assert any('blue, green, red' in note for note in report.notes)
    assert 'fc8-voc.weight' in report.dropped


def test_groups_lie_as_caffe_computes_them(tmp_path):
    """Output channels of the second half see the second half of the input, by plain loops."""
    layers = alexnet_layers(0.05, 3)
    path = tmp_path / 'a.caffemodel'
    path.write_bytes(caffemodel(layers))
    net = AlexNetBN(width=0.05)
    load_backbone_checkpoint(net, path)
    weight, bias = by_name(layers)['conv4']
    x = RNG.normal(size=(weight.shape[1] * 2, 5, 5)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    expected = np.zeros((len(weight), 5, 5))
    for out in range(len(weight)):
        group = out // (len(weight) // 2)
        for i in range(weight.shape[1]):
            for y in range(5):
                for z in range(5):
                    window = padded[group * weight.shape[1] + i, y : y + 3, z : z + 3]
                    expected[out, y, z] += (window * weight[out, i]).sum()
        expected[out] += bias[out]
    found = net.conv4(torch.from_numpy(x)[None])[0].detach()
    assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize('form', ['caffemodel', 'h5'])
@pytest.mark.parametrize(
    ('named', 'suffix'),
    [('batch_{}', '_s1'), ('bn_{}', ''), ('{}_bn', ''), ('{}/bn', ''), ('bn{}', '')],
)
def test_names_of_norms(named, suffix, form, tmp_path):
    path = tmp_path / f'a.{form}'
    layers = alexnet_layers(0.05, 3, named, suffix)
    if form == 'h5':
        hdf5(path, layers)
    else:
        path.write_bytes(caffemodel(layers))
    net = AlexNetBN('jigsaw', width=0.05)
    report = load_backbone_checkpoint(net, path)
    assert not report.missing or all('num_batches' in name for name in report.missing)
    assert float(net.bn3.running_var.min()) > 0.4
    assert report.layout.format.startswith('caffemodel')
    assert any('blue, green, red' in note for note in report.notes)  # whatever the names


@pytest.mark.parametrize('old', [False, True])
def test_inner_products_become_convolutions(old, tmp_path):
    layers = [
        layer for layer in alexnet_layers(0.05, 3, fc=2) if layer[1] != 'BatchNorm' or not old
    ]
    path = tmp_path / 'a.caffemodel'
    path.write_bytes(caffemodel(layers, old=old))
    net = AlexNetBN(width=0.05, with_fc=True, out_indices=(8,)).eval()
    load_backbone_checkpoint(net, path)
    weight, bias = by_name(layers)['fc6']
    x = torch.randn(1, weight.shape[1] // 36, 6, 6)
    flat = torch.from_numpy(weight) @ x.flatten() + torch.from_numpy(bias)
    assert torch.allclose(F.conv2d(x, net.fc6.weight, net.fc6.bias).flatten(), flat, atol=1e-4)


@pytest.mark.parametrize('form', ['pairs', 'pairs in hdf5', 'fused'])
def test_scale_and_bias_of_a_norm(form, tmp_path):
    layers = vgg_layers(scale=form != 'fused')
    path = tmp_path / ('v.h5' if 'hdf5' in form else 'v.caffemodel')
    if 'hdf5' in form:
        hdf5(path, layers)
    else:
        path.write_bytes(caffemodel(layers))
    net = VGG16BN(width=0.05)
    assert load_backbone_checkpoint(net, path).share == 1
    arrays = by_name(layers)
    if form == 'fused':
        gamma, beta, mean, _ = arrays['batch_conv3_2']
        assert np.array_equal(net.bn3_2.running_mean, mean)
    else:
        gamma, beta = arrays['scale_conv3_2']
        assert np.allclose(net.bn3_2.running_mean, arrays['bn_conv3_2'][0] * 2)
    assert np.array_equal(net.bn3_2.weight.detach(), gamma)
    assert np.array_equal(net.bn3_2.bias.detach(), beta)


def test_a_scale_belongs_to_the_norm_it_follows_whatever_it_is_called(tmp_path):
    layers = [
        ('bn1', 'BatchNorm', 'a', 'a', [[1, 2], [3, 4], [1]]),
        ('affine_a', 'Scale', 'a', 'a', [[5, 6], [7, 8]]),
        ('affine_b', 'Scale', 'a', 'a', [[1, 1], [0, 0]]),  # follows no norm any more
    ]
    path = tmp_path / 'a.caffemodel'
    path.write_bytes(caffemodel(layers))
    tensors = read_tensors(path)
    assert tensors['bn1.weight'].tolist() == [5, 6] and tensors['bn1.bias'].tolist() == [7, 8]
    assert 'affine_a.weight' not in tensors and 'affine_b.weight' in tensors


def test_a_factor_of_zero_is_zero_statistics(tmp_path):
    layers = [('bn1', 'BatchNorm', 'a', 'a', [[1, 2], [3, 4], [0]]),
              ('conv1', 'Convolution', 'a', 'b', [np.ones((1, 2, 1, 1))])]  # fmt: skip
    path = tmp_path / 'a.caffemodel'
    path.write_bytes(caffemodel(layers))
    assert read_tensors(path)['bn1.running_var'].tolist() == [0, 0]


@pytest.mark.parametrize('form', ['caffemodel', 'h5'])
def test_a_batch_norm_with_its_own_scale(form, tmp_path):
    rows = [[1, 2], [3, 4], [2], [5, 6], [7, 8]]
    layers = [('bn1', 'BatchNorm', 'a', 'a', rows)]
    path = tmp_path / f'a.{form}'
    if form == 'h5':
        hdf5(path, layers)
    else:
        path.write_bytes(caffemodel(layers))
    tensors = read_tensors(path)
    found = [tensors[f'bn1.{name}'].tolist() for name in ('running_var', 'weight', 'bias')]
    assert found == [[1.5, 2], [5, 6], [7, 8]]


def test_what_cannot_be_told_apart_is_refused(tmp_path):
    path = tmp_path / 'a.caffemodel'
    path.write_bytes(caffemodel([('bn1', 'BatchNorm', 'a', 'a', [[1, 2], [3, 4]])]))
    refused(path, 'BatchNorm', "'bn1'", '2 blobs')
    twice = ('conv1', 'Convolution', 'a', 'a', [np.ones((1, 1, 1, 1))])
    path.write_bytes(caffemodel([twice, twice]))
    refused(path, "two layers 'conv1'")


def test_unpacked_numbers_take_no_more_memory_than_packed_ones(tmp_path):
    array = np.arange(200_000, dtype=np.float32)
    message = memoryview(bytearray(blob(array, packed=False)))
    found = [item for item in fields(message) if item.number == 5]
    assert len(found) == 1  # one value for the whole row
    assert np.array_equal(np.frombuffer(found[0].value, np.float32), array)


def refused(path, *problem, remedy=(), net=None, **options):
    net = net or AlexNetBN(width=0.05)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with mistake(str(path), problem, remedy) as error:
        load_backbone_checkpoint(net, path, **options)
    assert len(str(error.value)) < 500
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_another_net_is_one_line(tmp_path):
    path = tmp_path / 'a.caffemodel'
    path.write_bytes(caffemodel(alexnet_layers(0.05, 3)))
    refused(path, 'VGG16BN', net=VGG16BN(width=0.05))
    refused(path, 'AlexNetBN', net=AlexNetBN(width=0.1))
    path.write_bytes(caffemodel(vgg_layers(norms=False)))  # the plain VGG-16, without norms
    refused(path, 'VGG16BN', 'bn', net=VGG16BN(width=0.05))
    path.write_bytes(caffemodel([('data', 'Data', '', 'data', [])]))
    refused(path, '1 layers', 'weights')


HOSTILE = {
    'a length beyond the end': field(1, 'net') + varint(100 << 3 | 2) + varint(2**40) + b'x',
    'an endless integer': field(1, 'net') + varint(100 << 3 | 2) + b'\xff' * 12,
    'a tag of nothing': b'\x00' * 40,
    'an unknown type': bytes([1 << 3 | 3]) * 9,
    'more numbers than the shape': field(
        100, field(1, 'conv1') + field(7, field(7, field(1, varint(2**33))) + field(5, bytes(8)))
    ),
    'a float cut in two': field(100, field(1, 'c') + field(7, field(5, bytes(7)))),
    'text': b'this is a README, not a net\n' * 9,
}


@pytest.mark.parametrize('content', HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_one_line(content, tmp_path):
    path = tmp_path / 'a.caffemodel'
    path.write_bytes(content)
    refused(path, 'truncated', '.caffemodel', remedy='NetParameter')


@pytest.mark.parametrize('share', [0.1, 0.5, 0.999])
def test_a_truncated_file_is_one_line(share, tmp_path):
    whole = caffemodel(alexnet_layers(0.05, 3))
    path = tmp_path / 'a.caffemodel'
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path, 'truncated', '.caffemodel', remedy='NetParameter')


def test_hdf5_that_is_none_of_caffe_s_is_one_line(tmp_path, monkeypatch):
    import h5py

    path = tmp_path / 'a.h5'
    with h5py.File(path, 'w') as file:
        file['model_weights'] = np.ones(3)
    refused(path, 'HDF5', "['model_weights']", remedy='`data`')
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, 'truncated', 'HDF5', remedy='.caffemodel.h5')
    with h5py.File(path, 'w') as file:  # declares 64 TiB, has none
        file.create_group('data/conv1').create_dataset('0', shape=(1 << 22, 1 << 22))
    refused(path, 'HDF5', 'conv1/0', f'{4 * (1 << 44):,} bytes')
    path.write_bytes(b'\x89HDF')
    monkeypatch.setitem(__import__('sys').modules, 'h5py', None)
    refused(path, 'h5py', remedy='pip install h5py')


def test_it_is_known_by_its_content(tmp_path):
    path = tmp_path / 'weights.bin'
    path.write_bytes(caffemodel(alexnet_layers(0.05, 3)))
    assert 'conv1.weight' in read_tensors(path)


def test_blobs_are_not_copied_where_they_are_read():
    array = np.arange(6, dtype=np.float32)
    message = memoryview(bytearray(blob(array)))
    (data,) = [item.value for item in fields(message) if item.number == 5]
    data[:4] = np.float32(7).tobytes()
    assert np.frombuffer(message[-24:], np.float32)[0] == 7
