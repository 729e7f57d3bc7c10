"""Plain pickles of NumPy arrays: equal to the bit in every form, and nothing else runs."""

import argparse
import collections
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from loading import refuse
from mistakes import mistake
from mmseg.models.backbones import ResNet

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint, read_tensors
from mm_tuning_plugin.checkpoint.io.array_pickles import is_plain_pickle

VALUES = np.random.default_rng(0).standard_normal((4, 3, 2, 2)).astype('f4')
ARRAYS = {
    'plain': VALUES,
    'transposed': VALUES.transpose(3, 0, 1, 2),
    'columns first': np.asfortranarray(VALUES),
    'strided': VALUES[::2],
    'half': VALUES.astype('f2'),
    'big-endian': VALUES.astype('>f8'),
    'truth': np.array([True, False]),
    'whole': np.arange(4),
    'empty': np.zeros((0, 3), 'f4'),
    'number': np.float32(3),
    'no axes': np.array(1.5),
}
CONTENT = {
    'model': collections.OrderedDict(ARRAYS),
    '__author__': 'somebody',
    'matching_heuristics': True,
    'texts': np.array(['a']),
    'objects': np.array([None, {}], dtype=object),
}


def of_numpy_1(data):
    """The same pickle as NumPy before 2 wrote it; frames, which are optional, are left out."""
    if data[2:3] == b'\x95':
        data = data[:2] + data[11:]
    for module in (b'multiarray', b'numeric'):
        new, old = b'numpy._core.' + module, b'numpy.core.' + module
        data = data.replace(b'c' + new, b'c' + old)
        data = data.replace(bytes((0x8C, len(new))) + new, bytes((0x8C, len(old))) + old)
    assert b'_core' not in data and b'numpy.core' in data
    return data


