"""The stand-in for mmcv's compiled ops: it lets mmseg import, and fails loudly."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUB = Path(__file__).parent / 'mmcv_ext_stub.py'


def installed_ops():
    """The installed ``mmcv._ext``, None where there is none."""
    spec = importlib.util.find_spec('mmcv._ext')
    return Path(spec.origin) if spec is not None else None


@pytest.fixture
def stub():
    spec = importlib.util.spec_from_file_location('mmcv_ext_stub', STUB)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_op_can_be_looked_up_and_none_called(stub):
    for name in ('nms', 'sigmoid_focal_loss_forward'):
        assert hasattr(stub, name), 'as mmcv asks when it is imported'
        with pytest.raises(RuntimeError, match=rf'mmcv\._ext\.{name} is a stub'):
            getattr(stub, name)(1, option=2)


def test_it_answers_for_ops_only(stub):
    assert not hasattr(stub, '__path__'), 'it would be taken for a package'


@pytest.mark.skipif(
    installed_ops() is None or installed_ops().suffix != '.py',
    reason='this mmcv has no stub: make test-original installs one in its own environment',
)
def test_where_it_is_installed_mmseg_imports_and_ops_fail():
    assert installed_ops().read_bytes() == STUB.read_bytes(), 'make test-original copies it'
    code = (
        'import torch, mmseg.models\n'
        'from mmcv.ops import nms\n'
        'nms(torch.zeros(1, 4), torch.ones(1), 0.5)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'RuntimeError: mmcv._ext.nms is a stub' in done.stderr.strip().splitlines()[-1]


def test_the_package_itself_stubs_nothing():
    """No file of the package touches ``sys.modules``, where a module can be put."""
    wrong = []
    for path in (ROOT / 'mm_tuning_plugin').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) == 'sys.modules':
                wrong.append(f'{path.relative_to(ROOT)}:{node.lineno}')
    assert not wrong
