"""Runs what README and docs tell to run, page by page, over a small network and drawn scenes.

Longer than a test may last are the configs over real data and the plans: the former get fewer
iterations and smaller batches, the latter are gone through by their dry run.
"""

import json
import re
from pathlib import Path

import pytest
import torch
from blocks import ROOT, blocks, commands, run
from forking import forked_processes  # noqa: F401  a fixture
from mmengine.registry import MODELS, DefaultScope

from mm_tuning_plugin.cli.main import entry
from mm_tuning_plugin.demo.dataset import write_demo_dataset

# What calls for more than this test has, and what runs it. Patterns of whole commands.
ELSEWHERE = {
    r'make (demo|test|test-original|walk)( PYTEST_ARGS=.*)?': '.ci/run',
    r'pip install .*': 'Makefile',
    r'(torchrun|bash|python -m torch).*': 'tests/engine/test_launcher_scripts.py',
    r'.* configs/paper/.*': 'tests/paper/test_recipes.py',
    r'.* configs/proxy/jigsaw_resnet50_folder.*': 'tests/proxies/test_folder_proxies.py',
    r'.* --slurm .*': 'tests/benchmark/test_slurm.py',
    r'python tools/demo.py .*': 'Makefile',
}
# Pages that have a test of their own, from top to bottom.
FOLLOWED = ('docs/start.md', 'docs/extending.md')
CONFIGS = ('YOUR_CONFIG.py', 'CONFIG.py', 'my_config.py')
STARTS = ('moco_v2_r50.pth', 'moco_v2_r50.pth.tar', 'moco_r50.pth', 'my_weights.pth', 'FILE')
SMALL = (
    'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False',
)  # fmt: skip
SMALL_STAGE = (
    'mix_and_match.max_iters=2', 'mix_and_match.images_per_batch=4',
    'mix_and_match.retrieval_images=4',
)  # fmt: skip
# The full network is built by tests/test_package.py.
NARROW = (
    'model.backbone.stem_channels=8', 'model.backbone.base_channels=8',
    'model.decode_head.in_channels=64',
)  # fmt: skip
PAGES = sorted({block.page for block in blocks('sh')} - {*FOLLOWED})


def elsewhere(line):
    return [pattern for pattern in ELSEWHERE if re.fullmatch(pattern, line)]


def test_what_is_left_out_is_run_by_what_is_said_to_run_it():
    lines = [' '.join(w) for b in blocks('sh') for w in commands(b.code)]
    used = {pattern for line in lines for pattern in elsewhere(line)}
    assert used == {*ELSEWHERE}
    assert all((ROOT / place).is_file() for place in ELSEWHERE.values())


@pytest.fixture
def desk(tmp_path, monkeypatch, toy_cfg, demo_root):
    """The folder of someone who reads: their config, their weights, this project's scripts."""
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    toy_cfg.pop('work_dir')
    for name in CONFIGS:
        toy_cfg.dump(tmp_path / name)
    (tmp_path / 'my_project' / 'configs').mkdir(parents=True)
    toy_cfg.dump(tmp_path / 'my_project' / 'configs' / 'own.py')
    with DefaultScope.overwrite_default_scope('mmseg'):
        tensors = MODELS.build(toy_cfg.model.backbone).state_dict()
    encoder = {f'module.encoder_q.{name}': tensor for name, tensor in tensors.items()}
    for name in STARTS:
        torch.save({'state_dict': encoder}, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    """Drawn scenes in CamVid's layout, with a fold; no command writes there."""
    root = write_demo_dataset(
        tmp_path_factory.mktemp('camvid'), image_size=96, num_unlabelled=0, num_train=48, num_val=4
    )
    names = sorted(path.stem for path in (Path(root) / 'img' / 'train').glob('*.jpg'))
    folds = [dict(train=names[:40], val=names[40:])] * 3
    (Path(root) / 'folds.json').write_text(json.dumps(folds))
    return root


@pytest.fixture
def scenes(drawn, monkeypatch):
    """Where a page's commands find these scenes."""
    monkeypatch.setenv('CAMVID_ROOT', str(drawn))
    return drawn


def shortened(words, root):
    """A command that ends within seconds."""
    words = [word.replace('=DIR', f'={root}') for word in words]
    words = [re.sub(r'max_iters=\d{3,}', 'max_iters=4', word) for word in words]
    if 'tools/benchmark.py' in words and '--dry-run' not in words:
        words = [*words, '--dry-run']
    if 'tools/perf/run.py' in words:
        return [*words[:-1], 'speed.json', '--only', 'C1']
    if 'tools/search_recipe.py' in words:
        one = ['--seeds', '0', '--ideas', 'default', '--fraction', '0.125']
        return [*words, *one, '--cfg-options', *SMALL, *SMALL_STAGE]
    if 'tools/train.py' in words and (config := real_config(words)):
        options = (*SMALL, *SMALL_STAGE)
        if '/proxy/' in config:
            options = [option for option in SMALL if 'val_' not in option]
            options += ['default_hooks.checkpoint.interval=2']
        elif '/fcn_r18_camvid_mix-and-match' in config:
            options += NARROW
        words += options if '--cfg-options' in words else ['--cfg-options', *options]
    return words


def real_config(words):
    """The config over real data that a command names, or ''."""
    return next((word for word in words if word.startswith('configs/')), '')


def stand_in(words):
    """What an earlier page, or a longer run than this one, would have left."""
    for word in words:
        if re.fullmatch(r'work_dirs/.*/iter_\d{3,}\.pth', word):
            short = Path(word).with_name('iter_2.pth') if real_config(words) else Path(STARTS[0])
            Path(word).parent.mkdir(parents=True, exist_ok=True)
            Path(word).write_bytes(short.read_bytes())
        elif word.endswith('=work_dirs/tuned/tuning/tuned_backbone.pth'):
            assert entry(['train', 'my_config.py', '--work-dir', 'work_dirs/tuned']) == 0


@pytest.fixture(scope='module')
def ran():
    """Commands whose outcome hangs on nothing that a page has left, once they have run."""
    return set()


def is_alone(words):
    """Whether a command reads nothing but its arguments and writes nothing that others read."""
    return '--dry-run' in words or words == ['mm-tuning', 'doctor']


@pytest.mark.parametrize('page', PAGES)
def test_the_commands_of_a_page_run(page, desk, scenes, monkeypatch, forked_processes, ran):  # noqa: F811
    lines = [words for b in blocks('sh') if b.page == page for words in commands(b.code)]
    for number, words in enumerate(lines):
        if elsewhere(' '.join(words)):
            continue
        words = shortened(words, scenes)
        stand_in(words)
        trains = {'tools/train.py', 'train'} & {*words} and not real_config(words)
        if trains and '--work-dir' not in words:  # the lines of a page are alternatives
            words += ['--work-dir', f'work_dirs/{number}']
        if is_alone(words):
            if tuple(words) in ran:
                continue
            ran.add(tuple(words))
        assert run(words, monkeypatch) == 0, words
