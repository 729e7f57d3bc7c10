"""What openmim finds in an installed package: ``.mim`` with configs, tools and the model index."""

import os
import subprocess
import sys
from pathlib import Path

import modelindex
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """A build of the package, as a wheel holds it."""
    target = tmp_path_factory.mktemp('build')
    command = [sys.executable, 'setup.py', '-q', 'build', '-b', str(target), 'build_py']
    subprocess.run(
        [*command, '--build-lib', str(target / 'lib')], cwd=ROOT, check=True, capture_output=True
    )
    return target / 'lib'


def test_the_model_index_names_every_config_once():
    models = list(modelindex.load(str(ROOT / 'model-index.yml')).models)
    named = [os.path.relpath(model.config, ROOT) if os.path.isabs(model.config) else model.config
             for model in models]  # fmt: skip
    folders = [f for f in (ROOT / 'configs').iterdir() if f.name not in ('_base_', 'benchmarks')]
    there = [str(path.relative_to(ROOT)) for f in folders for path in f.glob('*.py')]
    assert sorted(named) == sorted(there)
    assert len({model.name for model in models}) == len(models)
    assert {Path(model.config).stem for model in models} == {model.name for model in models}


def test_a_build_holds_what_openmim_looks_for(installed):
    folder = installed / 'mm_tuning_plugin' / '.mim'
    for name in ('configs', 'tools'):
        here = {p.relative_to(ROOT / name) for p in (ROOT / name).rglob('*.py')}
        assert {p.relative_to(folder / name) for p in (folder / name).rglob('*.py')} == here
    assert (folder / 'model-index.yml').read_bytes() == (ROOT / 'model-index.yml').read_bytes()


def test_its_script_runs_from_there_on_a_config_from_there(installed, tmp_path):
    """What ``mim train mm_tuning_plugin demo.py`` calls, as far as a data set that is missing."""
    folder = installed / 'mm_tuning_plugin' / '.mim'
    env = {**os.environ, 'PYTHONPATH': str(installed)}
    config = folder / 'configs' / 'demo' / 'fcn_r18_demo.py'
    command = [sys.executable, str(folder / 'tools' / 'train.py'), str(config)]
    done = subprocess.run(
        [*command, '--launcher', 'none'], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('error: ') and 'data/demo' in last


def test_the_demo_finds_its_configs_there(installed, tmp_path):
    code = 'from mm_tuning_plugin.cli import demo; print(demo.FINE_TUNING, demo.PROXY.is_file())'
    env = {**os.environ, 'PYTHONPATH': str(installed)}
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    found = installed / 'mm_tuning_plugin' / '.mim' / 'configs' / 'demo' / 'fcn_r18_demo.py'
    assert done.stdout.split() == [str(found), 'True']
