"""The doctor under made-up installations, and once for real."""

import importlib.metadata
import importlib.util
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from mistakes import check_mistake, mistake

from mm_tuning_plugin.cli import doctor
from mm_tuning_plugin.cli.common import environment
from mm_tuning_plugin.cli.common.environment import (
    ERROR,
    NOTE,
    OK,
    check_stack,
    remedy_for,
    require_stack,
)

ROOT = Path(__file__).resolve().parents[2]
FORK = {'onedl-mmengine': '0.10.12', 'onedl-mmcv': '2.3.6', 'onedl-mmsegmentation': '1.4.2'}
ORIGINAL = {'mmengine': '0.10.7', 'mmcv': '2.1.0', 'mmsegmentation': '1.2.2'}
BASE = {'mm_tuning_plugin': '0.1.0', 'torch': '2.13.0+cpu'}


@pytest.fixture
def installed(monkeypatch):
    """Makes the metadata say that exactly these packages are installed; imports all succeed."""

    def pretend(packages, broken=None):
        def version(name):
            if name not in packages:
                raise importlib.metadata.PackageNotFoundError(name)
            return packages[name]

        monkeypatch.setattr(importlib.metadata, 'version', version)
        monkeypatch.setattr(environment, '_on_path', lambda module: False)
        for module in (environment, doctor):
            monkeypatch.setattr(module, 'import_error', lambda name: (broken or {}).get(name))

    return pretend


def levels(findings):
    return [(finding.level, finding.subject) for finding in findings]


@pytest.mark.parametrize(('packages', 'family'), [(FORK, 'fork'), (ORIGINAL, 'original')])
def test_each_family_alone_is_sound(packages, family, installed):
    installed(packages)
    findings = check_stack()
    assert levels(findings) == [
        (OK, 'mmengine'),
        (OK, 'mmcv'),
        (OK, 'mmseg'),
        (OK, 'imports'),
    ]
    assert all(family in finding.found for finding in findings[:3])
    require_stack()


def test_both_families_overwrite_each_other(installed):
    installed({**FORK, **ORIGINAL})
    (finding,) = check_stack()
    assert (finding.level, finding.subject) == (ERROR, 'mmengine')
    assert 'onedl-mmengine 0.10.12 and mmengine 0.10.7' in finding.found
    assert 'overwrite each other' in finding.found
    for name in (*FORK, *ORIGINAL):
        assert f' {name}' in finding.remedy
    assert finding.remedy.startswith('pip uninstall -y ')
    assert finding.remedy.endswith("pip install -e '.[fork]'")


def test_a_mixture_of_families(installed):
    mixed = {k: {**FORK, **ORIGINAL}[k] for k in ('onedl-mmengine', 'mmcv', 'mmsegmentation')}
    installed(mixed)
    (finding,) = check_stack()
    assert finding.level == ERROR and 'a mixture' in finding.found
    assert 'onedl-mmengine 0.10.12, mmcv 2.1.0' in finding.found


def test_nothing_installed(installed):
    installed({})
    findings = check_stack()
    assert levels(findings) == [(ERROR, 'mmengine'), (ERROR, 'mmcv'), (ERROR, 'mmseg')]
    with mistake('mmengine', 'not installed', ("pip install -e '.[fork]'", 'tools/doctor.py')):
        require_stack()


def test_what_is_missing_is_of_the_family_that_is_there(installed):
    installed({k: v for k, v in ORIGINAL.items() if k != 'mmcv'})
    missing = [finding for finding in check_stack() if finding.level == ERROR]
    assert [(f.subject, f.remedy) for f in missing] == [('mmcv', "pip install -e '.[original]'")]


def test_a_source_tree_without_metadata_is_a_note(installed, monkeypatch):
    installed({k: v for k, v in FORK.items() if 'seg' not in k})
    monkeypatch.setattr(environment, '_on_path', lambda module: module == 'mmseg')
    assert (NOTE, 'mmseg') in levels(check_stack())
    require_stack()


def test_mmcv_that_the_original_refuses(installed):
    installed({**ORIGINAL, 'mmcv': '2.2.0'})
    finding = next(finding for finding in check_stack() if finding.subject == 'mmcv')
    assert finding.level == ERROR
    assert finding.found == 'mmcv 2.2.0 (original), outside 2.0 <= version < 2.2'
    assert finding.remedy == 'pip install mmcv==2.1.0'


def test_a_version_out_of_the_tested_range_is_a_note(installed):
    installed({**FORK, 'onedl-mmsegmentation': '1.9.0'})
    finding = next(finding for finding in check_stack() if finding.subject == 'mmseg')
    assert finding.level == NOTE and 'outside 1.3 <= version < 1.5' in finding.found
    require_stack()


def test_the_first_failing_import_is_named_with_its_remedy(installed):
    broken = {
        'mmcv': "ModuleNotFoundError: No module named 'cv2'",
        'mmseg': "ModuleNotFoundError: No module named 'cv2'",
    }
    installed(FORK, broken)
    errors = [finding for finding in check_stack() if finding.level == ERROR]
    assert [(f.subject, f.remedy) for f in errors] == [
        ('import mmcv', 'pip install opencv-python-headless')
    ]
    with mistake('import mmcv', "'cv2'", 'opencv-python-headless'):
        require_stack()


def test_models_of_the_original_without_compiled_ops(installed):
    """mmseg itself imports there, so that its models must be tried."""
    lite = {name.replace('mmcv', 'mmcv-lite'): version for name, version in ORIGINAL.items()}
    installed(lite, {'mmseg.models': "ModuleNotFoundError: No module named 'mmcv._ext'"})
    with mistake('import mmseg.models', 'mmcv._ext', 'compiled ops'):
        require_stack()


