"""Files: what is read, what is refused and what is told of it, and that nothing in them runs."""

import argparse
import collections
import datetime
import io
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from mistakes import mistake
from safetensors.torch import save_file

from mm_tuning_plugin.checkpoint import read_tensors
from mm_tuning_plugin.checkpoint.io.pickles import global_names
from mm_tuning_plugin.checkpoint.io.safe_globals import OpaqueHistory, history_statistic, stand_ins

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Runs:
    """Unpickling it runs code: writes a file."""

    def __init__(self, call, *args):
        self.reduced = (call, args)

    def __reduce__(self):
        return self.reduced


class Unknown:
    """A harmless class of somebody's project."""


def refused(path, problem=(), remedy=(), **options):
    with mistake(str(path), problem, remedy) as error:
        read_tensors(path, **options)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize('name', ['a.pth', 'a.pth.tar', 'a.pt', 'a.ckpt', 'a.bin', 'a.torch', 'a'])
@pytest.mark.parametrize('zipped', [True, False])
def test_what_torch_saves(name, zipped, tmp_path):
    content = {'state_dict': {'x.w': torch.ones(2)}, 'best': np.float64(0.5), 'epoch': 3}
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
    tensors = read_tensors(tmp_path / name)
    assert list(tensors) == ['state_dict.x.w']
    assert torch.equal(tensors['state_dict.x.w'], torch.ones(2))


def test_safetensors(tmp_path):
    save_file({'a.b': torch.ones(2, 2)}, tmp_path / 'a.safetensors')
    assert list(read_tensors(tmp_path / 'a.safetensors')) == ['a.b']


def test_everything_harmless_that_training_scripts_store(tmp_path):
    content = {
        'args': argparse.Namespace(lr=0.1, inner=argparse.Namespace(a=[1, 2]), p=pathlib.Path('x')),
        'best': np.float32(1.5),
        'count': np.int64(3),
        'curve': np.arange(4.0),
        'names': np.array(['a', 'b']),
        'dtype': np.dtype('float32'),
        'groups': collections.defaultdict(list, w=[torch.ones(1)]),
        'factory': collections.defaultdict(dict),
        'when': datetime.datetime(2020, 1, 1),
        'took': datetime.timedelta(seconds=3),
        'counter': collections.Counter('aab'),
        'dtype_of_torch': torch.float16,
        'size': torch.Size([1, 2]),
        'device': torch.device('cpu'),
        'set': {1, 2},
        'rng': torch.get_rng_state(),
        'model': collections.OrderedDict(w=torch.nn.Parameter(torch.ones(2))),
        'bytes': b'abc',
        'nothing': None,
        3: torch.ones(3),
    }
    torch.save(content, tmp_path / 'a.pth')
    assert list(read_tensors(tmp_path / 'a.pth')) == ['rng', 'model.w']


def test_weights_in_a_dictionary_of_a_known_class(tmp_path):
    from mmengine.config import ConfigDict

    torch.save({'state_dict': ConfigDict(w=torch.ones(2))}, tmp_path / 'a.pth')
    torch.save(collections.defaultdict(list, w=torch.ones(2)), tmp_path / 'b.pth')
    assert list(read_tensors(tmp_path / 'a.pth')) == ['state_dict.w']
    assert list(read_tensors(tmp_path / 'b.pth')) == ['w']


def test_nested_containers_and_mixed_ones(tmp_path):
    content = {'a': {'b': {'c': {'w': torch.ones(1)}, 'v': torch.ones(1)}}, 'u': torch.ones(1)}
    torch.save(content, tmp_path / 'a.pth')
    assert sorted(read_tensors(tmp_path / 'a.pth')) == ['a.b.c.w', 'a.b.v', 'u']


def test_missing_file(tmp_path):
    refused(tmp_path / 'none.pth', 'no such file')


def test_directory(tmp_path):
    refused(tmp_path, 'is a directory')