def written(content, path, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize('numpy', [1, 2])
def test_every_form(numpy, protocol, tmp_path):
    path = written(CONTENT, tmp_path / 'a.pkl', protocol)
    if numpy == 1:
        path.write_bytes(of_numpy_1(path.read_bytes()))
    tensors = read_tensors(path)
    assert list(tensors) == [f'model.{name}' for name in ARRAYS]
    for name, array in ARRAYS.items():
        found = tensors[f'model.{name}']
        assert tuple(found.shape) == np.shape(array) and np.array_equal(found.numpy(), array)
        found.zero_()  # memory of its own, which may be written


def test_when_trusted_it_is_read_as_well(tmp_path):
    """With classes beside the arrays: what the refusal offers works."""
    path = written({**CONTENT, 'args': argparse.Namespace(a=1)}, tmp_path / 'a.pkl', 4)
    with mistake(str(path), 'argparse.Namespace', '--allow-pickle'):
        read_tensors(path)
    assert torch.equal(
        read_tensors(path, allow_pickle=True)['model.plain'], torch.from_numpy(VALUES)
    )


def test_python_2(tmp_path):
    """Its texts are bytes, those of an array too: here a vector of two numbers, by opcodes."""
    data = struct.pack('<2f', 1, -2)
    opcodes = (
        b'\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR'
        b'(K\x01K\x02\x85cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xff'
        b'J\xff\xff\xff\xffK\x00tb\x89U' + bytes((len(data),)) + data + b'tbs.'
    )
    (tmp_path / 'a.pkl').write_bytes(opcodes)
    assert pickle.loads(opcodes, encoding='latin1')['w'].tolist() == [1, -2]
    assert read_tensors(tmp_path / 'a.pkl')['w'].tolist() == [1, -2]


def detectron2(weights):
    """As MoCo's and DenseCL's scripts rename a ResNet for detectron2."""
    named = {}
    for name, value in weights.items():
        if 'num_batches' in name or name.startswith('fc.'):
            continue
        name = name if 'layer' in name else f'stem.{name}'
        for stage in (1, 2, 3, 4):
            name = name.replace(f'layer{stage}', f'res{stage + 1}')
        for place in (1, 2, 3):
            name = name.replace(f'bn{place}', f'conv{place}.norm')
        name = name.replace('downsample.0', 'shortcut').replace('downsample.1', 'shortcut.norm')
        named[name] = value.numpy()
    return {'model': named, '__author__': 'somebody', 'matching_heuristics': True}


def test_a_resnet_of_detectron2(resnet_source, tmp_path):
    backbone = ResNet(depth=18)
    path = written(detectron2(resnet_source.state_dict()), tmp_path / 'a.pkl')
    report = load_backbone_checkpoint(backbone, path)
    assert report.layout.renaming == 'detectron2 ResNet' and report.layout.format == 'pickle'
    assert report.share == 1 and report.unexpected == ()
    expected = resnet_source.state_dict()
    for name, value in backbone.state_dict().items():
        assert 'num_batches' in name or torch.equal(value, expected[name])


class Runs:
    """Unpickling it would call something."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def hostile(kind, mark):
    """Pickles that try to run code or to change what is called later."""
    frozen = {'__class__': Runs, 'name': 'posix.system', '__defaults__': (1,)}
    touch = f'touch {mark}'
    return {
        'a call': pickle.dumps({'model': ARRAYS, 'evil': Runs(os.system, (touch,))}),
        'eval': pickle.dumps(Runs(eval, (f'open({str(mark)!r}, "w")',)), protocol=2),
        'an inner array of objects': pickle.dumps(
            {'w': np.array([Runs(os.system, (touch,))], dtype=object)}
        ),
        # the state of a name that may be called
        'a state': b'\x80\x02c_codecs\nencode\n' + pickle.dumps((None, frozen), 2)[2:-1] + b'b.',
        'a state of a dictionary': b'\x80\x02ccollections\nOrderedDict\n)R'
        + pickle.dumps({'items': 1}, 2)[2:-1]
        + b'b.',
        'a subclass': b'\x80\x02cnumpy\nndarray\n)\x81.',
        'another function of numpy': b'\x80\x02cnumpy\nload\n(X\x01\x00\x00\x00atR.',
        'a deeper name': b'\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.',
        'another text': b'\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00rottR.',
        'an extension': b'\x80\x02\x82\x01.',
        'a persistent one': b'\x80\x02K\x01Q.',
    }[kind]


KINDS = (
    'a call', 'eval', 'an inner array of objects', 'a state', 'a state of a dictionary',
    'a subclass', 'another function of numpy', 'a deeper name', 'another text', 'an extension',
    'a persistent one',
)  # fmt: skip


@pytest.mark.parametrize('kind', KINDS)
def test_nothing_runs(kind, tmp_path):
    mark = tmp_path / 'it_ran'
    (tmp_path / 'a.pkl').write_bytes(hostile(kind, mark))
    with mistake(str(tmp_path / 'a.pkl')):
        read_tensors(tmp_path / 'a.pkl')
    assert not mark.exists()
    assert list(read_tensors(written(CONTENT, tmp_path / 'b.pkl')))  # as before


@pytest.mark.parametrize('keep', [0.5, 0.99])
def test_truncated(keep, tmp_path):
    path = written(CONTENT, tmp_path / 'a.pkl')
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    refuse(ResNet(depth=18), path, 'truncated', remedy='arrays')


def test_a_shape_that_is_not_that_of_the_bytes(tmp_path):
    data = pickle.dumps({'w': np.zeros(3, 'f4')}, protocol=2)
    assert data.count(b'K\x03\x85') == 1
    (tmp_path / 'a.pkl').write_bytes(data.replace(b'K\x03\x85', b'K\x09\x85'))
    refuse(ResNet(depth=18), tmp_path / 'a.pkl', '(9,)', '12 bytes')


def test_files_of_torch_are_none_of_these(tmp_path):
    for protocol in (2, 4):
        torch.save(
            {'w': torch.ones(1)},
            tmp_path / 'a.pth',
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=False,
        )
        assert not is_plain_pickle((tmp_path / 'a.pth').read_bytes()[:512])
    assert is_plain_pickle(pickle.dumps(CONTENT))