@pytest.mark.parametrize(
    ('origin', 'level', 'found'),
    [
        (None, OK, 'not compiled; nothing here needs them'),
        (f'mmcv/_ext{EXTENSION_SUFFIXES[0]}', OK, 'compiled; nothing here needs them'),
        ('mmcv/_ext.py', NOTE, 'not compiled: mmcv/_ext.py is a stub'),
    ],
)
def test_ops_compiled_missing_or_a_stub(monkeypatch, origin, level, found):
    spec = origin and importlib.util.spec_from_loader('mmcv._ext', loader=None, origin=origin)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: spec)
    finding = doctor.check_ops()
    assert finding.level == level and finding.found.startswith(found)


@pytest.mark.parametrize(
    ('error', 'remedy'),
    [
        ('ImportError: libGL.so.1: cannot open', 'opencv-python-headless'),
        ("ModuleNotFoundError: No module named 'pkg_resources'", 'setuptools<82'),
        ("ModuleNotFoundError: No module named 'mmcv._ext'", 'compiled ops'),
        ("ModuleNotFoundError: No module named 'mmseg'", "'.[fork]'"),
        ("ModuleNotFoundError: No module named 'ftfy'", 'pip install ftfy'),
        ('RuntimeError: something else', 'pinned versions'),
    ],
)
def test_remedies(error, remedy):
    assert remedy in remedy_for(error)


@pytest.mark.parametrize(
    ('version', 'expected'),
    [('2.13.0+cpu', (2, 13, 0)), ('2.0.0rc4', (2, 0, 0)), ('1.4', (1, 4)), ('2.10', (2, 10))],
)
def test_release(version, expected):
    assert environment.release(version) == expected
    assert environment.release('2.9') < environment.release('2.10')


def run_main(capsys, argv=()):
    status = doctor.entry(list(argv))
    return status, *capsys.readouterr()


def test_usable(installed, capsys):
    installed({**BASE, **FORK})
    status, out, err = run_main(capsys)
    assert (status, err) == (0, '')
    assert out.splitlines()[-1] == 'usable'
    assert 'ok     torch: 2.13.0+cpu' in out


def test_without_torch_one_line_for_each_cause(installed, capsys):
    """The packages of OpenMMLab are then judged by their metadata only."""
    installed({'mm_tuning_plugin': '0.1.0', **FORK}, broken={'mmengine': 'never tried'})
    status, out, err = run_main(capsys)
    assert status == 2
    assert err.startswith('error: ') and err.count('\n') == 1
    line = err.removeprefix('error: ')
    check_mistake(line, 'torch', ('not installed', '1 to mend'), "pip install 'torch>=2.6'")
    assert 'never tried' not in out and 'ok     mmcv: onedl-mmcv 2.3.6 (fork)' in out


@pytest.mark.parametrize(
    ('version', 'level'),
    [('2.0.1', ERROR), ('2.1.0', NOTE), ('2.5.1+cu121', NOTE), ('2.6.0', OK), ('2.13.0', OK)],
)
def test_versions_of_torch(version, level, installed):
    installed({'torch': version})
    (finding,) = doctor.check_torch()
    assert finding.level == level and version in finding.found


def test_torch_that_does_not_import(installed):
    installed({'torch': '2.13.0'}, broken={'torch': 'OSError: libcudart.so'})
    (finding,) = doctor.check_torch()
    assert finding.level == ERROR and 'libcudart' in finding.found


def test_plugin_not_installed(installed):
    installed({})
    assert doctor.check_plugin().remedy == 'pip install -e .'


def test_missing_packages_by_their_names_on_the_index(monkeypatch):
    monkeypatch.setattr(doctor, 'PACKAGES', ('sys', 'sklearn_gone'))
    monkeypatch.setattr(doctor, 'INDEX_NAMES', {'sklearn_gone': 'scikit-learn'})
    (finding,) = doctor.check_packages()
    assert finding.level == ERROR and finding.remedy == 'pip install scikit-learn'


def test_a_registry_location_that_does_not_import(installed):
    installed({}, broken={'mm_tuning_plugin.models': "ModuleNotFoundError: No module named 'x'"})
    (finding,) = doctor.check_locations()
    assert (finding.level, finding.subject) == (ERROR, 'mm_tuning_plugin.models')


def test_import_error_is_one_line(tmp_path, monkeypatch):
    (tmp_path / 'broken_module_x.py').write_text("raise RuntimeError('one\\ntwo')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert environment.import_error('broken_module_x') == 'RuntimeError: one'
    assert environment.import_error('json') is None


def test_shim_for_real():
    """On the installation that runs the tests; on a foreign one it may say 2, never a traceback."""
    done = subprocess.run(
        [sys.executable, 'tools/doctor.py'], cwd=ROOT, capture_output=True, text=True
    )
    assert 'Traceback' not in done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == 'usable'


def test_shim_where_nothing_is_installed(tmp_path):
    """-S and -E hide site-packages: neither torch nor any mm* package is there."""
    done = subprocess.run(
        [sys.executable, '-S', '-E', str(ROOT / 'tools/doctor.py')],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith('error: ')
    check_mistake(last.removeprefix('error: '), problem='to mend', remedy='pip install')
    assert 'error  mmengine: not installed  ->  ' in done.stdout


def test_module_level_imports_are_light():
    """``--help`` must not wait for torch."""
    code = (
        'import sys; from mm_tuning_plugin.cli.doctor import entry\n'
        'try: entry(["--help"])\n'
        'except SystemExit: pass\n'
        'heavy = {"torch", "mmengine", "mmcv", "mmseg", "numpy"} & set(sys.modules)\n'
        'assert not heavy, heavy'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('usage: doctor.py')
