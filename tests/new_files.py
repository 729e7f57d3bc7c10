"""Run a copy of the package that has one more file, and two steps of stage one in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / 'mm_tuning_plugin'
TRAIN = """
from mmengine.config import Config
from mm_tuning_plugin.engine import MixAndMatchRunner
MixAndMatchRunner.from_cfg(Config.fromfile('config.py')).tune()
"""


def run_with(name, code, script, folder):
    """Run a script in a folder with a copy of the package in which one file is new.

    Args:
        name: Path of the new file below the package.
        code: What it holds.
        script: Python, run in `folder`.
        folder: Where the copy goes.
    """
    skip = shutil.ignore_patterns('__pycache__')
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=skip)
    assert not (folder / PACKAGE.name / name).exists()
    (folder / PACKAGE.name / name).write_text(code)
    first = f'import mm_tuning_plugin as m; assert m.__file__.startswith({str(folder)!r})\n'
    environment = {**os.environ, 'PYTHONPATH': str(folder)}
    done = subprocess.run(
        [sys.executable, '-c', first + script],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def two_steps_with(name, code, cfg, folder, **options):
    """Tune with a copy of the package in which a file is new; return the derived config.

    Args:
        name: Path of the new file below the package.
        code: What it holds.
        cfg: The user's config.
        folder: Where the copy goes.
        options: Of ``mix_and_match``.
    """
    from mmengine.config import Config

    folder.mkdir()
    short(cfg, **options).dump(folder / 'config.py')
    run_with(name, code, TRAIN, folder)
    return Config.fromfile(Path(cfg.work_dir) / 'tuning' / 'tuning_config.py')


def short(cfg, **options):
    """A config of two steps without validation."""
    cfg.mix_and_match.update(max_iters=2, images_per_batch=2, retrieval_images=0, **options)
    return cfg
