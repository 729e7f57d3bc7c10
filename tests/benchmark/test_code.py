"""Which code counts for cached artefacts: nothing that makes weights is missing, no comment in."""

import shutil

import pytest

from mm_tuning_plugin.benchmark import code

# One file of every room whose code makes weights. A step comes to some by an import inside a
# function, to some by a location of a registry alone.
MAKING = [
    'structures.py', 'registry.py', 'config_types.py', 'functional/points.py',
    'checkpoint/load.py', 'checkpoint/io/read.py', 'checkpoint/match/fit.py',
    'checkpoint/verdict/judge.py', 'checkpoint/naming/swin.py', 'checkpoint/io/caffe/layers.py',
    'datasets/samplers.py', 'models/tuner.py', 'losses/metric_learning.py', 'nodes/patches.py',
    'paper/backbones/vgg.py', 'paper/heads/hypercolumn.py', 'proxies/rotation.py',
    'engine/runner.py', 'engine/common/models.py', 'engine/config/derive.py',
    'engine/config/initial_weights.py', 'engine/resume/runner.py', 'engine/hooks/batch_norm.py',
    'engine/reuse/tuned_backbone.py', 'benchmark/worker/step_kinds.py',
]  # fmt: skip
SHOWING = [
    'engine/monitor/eta.py', 'engine/report/run_report.py', 'engine/pictures/hook.py',
    'cli/train.py', 'visualization/mosaic.py', 'evaluation/retrieval.py',
    'benchmark/report/report.py', 'errors.py', 'demo/dataset.py', 'inspection/node_survey.py',
]  # fmt: skip
# Modules that no step of a benchmark imports, because they only look.
NEVER_RUN = {
    'checkpoint/known.py', 'engine/preflight/disk_space.py', 'functional/box_shares.py',
}  # fmt: skip
WHOLE = (
    'functional', 'models', 'losses', 'nodes', 'paper', 'proxies', 'datasets', 'engine',
    'checkpoint',
)  # fmt: skip


@pytest.fixture(scope='module')
def package(tmp_path_factory):
    """A copy of our package, to break."""
    copied = tmp_path_factory.mktemp('copy') / code.NAME
    shutil.copytree(code.PACKAGE, copied, ignore=shutil.ignore_patterns('__pycache__'))
    return copied


def digest(package):
    return code.code_digest.__wrapped__(package)


@pytest.fixture(scope='module')
def changed_by(package):
    """Tells whether another text of a file changes the digest."""
    first = digest(package)

    def changed(name, change):
        path = package / name
        text = path.read_text(encoding='utf-8')
        assert change(text) != text
        path.write_text(change(text), encoding='utf-8')
        try:
            return digest(package) != first
        finally:
            path.write_text(text, encoding='utf-8')

    return changed


def broken(text):
    return f'{text}\nBROKEN = 1\n'


@pytest.mark.parametrize('name', MAKING)
def test_what_makes_weights_counts(changed_by, name):
    assert changed_by(name, broken)


@pytest.mark.parametrize(
    ('name', 'before', 'after'),
    [
        ('models/tuner.py', '1_000_003', '1_000_033'),
        ('engine/config/derive_schedule.py', 'iters * 3 // 4', 'iters * 3 // 5'),
        ('losses/prototype_contrastive.py', 'return nodes + ', 'return nodes - '),
        ('engine/config/derive_schedule.py', 'momentum=0.9, weight_decay=5e-4', 'momentum=0.9'),
    ],
)
def test_a_detail_counts(changed_by, name, before, after):
    assert changed_by(name, lambda text: text.replace(before, after))


@pytest.mark.parametrize('name', SHOWING)
def test_what_shows_does_not(changed_by, name):
    assert not changed_by(name, broken)


@pytest.mark.parametrize('name', ['models/tuner.py', 'engine/monitor/eta.py', '__init__.py'])
def test_comments_docstrings_and_layout_do_not(changed_by, name):
    def explained(text):
        return '# Why.\n' + text.replace('"""', '"""Said better: ', 1).replace('\n\n', '\n\n\n')

    assert not changed_by(name, explained)


def test_every_file_of_a_room_counts_or_is_known_to_show():
    counted = set(code.counted_code())
    files = {path.relative_to(code.PACKAGE) for room in WHOLE for path in files_of(room)}
    modules = {path.as_posix(): '.'.join(path.with_suffix('').parts) for path in files}
    out = {name for name, module in modules.items() if name not in counted}
    shown = {name for name in out if code._shows(modules[name].removesuffix('.__init__'))}
    assert out - shown == NEVER_RUN
    for module in code.SHOWS:
        assert code._file(code.PACKAGE, module), f'{module} is there no more'


def files_of(room):
    return (code.PACKAGE / room).rglob('*.py')


def test_what_decides_weights_takes_nothing_but_words_from_what_shows():
    """A new import of these from there is to be looked at: does it determine weights?"""
    taken = {
        (name, f'{stem}.{taken}')
        for name, source in code.counted_code().items()
        for level, stem, names in source.imports
        for taken in names
        if not level and code._shows(stem[len(code.NAME) + 1 :])
        if not stem.endswith(('.errors', '.engine.common.messages'))
    }
    assert {name for name, _ in taken} <= {
        'engine/__init__.py', 'engine/runner.py', 'engine/resume/run_record.py',
        'engine/config/derive.py', 'engine/reuse/tuned_backbone.py',
        'benchmark/worker/step_kinds.py',
    }  # fmt: skip


def test_kinds_of_imports(tmp_path):
    files = {
        'benchmark/worker/step_kinds.py':
            'def f():\n    from mm_tuning_plugin.a import b\nimport numpy',
        'a/__init__.py': '', 'a/b.py': 'from . import c\nfrom ..d import e, F',
        'a/c.py': 'import mm_tuning_plugin.registry', 'd/__init__.py': '', 'd/e.py': '',
        'd/unused.py': '', '__init__.py': '', 'benchmark/__init__.py': '',
        'benchmark/worker/__init__.py': '',
        'registry.py': "LOCATIONS = ['g.h', 'no module', 'MODELS']", 'g/h.py': '',
        'g/__init__.py': '', 'errors.py': '',
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert set(code.counted_code(tmp_path)) == set(files) - {'d/unused.py', 'errors.py'}


def test_the_digest_is_short():
    assert len(code.code_digest()) == 12