@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
def test_empty_file(name, tmp_path):
    (tmp_path / name).touch()
    refused(tmp_path / name, '0 bytes')


@pytest.mark.parametrize('keep', [0.3, 0.9, 0.999])
@pytest.mark.parametrize('kind', ['zip', 'legacy', 'safetensors'])
def test_truncated(kind, keep, tmp_path):
    weights = {'w': torch.randn(100, 100)}
    path = tmp_path / ('a.safetensors' if kind == 'safetensors' else 'a.pth')
    if kind == 'safetensors':
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == 'zip')
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    refused(path, 'truncated', '.safetensors' if kind == 'safetensors' else 'whole')


@pytest.mark.parametrize(
    ('content', 'problem', 'remedy'),
    [
        ('hello, this is a README\n' * 3, 'text', 'torch.save'),
        ('<!DOCTYPE html><html>not found</html>', 'web page', 'download'),
        ('version https://git-lfs.github.com/spec/v1\noid sha256:1', 'git-lfs', 'git lfs pull'),
    ],
)
def test_text(content, problem, remedy, tmp_path):
    (tmp_path / 'a.pth').write_text(content)
    refused(tmp_path / 'a.pth', problem, remedy)
    refused(tmp_path / 'a.pth', problem, remedy, allow_pickle=True)


def test_text_as_safetensors(tmp_path):
    (tmp_path / 'a.safetensors').write_text('hello, this is a README\n' * 3)
    refused(tmp_path / 'a.safetensors', 'safetensors', '.safetensors')


def test_noise(tmp_path):
    (tmp_path / 'a.pth').write_bytes(bytes(range(255, 0, -1)) * 4)
    refused(tmp_path / 'a.pth', 'torch.load', 'torch.save')


@pytest.mark.parametrize(
    ('content', 'problem'),
    [
        ({}, ('no tensors', 'empty')),
        ({'epoch': 3, 'args': argparse.Namespace()}, ('no tensors', 'epoch, args')),
        ([torch.ones(1)], ('no tensors', 'list')),
    ],
)
def test_no_tensors(content, problem, tmp_path):
    torch.save(content, tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', problem)


def test_torchscript(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), tmp_path / 'a.pt')
    refused(tmp_path / 'a.pt', 'TorchScript')


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize(
    'form', ['torch', 'torch legacy', 'torch protocol 4', 'pickle 2', 'pickle']
)
@pytest.mark.parametrize('kind', ['os.system', 'open', 'eval', 'getattr', 'subprocess'])
def test_code_in_a_file_does_not_run(kind, form, tmp_path):
    """Refused with the class and the opt-in named; the file that the code would write is absent."""
    mark = tmp_path / 'it_ran'
    evil, name = {
        'os.system': (Runs(os.system, f'touch {mark}'), 'posix.system'),
        'open': (Runs(open, str(mark), 'w'), 'open'),
        'eval': (Runs(eval, f'open({str(mark)!r}, "w")'), 'eval'),
        'getattr': (Runs(getattr, os, 'system'), ''),
        'subprocess': (Runs(subprocess.check_call, ['touch', str(mark)]), 'subprocess.check_call'),
    }[kind]
    if kind == 'getattr':
        evil, name = Runs(getattr, torch.Tensor, 'numpy'), 'builtins.getattr'
    content = {'state_dict': {'w': torch.ones(1)}, 'evil': evil}
    path = tmp_path / 'a.pth'
    if form.startswith('torch'):
        torch.save(
            content,
            path,
            pickle_protocol=4 if form.endswith('4') else 2,
            _use_new_zipfile_serialization='legacy' not in form,
        )
    else:
        content['state_dict'] = {'w': 1}
        protocol = 2 if form.endswith('2') else pickle.DEFAULT_PROTOCOL
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    if kind == 'getattr' and ('4' in form or form == 'pickle'):
        name = ()  # refused for its protocol, before it is looked into
    refused(path, name, 'allow_pickle=True')
    assert not mark.exists()


