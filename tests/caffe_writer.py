"""Writes nets in Caffe's own formats: today's and the old schema, packed or not, and HDF5."""

import struct

import numpy as np

from mm_tuning_plugin.paper.backbones import AlexNetBN

RNG = np.random.default_rng(0)
OLD_KINDS = {'Convolution': 4, 'InnerProduct': 14, 'ReLU': 18}


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number, payload):
    """A field of bytes, text, or an integer."""
    if isinstance(payload, int):
        return varint(number << 3) + varint(payload)
    payload = payload.encode() if isinstance(payload, str) else payload
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def blob(array, *, packed=True, double=False, old=False):
    """A BlobProto."""
    number, code, kind = (8, '<d', 1) if double else (5, '<f', 5)
    values = np.asarray(array).reshape(-1)
    if packed:
        data = field(number, values.astype(code[1:] and f'<f{8 if double else 4}').tobytes())
    else:
        tag = varint(number << 3 | kind)
        data = b''.join(tag + struct.pack(code, float(value)) for value in values)
    if old:
        shape = (1,) * (4 - np.ndim(array)) + np.shape(array)
        return b''.join(field(i, n) for i, n in enumerate(shape, 1)) + data
    dims = b''.join(varint(n) for n in np.shape(array))
    return field(7, field(1, dims)) + data


def caffemodel(layers, *, old=False, **options):
    """A NetParameter of (name, type, bottom, top, arrays)."""
    net = field(1, 'AlexNet')
    for name, kind, bottom, top, arrays in layers:
        blobs = [blob(array, old=old, **options) for array in arrays]
        if old:
            body = field(2, bottom) + field(3, top) + field(4, name) + field(5, OLD_KINDS[kind])
            net += field(2, body + b''.join(field(6, data) for data in blobs))
        else:
            body = field(1, name) + field(2, kind) + field(3, bottom) + field(4, top)
            body += field(10, 1)  # the phase: a field that is not looked at
            net += field(100, body + b''.join(field(7, data) for data in blobs))
    return net


def hdf5(path, layers):
    """A file as Caffe's snapshot_format: HDF5 writes it."""
    import h5py

    with h5py.File(path, 'w') as file:
        data = file.create_group('data')
        for name, _, _, _, arrays in layers:
            group = data.create_group(name)
            for index, array in enumerate(arrays):
                group.create_dataset(str(index), data=np.asarray(array, np.float32))


def alexnet_layers(width, channels, named='batch_{}', suffix='', fc=0):
    """The layers of the released AlexNets, with random weights."""
    net = AlexNetBN(in_channels=channels, width=width, with_fc=bool(fc))
    layers, bottom = [], 'data'
    for name in ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7')[: 7 if fc else 5]:
        shape = tuple(getattr(net, name).weight.shape)
        flat = name == 'fc6' and fc == 2
        weight = RNG.normal(size=shape).astype(np.float32)
        top = name + suffix
        layers.append((
            top, 'InnerProduct' if flat else 'Convolution', bottom, top,
            [weight.reshape(len(weight), -1) if flat else weight, RNG.normal(size=shape[0])],
        ))  # fmt: skip
        mean, variance = RNG.normal(size=shape[0]), RNG.uniform(1, 2, shape[0])
        layers.append((named.format(name), 'BatchNorm', top, top, [mean, variance, [2.0]]))
        bottom = top
    layers.append(('fc8-voc', 'Convolution', bottom, 'fc8', [RNG.normal(size=(21, 4, 1, 1))]))
    return layers
