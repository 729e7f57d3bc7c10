"""What holds for the package as a whole: imports point one way, names resolve, configs build."""

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'mm_tuning_plugin'
# Each may import itself and what stands to its left.
LAYERS = [
    {'errors'},
    {'structures', 'extras', 'discovery', 'atomic_write'},
    {'functional'},
    {'registry', 'config_types', 'checkpoint', 'visualization'},
    {'datasets', 'models', 'evaluation'},
    {'losses', 'nodes', 'paper', 'proxies', 'recipes'},
    {'engine'},
    {'inspection', 'demo', 'benchmark'},
    {'cli'},
    {'__main__'},
]
STRANGERS = [('datasets', 'models'), ('models', 'datasets')]


def layer_of(part):
    return next(i for i, layer in enumerate(LAYERS) if part in layer)


def imported_parts(path):
    """The parts of the package that a module imports, relative imports resolved."""
    package = ('mm_tuning_plugin', *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(package[: len(package) - node.level + 1]) if node.level else ''
            stem = '.'.join(filter(None, [base, node.module]))
            names = [f'{stem}.{alias.name}' for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split('.')
            known = len(parts) > 1 and parts[0] == 'mm_tuning_plugin'
            if known and any(parts[1] in layer for layer in LAYERS):
                yield parts[1]


def test_imports_point_one_way():
    wrong = []
    for path in PACKAGE.rglob('*.py'):
        part = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
        if part in ('__init__', '__main__'):
            continue
        for other in imported_parts(path):
            if layer_of(other) > layer_of(part) or (part, other) in STRANGERS:
                wrong.append(f'{path.relative_to(ROOT)} imports {other}')
    assert not wrong


def loaded_by(module, *prefixes):
    code = f'import {module}, sys; print(*sorted(sys.modules))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split() if name.split('.')[0] in prefixes]


def test_the_method_needs_no_openmmlab_package():
    assert not loaded_by('mm_tuning_plugin.functional', 'mmengine', 'mmcv', 'mmseg', 'cv2')


def test_importing_the_package_is_cheap():
    assert not loaded_by('mm_tuning_plugin', 'torch', 'mmengine', 'mmcv', 'mmseg')


def test_every_registry_location_imports():
    from mm_tuning_plugin.registry import REGISTRIES

    for registry in REGISTRIES:
        assert registry._locations
        for location in registry._locations:
            importlib.import_module(location)


NAMES = {
    'RUNNERS': ['MixAndMatchRunner'],
    'MODELS': [
        'MixAndMatchTuner', 'PooledEmbedding', 'PointEmbedding', 'NodeDataPreprocessor',
        'GraphTripletLoss', 'ExpectedTripletLoss', 'SupervisedContrastiveLoss',
        'PrototypeContrastiveLoss', 'NodeCrossEntropyLoss',
        'ColorizationModel', 'JigsawModel', 'RotationModel',
    ],
    'TRANSFORMS': ['SamplePatches', 'SamplePoints', 'PackNodeInputs', 'MapLabels', 'Cached'],
    'METRICS': ['NodeRetrievalMetric', 'ImageIoUMetric'],
    'HOOKS': [
        'SaveBackboneHook', 'NodeStatisticsHook', 'EstimateBatchNormHook', 'ObserveHook',
        'WatchHook',
    ],
    'DATA_SAMPLERS': ['SeededInfiniteSampler'],
    'WEIGHT_INITIALIZERS': ['SelfSupervised'],
}  # fmt: skip
# Each registry is asked in a process of its own, so that what one look-up imports helps no other.
# The hub of runners is asked through mmseg, as its train.py does; the others as a Runner does.
LOOK_UP = f"""
import os, sys
# what takes long, and nothing of this package
import matplotlib.backends.backend_agg, matplotlib.backends.backend_svg, matplotlib.figure
import mmengine.runner, mmseg.datasets, mmseg.evaluation, mmseg.models, mmseg.registry
assert not any(name.startswith('mm_tuning_plugin') for name in sys.modules)
for registry, names in {NAMES!r}.items():
    child = os.fork()
    if child == 0:
        for name in names:
            found = getattr(mmseg.registry, registry).get(f'mm_tuning_plugin.{{name}}')
            assert found is not None, name
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, registry
"""


def test_names_resolve_from_mmsegs_scope_without_custom_imports():
    done = subprocess.run([sys.executable, '-c', LOOK_UP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]


CONFIGS = sorted(
    path for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts and 'benchmarks' not in path.parts
)  # fmt: skip


@pytest.mark.parametrize('path', CONFIGS, ids=[str(p.relative_to(ROOT)) for p in CONFIGS])
def test_every_config_builds(path):
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope

    from mm_tuning_plugin.cli.common.checkpoint_summary import OnMeta
    from mm_tuning_plugin.cli.train import is_proxy_task
    from mm_tuning_plugin.engine import derive_tuning_config

    cfg = Config.fromfile(path)
    if cfg.default_scope == 'mmpretrain':
        pytest.skip('built in backbones/test_mmpretrain_proxies.py, over a stub of torchvision')
    if 'img_size' in cfg.model.backbone:  # deriving passes an image of it through the backbone
        cfg.model.backbone.img_size = (64, 64)
    with DefaultScope.overwrite_default_scope('mmseg'):
        derived = [] if is_proxy_task(cfg) else [derive_tuning_config(cfg)]
        with OnMeta():  # no values to draw, and no features to compute of the image of the deriving
            for each in (cfg, *derived):
                MODELS.build(each.model)


@pytest.mark.parametrize('plan', sorted((ROOT / 'configs' / 'benchmarks').glob('*.py')))
def test_every_plan_names_configs_and_known_arms(plan, monkeypatch, tmp_path):
    from mm_tuning_plugin.benchmark.design.plan import read_plan

    # data and weights are the user's
    (tmp_path / 'folds.json').write_text(json.dumps([dict(train=['a'], val=['b'])] * 4))
    for variable in ('CAMVID_ROOT', 'SSL_ROOT'):
        monkeypatch.setenv(variable, str(tmp_path))
    for path in (plan, *(ROOT / 'configs' / '_base_' / 'benchmarks').glob('*.py')):
        text = path.read_text(encoding='utf-8')
        for name in re.findall(r'SSL_ROOT:checkpoints}}/([^\']+)', text):
            (tmp_path / name).touch()
    assert read_plan(str(plan)).seeds


def test_a_run_without_the_report_extra_ends_well(toy_cfg, monkeypatch, capsys):
    from mm_tuning_plugin.engine import MixAndMatchRunner

    for name in ('jinja2', 'sklearn'):
        monkeypatch.setitem(sys.modules, name, None)
    toy_cfg.mix_and_match.update(report=True, pictures=['mosaic', 'embedding'])
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    said = capsys.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if '[report]' in line]
    assert len(lines) == 2 and 'pictures' in lines[0] and 'report.html' in lines[1]
    work_dir = Path(toy_cfg.work_dir)
    assert (work_dir / 'iter_4.pth').is_file() and not (work_dir / 'report.html').exists()