def test_unknown_class_is_refused_by_name_and_loads_when_trusted(tmp_path):
    torch.save({'w': torch.ones(2), 'cfg': Unknown()}, tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', f'{__name__}.Unknown', 'allow_pickle=True')
    assert list(read_tensors(tmp_path / 'a.pth', allow_pickle=True)) == ['w']


def test_whole_module_when_trusted(tmp_path):
    torch.save({'model': torch.nn.Sequential(torch.nn.Linear(2, 2))}, tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', 'torch.nn.modules.container.Sequential')
    tensors = read_tensors(tmp_path / 'a.pth', allow_pickle=True)
    assert list(tensors) == ['model.0.weight', 'model.0.bias']
    assert not any(tensor.requires_grad for tensor in tensors.values())


def test_a_class_that_cannot_be_imported_is_one_line_too(tmp_path):
    buffer = io.BytesIO()
    torch.save({'w': torch.ones(2), 'cfg': Unknown()}, buffer)
    name = __name__.encode()
    damaged = buffer.getvalue().replace(b'c' + name, b'c' + b'q' * len(name))
    assert damaged != buffer.getvalue()
    (tmp_path / 'a.pth').write_bytes(damaged)
    refused(tmp_path / 'a.pth', allow_pickle=True)


def test_getattr_answers_for_statistics_only():
    assert history_statistic(OpaqueHistory, 'mean') is not None
    for owner, name in ((OpaqueHistory, '__class__'), (dict, 'mean'), (OpaqueHistory, 'x')):
        with pytest.raises(pickle.UnpicklingError):
            history_statistic(owner, name)


def test_the_allow_list_of_the_process_is_put_back():
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([Unknown])
    try:
        with pytest.raises(KeyError), stand_ins():
            assert Unknown not in torch.serialization.get_safe_globals()
            raise KeyError
        assert set(torch.serialization.get_safe_globals()) == {*before, Unknown}
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
def test_global_names_by_opcode(protocol, tmp_path):
    content = [argparse.Namespace(a=1), np.float64(1), argparse.Namespace(b=2), Runs(os.getcwd)]
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(content, protocol=protocol))
    names = global_names(tmp_path / 'a.pkl')
    assert {'argparse.Namespace', 'numpy.dtype', 'posix.getcwd'} <= set(names)
    assert len(names) == len(set(names))


def test_importing_loads_nothing_of_openmmlab():
    code = (
        'import sys, mm_tuning_plugin.checkpoint\n'
        'loaded = {name.split(".")[0] for name in sys.modules}\n'
        'assert not loaded & {"mmengine", "mmcv", "mmseg"}, loaded'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_advice_that_cannot_help(tmp_path):
    """A class of a package that is not installed here: allowing it would fail as well."""
    buffer = io.BytesIO()
    torch.save({'w': torch.ones(2), 'cfg': Unknown()}, buffer)
    name = __name__.encode()
    path = tmp_path / 'a.pth'
    path.write_bytes(buffer.getvalue().replace(b'c' + name, b'c' + b'q' * len(name)))
    package = 'q' * len(name)
    for options in ({}, {'allow_pickle': True}):
        with mistake(str(path), f"'{package}'", 'model.state_dict()') as error:
            read_tensors(path, **options)
        assert '--allow-pickle' not in str(error.value)


def test_two_tensors_of_one_name(tmp_path):
    """Containers whose names are alike: the second does not take the place of the first."""
    content = {'model': {'a.w': torch.ones(1)}, 'model.a': {'w': torch.zeros(1)}}
    torch.save(content, tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', "'model.a.w'")
    content['model.a']['w'] += 1
    torch.save(content, tmp_path / 'a.pth')
    assert list(read_tensors(tmp_path / 'a.pth')) == ['model.a.w']
